//! What is special about a kind when it is written. One file per kind; most kinds need none.

mod certificate_signing_request;
mod custom_resource_definition;
mod daemon_set;
mod device_taint_rule;
mod job;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
mod pod;
mod pod_certificate_request;
mod pod_group;
mod resource_slice;
mod service;
mod service_account;
mod stateful_set;

use meta::Status;
use serde_json::{Map, Value};

use crate::server::Server;

pub(crate) use certificate_signing_request::apply_approval;

/// What a strategy may know about the write.
pub(crate) struct WriteContext<'a> {
    pub(crate) server: &'a Server,
    pub(crate) user: &'a authn::UserInfo,
}

/// What deletion does to an object, besides finalizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It goes at once.
    Immediate,
    /// It stays for so many seconds, for somebody to finish it; 0 removes it.
    Graceful(i64),
}

/// Hooks around the generic write path. Objects are working forms in the stored version, with
/// defaults; the generic path has set system metadata before and sets generation after.
pub(crate) trait Strategy: Send + Sync {
    /// Whether clients cannot write the status with the object itself.
    fn resets_status(&self) -> bool {
        true
    }

    /// Whether PUT of an absent object creates it.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether deleting answers with the object rather than a status.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// Whether dependents are orphaned when the client does not say.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Prepares a new object.
    fn prepare_create(&self, _ctx: &WriteContext<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Prepares a changed object.
    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        _object: &mut Value,
        _old: &Value,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Prepares an object whose status was changed.
    fn prepare_status(&self, _ctx: &WriteContext<'_>, _object: &mut Value, _old: &Value) {}

    /// Whether the user may change the status so, which has been found valid.
    fn permits_status(
        &self,
        _ctx: &WriteContext<'_>,
        _object: &Value,
        _old: &Value,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// How the object is deleted, given the grace period asked for.
    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    /// Marks an object for deletion in a way of its own; `false` when there is none.
    fn mark(&self, _object: &mut Value, _now: &str) -> bool {
        false
    }

    /// Takes back what preparing reserved, when the write did not happen after all.
    fn abandon(&self, _ctx: &WriteContext<'_>, _object: &Value, _old: Option<&Value>) {}

    /// Follows a write that happened.
    fn written(&self, _ctx: &WriteContext<'_>, _object: &Value, _old: Option<&Value>) {}

    /// Follows a deletion that happened.
    fn deleted(&self, _ctx: &WriteContext<'_>, _object: &Value) {}
}

/// The strategy of a resource.
pub(crate) fn of(definition: &schema::Resource) -> &'static dyn Strategy {
    match (&*definition.group, &*definition.name) {
        ("", "namespaces") => &namespace::Namespaces,
        ("", "nodes") => &node::Nodes,
        ("", "persistentvolumes" | "persistentvolumeclaims") => &persistent_volume::Volumes,
        ("", "pods") => &pod::Pods,
        ("", "services") => &service::Services,
        ("", "serviceaccounts") => &service_account::ServiceAccounts,
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            &custom_resource_definition::CustomResourceDefinitions
        }
        ("certificates.k8s.io", "certificatesigningrequests") => {
            &certificate_signing_request::CertificateSigningRequests
        }
        ("", "replicationcontrollers") => &Orphaning,
        ("apps", "daemonsets") => &daemon_set::DaemonSets,
        ("apps", "statefulsets") => &stateful_set::StatefulSets,
        ("batch", "jobs") => &job::Jobs,
        ("certificates.k8s.io", "podcertificaterequests") => {
            &pod_certificate_request::PodCertificateRequests
        }
        ("resource.k8s.io", "devicetaintrules") => &device_taint_rule::DeviceTaintRules,
        ("resource.k8s.io", "resourcepoolstatusrequests") => &ReturningWithStatus,
        ("scheduling.k8s.io", "podgroups") => &pod_group::PodGroups,
        ("scheduling.k8s.io", "workloads") => &pod_group::Workloads,
        ("resource.k8s.io", "resourceslices") => &resource_slice::ResourceSlices,
        ("", "limitranges") => &limit_range::LimitRanges,
        ("", "events" | "endpoints")
        | ("coordination.k8s.io" | "rbac.authorization.k8s.io" | "node.k8s.io", _) => {
            &CreatedByUpdate
        }
        ("", "podtemplates" | "resourcequotas") => &Returning,
        _ if definition.subresource("status").is_some() => &WithStatus,
        _ => &Plain,
    }
}

/// The strategy of custom resources; whether the status is written apart is for their versions to
/// say.
pub(crate) fn of_custom_resources() -> &'static dyn Strategy {
    &Plain
}

/// Nothing special; if there is a status, it is a field like any other.
struct Plain;

impl Strategy for Plain {
    fn resets_status(&self) -> bool {
        false
    }
}

/// Status apart.
struct WithStatus;

impl Strategy for WithStatus {}

/// Dependents stay when the client does not say.
struct Orphaning;

impl Strategy for Orphaning {
    fn orphans_by_default(&self) -> bool {
        true
    }
}

/// PUT may create.
struct CreatedByUpdate;

impl Strategy for CreatedByUpdate {
    fn resets_status(&self) -> bool {
        false
    }

    fn creates_on_update(&self) -> bool {
        true
    }
}

/// DELETE answers with the object.
struct Returning;

impl Strategy for Returning {
    fn returns_deleted(&self) -> bool {
        true
    }
}

/// DELETE answers with the object, whose status is apart.
struct ReturningWithStatus;

impl Strategy for ReturningWithStatus {
    fn returns_deleted(&self) -> bool {
        true
    }
}

/// Kinds whose `metadata.generation` upstream keeps.
const WITH_GENERATION: [(&str, &[&str]); 10] = [
    (
        "admissionregistration.k8s.io",
        &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apps", &["daemonsets", "deployments", "replicasets", "statefulsets"]),
    ("batch", &["cronjobs", "jobs"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("networking.k8s.io", &["ingresses", "ingressclasses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
    ("resource.k8s.io", &["deviceclasses", "devicetaintrules", "resourceslices"]),
    ("", &["pods", "podtemplates", "replicationcontrollers"]),
];

/// Whether the resource has generations.
pub(crate) fn has_generation(group: &str, resource: &str) -> bool {
    (group, resource) == ("scheduling.k8s.io", "priorityclasses")
        || WITH_GENERATION.iter().any(|(g, list)| *g == group && list.contains(&resource))
}

/// Whether anything but metadata and status differs.
pub(crate) fn spec_differs(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a != b };
    let counts = |key: &str| !matches!(key, "kind" | "apiVersion" | "metadata" | "status");
    let covers = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter().filter(|(key, _)| counts(key)).all(|(key, value)| b.get(key) == Some(value))
    };
    !(covers(a, b) && covers(b, a))
}

/// Puts the old value of a field back.
pub(crate) fn keep_old(object: &mut Value, old: &Value, field: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// Takes a field away.
pub(crate) fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}
