//! StorageVersions and StorageVersionMigrations.
//!
//! Upstream: `pkg/apis/apiserverinternal/validation`, `pkg/apis/storagemigration/validation`.

use std::collections::{BTreeMap, BTreeSet};

use meta::names;

use crate::FieldError;
use crate::metadata;
use crate::node::{Findings, Node};

const LABEL_TEXT: &str = "a DNS-1035 label, which must consist of lower case alphanumeric \
                          characters or '-', start with an alphabetic character, and end with an \
                          alphanumeric character";
const LABEL_REGEX: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const EMPTY: &str = "must be non-empty";

/// What is wrong with the name of a StorageVersion.
pub(crate) fn name(name: &str) -> Vec<String> {
    let Some((group, resource)) = name.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".to_owned()];
    };
    let of = |segment: &str, wrong: Vec<String>| -> Vec<String> {
        wrong.into_iter().map(|text| format!("the {segment} segment {text}")).collect()
    };
    let mut found = of("group", names::dns1123_subdomain(group));
    found.extend(of("resource", names::dns1035_label(resource)));
    found
}

pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    let status = object.get("status");
    let mut servers = BTreeSet::new();
    for server in status.get("storageVersions").items() {
        let id = server.get("apiServerID");
        if !servers.insert(id.text()) {
            out.push(FieldError::duplicate(&id.path, id.text()));
        }
        of_server(&server, out);
    }
    common(&status, out);
    conditions(&status, out);
}

fn of_server(server: &Node<'_>, out: &mut Findings) {
    server.get("apiServerID").subdomain(out);
    let version = |of: &Node<'_>, out: &mut Findings| {
        let wrong = api_version(of.text());
        if !wrong.is_empty() {
            out.push(of.invalid_text(wrong.join(",")));
        }
    };
    let (encoding, decodable) = (server.get("encodingVersion"), server.get("decodableVersions"));
    version(&encoding, out);
    decodable.items().for_each(|item| version(&item, out));
    let known: Vec<&str> = decodable.items().map(|item| item.text()).collect();
    if !known.contains(&encoding.text()) {
        let detail = format!("decodableVersions must include encodingVersion {}", encoding.text());
        out.push(decodable.invalid(detail));
    }
    for served in server.get("servedVersions").items() {
        version(&served, out);
        if !known.contains(&served.text()) {
            out.push(served.invalid(format!(
                "individual served version : {} must be included in decodableVersions : [{}]",
                served.text(),
                known.join(" ")
            )));
        }
    }
}

/// What all servers write, if they agree.
fn common(status: &Node<'_>, out: &mut Findings) {
    let servers = status.get("storageVersions");
    let versions: BTreeSet<&str> =
        servers.items().map(|server| server.get("encodingVersion").text()).collect();
    let agreed = versions.first().filter(|_| versions.len() == 1);
    let said = status.get("commonEncodingVersion");
    match (agreed, said.is_set()) {
        (None, true) => out.push(said.invalid(
            "should be nil if servers do not agree on the same encoding version, or if there is \
             no server reporting the supported versions yet",
        )),
        (Some(agreed), false) => {
            out.push(said.invalid(format!("the common encoding version is {agreed}")));
        }
        (Some(agreed), true) if *agreed != said.text() => {
            out.push(said.invalid(format!("the actual common encoding version is {agreed}")));
        }
        _ => {}
    }
}

/// Upstream's paths leave the list's name out.
fn conditions(status: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (at, condition) in status.get("conditions").items().enumerate() {
        let condition = condition.under(status.path.index(at));
        let (kind, state) = (condition.get("type"), condition.get("status"));
        if let Some(first) = seen.insert(kind.text(), at) {
            out.push(kind.invalid_text(format!(
                "the type of the condition is not unique, it also appears in conditions[{first}]"
            )));
        }
        kind.invalid_each(names::qualified_name(kind.text()), out);
        state.invalid_each(names::qualified_name(state.text()), out);
        for (field, detail) in
            [("reason", "reason cannot be empty"), ("message", "message cannot be empty")]
        {
            let text = condition.get(field);
            if text.text().is_empty() {
                out.push(FieldError::required(&text.path, detail));
            }
        }
    }
}

/// What is wrong with an apiVersion.
fn api_version(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (group, version) = match parts[..] {
        [version] => (None, version),
        [group, version] => (Some(group), version),
        _ => {
            let label = names::regex_error(LABEL_TEXT, LABEL_REGEX, &["my-name", "abc-123"]);
            return vec![format!(
                "an apiVersion is {label} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyVersion')"
            )];
        }
    };
    let of = |part: &str, text: &str, rule: fn(&str) -> Vec<String>| -> Vec<String> {
        let wrong = if text.is_empty() { vec![EMPTY.to_owned()] } else { rule(text) };
        wrong.into_iter().map(|text| format!("{part} part: {text}")).collect()
    };
    let mut wrong = group.map(|group| of("group", group, names::dns1123_subdomain));
    let found = wrong.get_or_insert_default();
    found.extend(of("version", version, names::dns1035_label));
    std::mem::take(found)
}

