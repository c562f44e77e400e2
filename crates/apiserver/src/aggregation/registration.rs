//! `APIService` objects of what this server serves itself.
//!
//! Upstream: `kube-aggregator/pkg/controllers/autoregister`, `controlplane/apiserver/aggregator.go`.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use meta::{Reason, Status};
use serde_json::{Value, json};

use super::{GROUP, PATH, RESOURCE};
use crate::bootstrap;
use crate::handle::Handle;
use crate::query::escape;

/// Says that an object is kept by the server, and how.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// It is made at start, and left to the user after that.
const ON_START: &str = "onstart";
/// It comes and goes with what it stands for.
const ALWAYS: &str = "true";

/// Priorities of a group and of a version in it; higher ones come first.
type Priority = (i64, i64);

/// Custom resources; upstream's.
const CUSTOM: Priority = (1000, 100);

/// Makes what is missing, mends what differs, removes what stands for nothing any more.
pub(super) async fn keep(handle: &Handle) -> Result<(), Status> {
    let wanted = wanted(handle);
    let mut present = BTreeSet::new();
    for object in admission::View::list(&*handle.server, GROUP, RESOURCE, "") {
        let name = &object.header().name;
        present.insert(name.clone());
        let Some(managed) = object.header().label(MANAGED) else { continue };
        let path = format!("{PATH}/{}", escape(name));
        match wanted.get(name) {
            None if managed == ALWAYS => {
                forgive(bootstrap::send(handle, Method::DELETE, &path, &json!({})).await)?;
            }
            Some(wanted) if managed == wanted.managed => {
                let Ok(mut found) = object.decode::<Value>() else { continue };
                if found["spec"] != wanted.spec {
                    found["spec"] = wanted.spec.clone();
                    forgive(bootstrap::send(handle, Method::PUT, &path, &found).await)?;
                }
            }
            _ => {}
        }
    }
    for (name, wanted) in wanted.iter().filter(|(name, _)| !present.contains(*name)) {
        let object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "labels": {MANAGED: wanted.managed}},
            "spec": wanted.spec,
        });
        forgive(bootstrap::send(handle, Method::POST, PATH, &object).await)?;
    }
    Ok(())
}

/// Others write too; what they did is seen in the next round.
fn forgive(result: Result<(), Status>) -> Result<(), Status> {
    let is_harmless = |status: &Status| {
        [Reason::AlreadyExists, Reason::Conflict, Reason::NotFound].iter().any(|r| status.is(*r))
    };
    match result {
        Err(status) if is_harmless(&status) => Ok(()),
        result => result,
    }
}

struct Wanted {
    managed: &'static str,
    spec: Value,
}

fn wanted(handle: &Handle) -> BTreeMap<String, Wanted> {
    let mut all = BTreeMap::new();
    let mut add = |group: &str, version: &str, managed, (group_priority, priority): Priority| {
        let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority,
            "versionPriority": priority});
        if !group.is_empty() {
            spec["group"] = json!(group);
        }
        all.insert(format!("{version}.{group}"), Wanted { managed, spec });
    };
    for group in schema::registry().groups() {
        for version in &group.versions {
            if let Some(priority) = priority(&group.name, &version.version)
                && !version.resources.is_empty()
                && group.name != GROUP
            {
                add(&group.name, &version.version, ON_START, priority);
            }
        }
    }
    let definitions = admission::View::list(
        &*handle.server,
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "",
    );
    for definition in definitions {
        let Ok(definition) = definition.decode::<Value>() else { continue };
        let Some(group) = definition["spec"]["group"].as_str() else { continue };
        let is_established = definition["status"]["conditions"].as_array().is_some_and(|list| {
            list.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
        });
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        for version in versions.filter(|version| is_established && version["served"] == true) {
            let Some(version) = version["name"].as_str() else { continue };
            add(group, version, ALWAYS, CUSTOM);
        }
    }
    all
}

/// Upstream's order of groups, and of versions in them. A group that is not in it is not
/// registered.
fn priority(group: &str, version: &str) -> Option<Priority> {
    let of_group = match group {
        "" => 18_000,
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" | "resource.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        "internal.apiserver.k8s.io" => 16_000,
        "storagemigration.k8s.io" => 15_800,
        _ => return None,
    };
    let of_version = match (group, version) {
        ("", "v1") => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        ("resource.k8s.io", "v1") => 20,
        ("resource.k8s.io", "v1beta2") => 15,
        ("coordination.k8s.io", "v1beta1") => 13,
        ("coordination.k8s.io", "v1alpha2")
        | ("admissionregistration.k8s.io" | "discovery.k8s.io", "v1beta1") => 12,
        ("admissionregistration.k8s.io" | "internal.apiserver.k8s.io", "v1alpha1") => 9,
        (_, "v1") => 15,
        (_, beta) if beta.starts_with("v1beta") => 9,
        _ => 1,
    };
    Some((of_group, of_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_come_first() {
        assert!(priority("autoscaling", "v2") > priority("autoscaling", "v1"));
        assert!(priority("resource.k8s.io", "v1") > priority("resource.k8s.io", "v1beta2"));
        assert!(priority("", "v1") > priority("apps", "v1"));
        assert_eq!(priority("example.com", "v1"), None);
    }
}
