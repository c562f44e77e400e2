//! What the restricted level refuses beyond the baseline.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::{added, seccomp_setters};
use super::checks::{Pod, Violation, containers, named, names_where, quoted};

/// Volumes that hold nothing of the node.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let names =
        names_where(pod, |container| container.context["allowPrivilegeEscalation"] != false);
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    Some(Violation::new("allowPrivilegeEscalation != false", detail))
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() || !pod.version.is_at_least(22) {
        return None;
    }
    let drops_all = |context: &Value| {
        let list = context["capabilities"]["drop"].as_array();
        list.is_some_and(|list| list.iter().any(|capability| capability == "ALL"))
    };
    let mut details = Vec::new();
    let keeping = names_where(pod, |container| !drops_all(container.context));
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keeping)
        ));
    }
    if let Some((names, bad)) = added(pod, &["NET_BIND_SERVICE"]) {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(&bad)
        ));
    }
    if details.is_empty() {
        return None;
    }
    Some(Violation::new("unrestricted capabilities", details.join("; ")))
}

pub(super) fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |volume: &Value| -> String {
        let fields = volume.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        fields.filter(|field| *field != "name").collect::<Vec<_>>().concat()
    };
    let is_allowed = |kind: &str| VOLUMES.contains(&kind) || kind == "image" || kind.is_empty();
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
        let kind = kind(volume);
        if !is_allowed(&kind) {
            names.push(volume["name"].as_str().unwrap_or_default().to_owned());
            kinds.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let kinds: Vec<String> = kinds.into_iter().collect();
    let detail = format!(
        "{} {} {}",
        named("volume", "volumes", &names),
        if names.len() == 1 { "uses" } else { "use" },
        named("restricted volume type", "restricted volume types", &kinds)
    );
    Some(Violation::new("restricted volume types", detail))
}

pub(super) fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.has_own_users() {
        return None;
    }
    let of_pod = &pod.context()["runAsNonRoot"];
    let mut setters = Vec::new();
    if *of_pod == false {
        setters.push("pod".to_owned());
    }
    let explicit = names_where(pod, |container| container.context["runAsNonRoot"] == false);
    if !explicit.is_empty() {
        setters.push(containers(&explicit));
    }
    if !setters.is_empty() {
        let detail =
            format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return Some(Violation::new(REASON, detail));
    }
    let silent = names_where(pod, |container| {
        *of_pod != true && container.context.get("runAsNonRoot").is_none_or(Value::is_null)
    });
    if silent.is_empty() {
        return None;
    }
    let detail =
        format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent));
    Some(Violation::new(REASON, detail))
}

pub(super) fn user(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() || !pod.version.is_at_least(23) {
        return None;
    }
    let mut setters = Vec::new();
    if pod.context()["runAsUser"] == 0 {
        setters.push("pod".to_owned());
    }
    let names = names_where(pod, |container| container.context["runAsUser"] == 0);
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() {
        return None;
    }
    let detail = format!("{} must not set runAsUser=0", setters.join(" and "));
    Some(Violation::new("runAsUser=0", detail))
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    if let Some(found) = seccomp_setters(pod) {
        return Some(found);
    }
    let has = |context: &Value| context["seccompProfile"]["type"].is_string();
    let silent = names_where(pod, |container| !has(pod.context()) && !has(container.context));
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\"",
        containers(&silent)
    );
    Some(Violation::new("seccompProfile", detail))
}