pub(crate) fn migration(object: &Node<'_>, out: &mut Findings) {
    let resource = object.get("spec").get("resource");
    let (group, plural) = (resource.get("group"), resource.get("resource"));
    if plural.text().is_empty() {
        out.push(FieldError::required(&plural.path, "resource is required to be set"));
    } else {
        plural.invalid_each(names::dns1035_label(plural.text()), out);
    }
    if !group.text().is_empty() {
        group.subdomain(out);
    }
}

pub(crate) fn migration_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    migration(new, out);
    let before = old.get("spec");
    new.get("spec").immutable_as(
        "storagemigration/v1beta1.StorageVersionMigrationSpec",
        &before,
        out,
    );
}

pub(crate) fn migration_status(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (status, before) = (new.get("status"), old.get("status"));
    let version = status.get("resourceVersion");
    let text = version.text();
    let is_number = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        out.push(version.invalid_text(format!("resource version is not well formed: {text}")));
    }
    let conditions = status.get("conditions");
    metadata::conditions(&conditions, out);
    let had = before.get("resourceVersion");
    if !had.text().is_empty() && had.text() != version.text() {
        out.push(version.invalid_text("field is immutable"));
    }
    let is = |status: &Node<'_>, kind: &str| {
        status.get("conditions").items().any(|condition| {
            condition.get("type").text() == kind && condition.get("status").text() == "True"
        })
    };
    let (done, failed) = (is(&status, "Succeeded"), is(&status, "Failed"));
    let mut refuse = |is_wrong: bool, detail: &str| {
        if is_wrong {
            out.push(conditions.invalid(detail));
        }
    };
    refuse(done && failed, "Both success and failed conditions cannot be true at the same time");
    refuse(
        is(&before, "Succeeded") && !done,
        "Success condition cannot be set to false once it is true",
    );
    refuse(
        is(&before, "Failed") && !failed,
        "Failed condition cannot be set to false once it is true",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tests::{check, check_update};

    const INTERNAL: &str = "internal.apiserver.k8s.io";
    const MIGRATION: &str = "storagemigration.k8s.io";

    fn version(status: Value) -> Value {
        json!({"metadata": {"name": "apps.deployments"}, "spec": {}, "status": status})
    }

    #[test]
    fn a_storage_version_is_named_after_its_resource() {
        assert!(name("apps.deployments").is_empty());
        assert_eq!(name("pods"), ["name must be in the form of <group>.<resource>"]);
    }

    #[test]
    fn servers_that_agree_have_a_common_version() {
        let server = |id: &str, writes: &str| {
            json!({"apiServerID": id, "encodingVersion": writes,
                "decodableVersions": ["v1", "v2"], "servedVersions": ["v1"]})
        };
        let update = |status: Value, expected: &[&str]| {
            check_update(
                INTERNAL,
                "StorageVersion",
                "status",
                (&version(status), &version(json!({}))),
                expected,
            );
        };
        let agreed = [server("a", "v1"), server("b", "v1")];
        update(json!({"storageVersions": agreed, "commonEncodingVersion": "v1"}), &[]);
        update(
            json!({"storageVersions": agreed, "commonEncodingVersion": "v2"}),
            &["status.commonEncodingVersion: Invalid value: \"v2\": the actual common encoding \
               version is v1"],
        );
        update(
            json!({"storageVersions": [server("a", "v1"), server("b", "v3")],
                "commonEncodingVersion": "v1"}),
            &[
                "status.storageVersions[1].decodableVersions: Invalid value: [\"v1\",\"v2\"]: \
                 decodableVersions must include encodingVersion v3",
                "status.commonEncodingVersion: Invalid value: \"v1\": should be nil if servers do \
                 not agree on the same encoding version, or if there is no server reporting the \
                 supported versions yet",
            ],
        );
    }

    #[test]
    fn a_migration_names_a_resource_and_ends_once() {
        let migration = |resource: Value, status: Value| json!({"metadata": {"name": "m"}, "spec": {"resource": resource}, "status": status});
        check(
            MIGRATION,
            "StorageVersionMigration",
            migration(json!({}), json!({})),
            &["spec.resource.resource: Required value: resource is required to be set"],
        );
        let pods = || json!({"resource": "pods"});
        let state = |kinds: &[&str]| {
            let conditions: Vec<Value> = kinds
                .iter()
                .map(|kind| {
                    json!({"type": kind, "status": "True", "reason": "R",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect();
            migration(pods(), json!({ "conditions": conditions }))
        };
        let status = |new: &Value, old: &Value, expected: &[&str]| {
            check_update(MIGRATION, "StorageVersionMigration", "status", (new, old), expected);
        };
        // It runs until it is tidied up after.
        status(&state(&["Running", "Succeeded"]), &state(&["Running"]), &[]);
        status(
            &migration(pods(), json!({"resourceVersion": "x"})),
            &state(&["Succeeded"]),
            &[
                "status.resourceVersion: Invalid value: \"x\": resource version is not well \
                 formed: x",
                "status.conditions: Invalid value: null: Success condition cannot be set to false \
                 once it is true",
            ],
        );
        let zero = "status.resourceVersion: Invalid value: \"0\": resource version is not well \
                    formed: 0";
        status(&migration(pods(), json!({"resourceVersion": "0"})), &state(&[]), &[zero]);
    }
}
