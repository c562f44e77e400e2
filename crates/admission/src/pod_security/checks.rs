//! The checks of a standard in upstream's order, and what they share.

use std::fmt;

use serde_json::{Map, Value};

use super::policy::{Level, Standard, Version};
use super::{baseline, restricted};

/// Annotations with the profiles of containers, of old.
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    pub(super) detail: String,
}

impl Violation {
    pub(super) fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{} ({})", self.reason, self.detail)
        }
    }
}

/// What a check looks at.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a Value,
    pub(super) annotations: Option<&'a Map<String, Value>>,
    pub(super) version: Version,
}

impl<'a> Pod<'a> {
    /// All containers with their security contexts.
    pub(super) fn containers(&self) -> impl Iterator<Item = Container<'a>> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
            .map(|value| Container { value, context: &value["securityContext"] })
    }

    pub(super) fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Rules about Linux do not hold for pods of another system, since it can be told.
    pub(super) fn is_windows(&self) -> bool {
        self.version.is_at_least(25) && self.spec["os"]["name"] == "windows"
    }

    /// Users in the pod are not those of the host.
    pub(super) fn has_own_users(&self) -> bool {
        self.version.is_at_least(35) && self.spec["hostUsers"] == false
    }
}

/// One container.
pub(super) struct Container<'a> {
    pub(super) value: &'a Value,
    pub(super) context: &'a Value,
}

impl Container<'_> {
    pub(super) fn name(&self) -> String {
        self.value["name"].as_str().unwrap_or_default().to_owned()
    }
}

type Check = fn(&Pod<'_>) -> Option<Violation>;

/// By upstream's identifiers, which the order follows.
const BASELINE: [Check; 9] = [
    baseline::app_armor,
    baseline::host_namespaces,
    baseline::host_ports,
    baseline::probe_hosts,
    baseline::privileged,
    baseline::proc_mount,
    baseline::se_linux,
    baseline::sysctls,
    baseline::host_process,
];

/// What a pod does that its standard does not allow.
pub(super) fn violations(
    standard: Standard,
    spec: &Value,
    annotations: Option<&Map<String, Value>>,
) -> Vec<Violation> {
    let pod = Pod { spec, annotations, version: standard.version };
    let run = |checks: &[Check]| -> Vec<Violation> {
        checks.iter().filter_map(|check| check(&pod)).collect()
    };
    match standard.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => {
            let [app_armor, namespaces, ports, probes, privileged, mount, linux, sysctls, process] =
                BASELINE;
            run(&[
                app_armor,
                baseline::capabilities,
                namespaces,
                baseline::host_paths,
                ports,
                probes,
                privileged,
                mount,
                linux,
                baseline::seccomp,
                sysctls,
                process,
            ])
        }
        Level::Restricted => {
            let mut found = run(&BASELINE);
            found.extend(run(&[
                restricted::escalation,
                restricted::capabilities,
                restricted::volumes,
                restricted::non_root,
                restricted::user,
                restricted::seccomp,
            ]));
            found
        }
    }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(list: &[T]) -> String {
    let list: Vec<String> = list.iter().map(|text| format!("{:?}", text.as_ref())).collect();
    list.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn named<T: AsRef<str>>(one: &str, many: &str, list: &[T]) -> String {
    format!("{} {}", if list.len() == 1 { one } else { many }, quoted(list))
}

pub(super) fn containers<T: AsRef<str>>(list: &[T]) -> String {
    named("container", "containers", list)
}

/// Names of the containers that something holds for.
pub(super) fn names_where(pod: &Pod<'_>, holds: impl Fn(&Container<'_>) -> bool) -> Vec<String> {
    pod.containers().filter(holds).map(|container| container.name()).collect()
}
