//! Bootstrap roles and bindings. Facts: upstream's `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`.
//!
//! `roles.txt` has one line per role or rule; see its head.

use std::collections::BTreeMap;

use features::Features;
use meta::Status;
use serde_json::{Value, json};

use super::{ensure, put};
use crate::handle::Handle;

static ROLES: &str = include_str!("roles.txt");
const PATH: &str = "/apis/rbac.authorization.k8s.io/v1";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Writes roles and bindings that are missing or out of date.
pub(super) async fn ensure_roles(handle: &Handle) -> Result<(), Status> {
    for entry in parse(ROLES, &handle.server.config.features) {
        let path = match &entry.namespace {
            Some(namespace) => format!("{PATH}/namespaces/{namespace}/{}", entry.resource),
            None => format!("{PATH}/{}", entry.resource),
        };
        let namespace = entry.namespace.as_deref().unwrap_or_default();
        let name = entry.object["metadata"]["name"].as_str().unwrap_or_default();
        match handle.server.find("rbac.authorization.k8s.io", entry.resource, namespace, name) {
            None => ensure(handle, &path, &entry.object).await?,
            Some(found) if is_current(&found, &entry.object) => {}
            Some(_) => put(handle, &path, &entry.object).await?,
        }
    }
    Ok(())
}

/// Whether the stored object has what it should have, or its owner wants it left alone.
fn is_current(found: &meta::Object, wanted: &Value) -> bool {
    let Ok(found) = found.decode::<Value>() else { return false };
    let left_alone =
        found["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] == "false";
    // Rules of aggregated roles are the controller's.
    let is_aggregated = wanted.get("aggregationRule").is_some();
    let same = |field: &str| found.get(field) == wanted.get(field);
    left_alone || ((is_aggregated || same("rules")) && same("roleRef") && same("subjects"))
}

struct Entry {
    resource: &'static str,
    namespace: Option<String>,
    object: Value,
}

fn parse(text: &str, features: &Features) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let words = match words.as_slice() {
            ["gate", gates, ..] if !gates.split(',').all(|gate| features.is_enabled(gate)) => {
                continue;
            }
            ["gate", _, rule @ ..] => rule,
            words => words,
        };
        match words {
            ["role", name, options @ ..] => entries.push(role(name, options)),
            ["bind", role, subjects @ ..] => entries.push(binding(role, subjects)),
            ["url", verbs, urls] => {
                push_rule(
                    &mut entries,
                    json!({"nonResourceURLs": list(urls), "verbs": list(verbs)}),
                );
            }
            [verbs, groups, resources, names @ ..] => {
                let groups: Vec<String> = list(groups)
                    .into_iter()
                    .map(|group| if group == "core" { String::new() } else { group })
                    .collect();
                let mut rule = json!({"apiGroups": groups, "resources": list(resources),
                    "verbs": list(verbs)});
                if let Some(names) = names.first() {
                    rule["resourceNames"] = json!(list(names));
                }
                push_rule(&mut entries, rule);
            }
            _ => {}
        }
    }
    entries.into_iter().map(finish).collect()
}

fn push_rule(entries: &mut [Entry], rule: Value) {
    if let Some(entry) = entries.last_mut()
        && let Some(rules) = entry.object["rules"].as_array_mut()
    {
        rules.push(rule);
    }
}

/// Roles that are made of others have no rules of their own.
fn finish(mut entry: Entry) -> Entry {
    if entry.object.get("aggregationRule").is_some() {
        crate::strategy::remove(&mut entry.object, "rules");
    }
    entry
}

/// `namespace/name` for a role in a namespace; options are `label=…` to be aggregated to that role
/// and `from=…` to be made of the roles labelled so.
fn role(name: &str, options: &[&str]) -> Entry {
    let (namespace, name) = split_name(name);
    let mut labels = BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults")]);
    let mut selectors = Vec::new();
    for option in options {
        if let Some(role) = option.strip_prefix("label=") {
            labels.insert(aggregate_label(role), "true");
        } else if let Some(role) = option.strip_prefix("from=") {
            selectors.push(json!({"matchLabels": {aggregate_label(role): "true"}}));
        }
    }
    let mut object =
        object(if namespace.is_some() { "Role" } else { "ClusterRole" }, name, &labels);
    object["rules"] = json!([]);
    if !selectors.is_empty() {
        object["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
    }
    let resource = if namespace.is_some() { "roles" } else { "clusterroles" };
    with_namespace(resource, namespace, object)
}

fn aggregate_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

/// `namespace/role` binds in a namespace; subjects are `user:…`, `group:…`, `sa:namespace/name`.
fn binding(role: &str, subjects: &[&str]) -> Entry {
    let (namespace, role) = split_name(role);
    let subjects: Vec<Value> = subjects.iter().map(|subject| parse_subject(subject)).collect();
    let labels = BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults")]);
    let (kind, role_kind, resource) = match namespace {
        Some(_) => ("RoleBinding", "Role", "rolebindings"),
        None => ("ClusterRoleBinding", "ClusterRole", "clusterrolebindings"),
    };
    let mut object = object(kind, role, &labels);
    object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind,
        "name": role});
    if !subjects.is_empty() {
        object["subjects"] = json!(subjects);
    }
    with_namespace(resource, namespace, object)
}

