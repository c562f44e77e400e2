//! Security of a pod as a whole, and what its operating system and its share of the host allow.

use std::collections::BTreeSet;

use crate::FieldError;
use crate::container::{app_armor, id, profile, windows_options};
use crate::node::{Findings, Node};

/// Kernel parameters that belong to the network namespace or to that of interprocess
/// communication; upstream's lists.
const IPC_SYSCTLS: [&str; 4] = ["kernel.shm_rmid_forced", "kernel.msg", "kernel.sem", "fs.mqueue."];

pub(crate) fn context(context: &Node<'_>, spec: &Node<'_>, out: &mut Findings) {
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.get(field), out);
    }
    for group in context.get("supplementalGroups").items() {
        id(&group, out);
    }
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        let path = context.path.child("shareProcessNamespace");
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(FieldError::invalid(&path, true, detail));
    }
    sysctls(&context.get("sysctls"), spec, out);
    context.get("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"], out);
    profile(&context.get("seccompProfile"), "seccomp", "seccompProfile", out);
    windows_options(&context.get("windowsOptions"), out);
    app_armor(&context.get("appArmorProfile"), out);
    context.get("supplementalGroupsPolicy").one_of(&["Merge", "Strict"], out);
    context.get("seLinuxChangePolicy").one_of(&["MountOption", "Recursive"], out);
}

/// Kernel parameters: unique, in namespaces of the pod, and names separated by dots or slashes.
fn sysctls(sysctls: &Node<'_>, spec: &Node<'_>, out: &mut Findings) {
    const REGEX: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let text = name.text();
        if !name.require(out) {
            continue;
        }
        let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let part = |part: &str| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(edge)
                && bytes.last().is_some_and(edge)
                && bytes.iter().all(|byte| edge(byte) || matches!(byte, b'-' | b'_'))
        };
        if text.len() > 253 || !text.split(['.', '/']).all(part) {
            let detail = format!("must have at most 253 characters and match regex {REGEX}");
            out.push(name.invalid(detail));
        } else if !seen.insert(text) {
            out.push(FieldError::duplicate(&name.path, text));
        }
        let dotted = text.replace('/', ".");
        if dotted.starts_with("net.") && spec.get("hostNetwork").is_true() {
            out.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        }
        let of_ipc = IPC_SYSCTLS.iter().any(|prefix| dotted.starts_with(prefix))
            || dotted.starts_with("kernel.shm");
        if of_ipc && spec.get("hostIPC").is_true() {
            out.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
}

/// A pod with users of its own shares nothing else with the host.
pub(crate) fn host_users(spec: &Node<'_>, out: &mut Findings) {
    let users = spec.get("hostUsers");
    if !users.is_set() || users.is_true() {
        return;
    }
    let detail = "when `hostUsers` is false";
    for (field, shown) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if spec.get(field).is_true() {
            out.push(FieldError::forbidden(&spec.path.child(shown), detail));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            let devices = container.get("volumeDevices");
            if devices.len() > 0 {
                out.push(devices.forbidden(detail));
            }
        }
    }
}

/// All containers of a pod are processes of a Windows host, or none is.
pub(crate) fn host_processes(spec: &Node<'_>, out: &mut Findings) {
    let of_pod = host_process(spec);
    let (mut all, mut some) = (0, 0);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            let own = host_process(&container);
            if own.is_set() && of_pod.is_set() && own.value != of_pod.value {
                let detail = format!(
                    "pod hostProcess value must be identical if both are specified, was {}",
                    of_pod.is_true()
                );
                out.push(own.invalid(detail));
            }
            all += 1;
            let is_host = if own.is_set() { own.is_true() } else { of_pod.is_true() };
            some += usize::from(is_host);
        }
    }
    if some == 0 {
        return;
    }
    if some < all {
        let detail = "If pod contains any hostProcess containers then all containers must be \
                      HostProcess containers";
        out.push(FieldError::invalid(&spec.path, "", detail));
    }
    if !spec.get("hostNetwork").is_true() {
        let path = spec.path.child("hostNetwork");
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        out.push(FieldError::invalid(&path, spec.get("hostNetwork").is_true(), detail));
    }
}

fn host_process<'a>(at: &Node<'a>) -> Node<'a> {
    at.get("securityContext").get("windowsOptions").get("hostProcess")
}

/// What the named operating system has no notion of.
pub(crate) fn operating_system(spec: &Node<'_>, out: &mut Findings) {
    let name = spec.get("os").get("name").text();
    let containers = || {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| spec.get(list).items())
            .map(|container| container.get("securityContext"))
    };
    match name {
        "linux" => {
            let contexts = std::iter::once(spec.get("securityContext")).chain(containers());
            for options in contexts.map(|context| context.get("windowsOptions")) {
                if options.is_set() {
                    out.push(options.forbidden("windows options cannot be set for a linux pod"));
                }
            }
        }
        "windows" => {
            windows_pod(spec, out);
            containers().for_each(|context| windows_container(&context, out));
        }
        _ => {}
    }
}

fn windows_pod(spec: &Node<'_>, out: &mut Findings) {
    const OF_POD: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
    const FIELDS: [&str; 15] = [
        "appArmorProfile",
        "seLinuxOptions",
        "hostUsers",
        "hostPID",
        "hostIPC",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "shareProcessNamespace",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    for field in FIELDS {
        let of_pod = OF_POD.contains(&field);
        let at = if of_pod { spec.get(field) } else { spec.get("securityContext").get(field) };
        if is_given(&at) {
            out.push(at.forbidden("cannot be set for a windows pod"));
        }
    }
}

fn windows_container(context: &Node<'_>, out: &mut Findings) {
    const FIELDS: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for field in FIELDS {
        let at = context.get(field);
        if at.is_set() {
            out.push(at.forbidden("cannot be set for a windows pod"));
        }
    }
}

fn is_given(at: &Node<'_>) -> bool {
    match at.value {
        serde_json::Value::Array(items) => !items.is_empty(),
        _ => at.is_set(),
    }
}