fn parse_subject(text: &str) -> Value {
    let (kind, rest) = text.split_once(':').unwrap_or(("user", text));
    let named =
        |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": rest});
    match kind {
        "sa" => {
            let (namespace, name) = rest.split_once('/').unwrap_or(("kube-system", rest));
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        "group" => named("Group"),
        _ => named("User"),
    }
}

fn split_name(name: &str) -> (Option<String>, &str) {
    match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, name),
    }
}

fn object(kind: &str, name: &str, labels: &BTreeMap<String, &str>) -> Value {
    json!({"kind": kind, "apiVersion": API_VERSION, "metadata": {
        "name": name, "labels": labels,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}}})
}

fn with_namespace(resource: &'static str, namespace: Option<String>, mut object: Value) -> Entry {
    if let Some(namespace) = &namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    Entry { resource, namespace, object }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_binding_has_its_role() {
        let entries = parse(ROLES, &Features::default());
        let key = |entry: &Entry, name: &Value| {
            (entry.namespace.clone(), name.as_str().unwrap().to_owned())
        };
        let roles: Vec<_> = entries
            .iter()
            .filter(|entry| entry.resource.ends_with("roles"))
            .map(|entry| key(entry, &entry.object["metadata"]["name"]))
            .collect();
        let bindings = entries.iter().filter(|entry| entry.resource.ends_with("bindings"));
        let missing: Vec<_> = bindings
            .map(|entry| key(entry, &entry.object["roleRef"]["name"]))
            .filter(|role| !roles.contains(role))
            .collect();
        assert!(roles.len() > 50);
        assert_eq!(missing, []);
    }

    #[test]
    fn the_rules_of_the_file_are_read() {
        let text = "role cluster-admin\n* * *\nurl * *\nrole a/b label=view\nget core pods x,y\n";
        let entries = parse(text, &Features::default());
        assert_eq!(entries[0].object["rules"][0]["resources"], json!(["*"]));
        assert_eq!(entries[0].object["rules"][1]["nonResourceURLs"], json!(["*"]));
        assert_eq!(entries[1].namespace.as_deref(), Some("a"));
        assert_eq!(entries[1].object["rules"][0]["resourceNames"], json!(["x", "y"]));
        assert_eq!(entries[1].object["rules"][0]["apiGroups"], json!([""]));
    }

    #[test]
    fn rules_of_gates_count_where_these_are_open() {
        let text = "role r\nget core pods\ngate DRADeviceTaintRules list core nodes\n";
        let rules = |gates: &[&str]| {
            let entries = parse(text, &Features::parse(gates).unwrap());
            entries[0].object["rules"].as_array().unwrap().len()
        };
        assert_eq!(rules(&[]), 1);
        assert_eq!(rules(&["DRADeviceTaintRules=true"]), 2);
    }

    /// Verbs by group, resource and names, of each controller.
    type Rights = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

    const CONTROLLER: &str = "system:controller:";

    fn texts(value: &Value) -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    fn given(features: &Features) -> Rights {
        let mut rights = Rights::new();
        for entry in parse(ROLES, features) {
            let name = entry.object["metadata"]["name"].as_str().unwrap();
            let Some(name) = name.strip_prefix(CONTROLLER) else { continue };
            if entry.resource != "clusterroles" {
                continue;
            }
            let role = rights.entry(name.to_owned()).or_default();
            for rule in entry.object["rules"].as_array().unwrap() {
                let names = texts(&rule["resourceNames"]).join(",");
                for group in texts(&rule["apiGroups"]) {
                    let group = if group.is_empty() { "core" } else { &group };
                    for resource in texts(&rule["resources"]) {
                        let what = format!("{group} {resource} {names}").trim_end().to_owned();
                        role.entry(what).or_default().extend(texts(&rule["verbs"]));
                    }
                }
            }
        }
        rights
    }

    fn upstreams(features: &Features) -> Rights {
        let mut rights = Rights::new();
        let mut role = None;
        for line in include_str!("rights.txt").lines().filter(|line| !line.starts_with('#')) {
            let is_open = |gates: &str| gates.split(',').all(|gate| features.is_enabled(gate));
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["role", name] => role = Some(name),
                ["role", name, gates] => role = is_open(gates).then_some(name),
                [verbs, ref what @ ..] => {
                    let Some(name) = role else { continue };
                    if what[1].starts_with("devicetaintrules") && !is_open("DRADeviceTaintRules") {
                        continue;
                    }
                    let role = rights.entry(name.to_owned()).or_default();
                    role.insert(what.join(" "), list(verbs).into_iter().collect());
                }
                [] => {}
            }
        }
        rights
    }

    #[test]
    fn controllers_may_do_what_upstreams_may_and_no_more() {
        let gates = "AllAlpha=true,AllBeta=true";
        for features in [Features::default(), Features::parse(&[gates]).unwrap()] {
            let (ours, theirs) = (given(&features), upstreams(&features));
            assert!(theirs.len() > 35);
            let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                assert_eq!(ours.get(name), theirs.get(name), "{name}");
            }
        }
    }

    #[test]
    fn every_role_of_a_controller_is_bound_to_its_account_alone() {
        for entry in parse(ROLES, &Features::default()) {
            let name = entry.object["roleRef"]["name"].as_str().unwrap_or_default();
            let Some(name) = name.strip_prefix(CONTROLLER) else { continue };
            let account = json!([{ "kind": "ServiceAccount", "name": name,
                "namespace": "kube-system" }]);
            assert_eq!(entry.object["subjects"], account, "{name}");
        }
    }
}
