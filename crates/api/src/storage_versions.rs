//! What API servers say about the versions in which they store a resource, and whether they agree.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/storageversion`.

use jiff::Timestamp;
use k8s_openapi::api::apiserverinternal::v1alpha1::{
    ServerStorageVersion, StorageVersion, StorageVersionCondition, StorageVersionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whether all servers write a resource in the same version.
const EQUAL: &str = "AllEncodingVersionsEqual";

/// Who said something about the resource.
pub fn servers(version: &StorageVersion) -> impl Iterator<Item = &str> {
    let status = version.status.as_ref();
    let said = status.and_then(|status| status.storage_versions.as_ref()).into_iter().flatten();
    said.map(|server| server.api_server_id.as_str())
}

/// Forgets what these servers said, and says anew whether the others agree.
pub fn forget(version: &mut StorageVersion, gone: &[String], now: Timestamp) {
    let status = version.status.get_or_insert_default();
    if let Some(said) = &mut status.storage_versions {
        said.retain(|server| !gone.contains(&server.api_server_id));
    }
    settle(version, now);
}

/// Notes that a server stores the resource in the version `stored` and serves it in `served`;
/// whether that is news.
pub fn note(
    version: &mut StorageVersion,
    server: &str,
    stored: &str,
    served: &[String],
    now: Timestamp,
) -> bool {
    // The stored one can be read whether it is served or not.
    let mut decodable = served.to_vec();
    if !served.iter().any(|version| version == stored) {
        decodable.push(stored.to_owned());
    }
    let said = ServerStorageVersion {
        api_server_id: server.to_owned(),
        encoding_version: stored.to_owned(),
        decodable_versions: decodable,
        served_versions: Some(served.to_vec()),
    };
    let all = version.status.get_or_insert_default().storage_versions.get_or_insert_default();
    match all.iter_mut().find(|one| one.api_server_id == server) {
        Some(known) if *known == said => return false,
        Some(known) => *known = said,
        None => all.push(said),
    }
    settle(version, now);
    true
}

/// Upstream `SetCommonEncodingVersion`.
fn settle(version: &mut StorageVersion, now: Timestamp) {
    let generation = version.metadata.generation;
    let status = version.status.get_or_insert_default();
    let before = status.common_encoding_version.take();
    status.common_encoding_version = common(status);
    let after = status.common_encoding_version.as_ref();
    let (is, reason, message) = match after {
        Some(_) => ("True", "CommonEncodingVersionSet", "Common encoding version set"),
        None => ("False", "CommonEncodingVersionUnset", "Common encoding version unset"),
    };
    let is_other = before.is_some() && after.is_some() && before.as_ref() != after;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == EQUAL);
    let since = known
        .filter(|condition| condition.status == is && !is_other)
        .and_then(|condition| condition.last_transition_time.clone());
    let condition = StorageVersionCondition {
        type_: EQUAL.to_owned(),
        status: is.to_owned(),
        observed_generation: generation,
        last_transition_time: since.or(Some(Time(now))),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == EQUAL) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// The version that all write.
fn common(status: &StorageVersionStatus) -> Option<String> {
    let mut said = status.storage_versions.iter().flatten().map(|one| &one.encoding_version);
    let first = said.next()?;
    said.all(|version| version == first).then(|| first.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn cleaned(status: Value, gone: &[&str]) -> Value {
        let version = json!({ "metadata": { "name": "apps.deployments", "generation": 3 },
            "spec": {}, "status": status });
        let mut version: StorageVersion = serde_json::from_value(version).unwrap();
        let gone: Vec<_> = gone.iter().map(|name| (*name).to_owned()).collect();
        forget(&mut version, &gone, NOW.parse().unwrap());
        serde_json::to_value(version.status).unwrap()
    }

    fn server(name: &str, version: &str) -> Value {
        json!({ "apiServerID": name, "encodingVersion": version, "decodableVersions": [version] })
    }

    fn condition(status: &str, since: &str) -> Value {
        let is_set = if status == "True" { "set" } else { "unset" };
        let reason = if status == "True" {
            "CommonEncodingVersionSet"
        } else {
            "CommonEncodingVersionUnset"
        };
        json!([{ "type": EQUAL, "status": status, "reason": reason, "observedGeneration": 3,
            "message": format!("Common encoding version {is_set}"), "lastTransitionTime": since }])
    }

    #[test]
    fn those_who_are_left_agree_or_not() {
        let before = "2020-01-01T00:00:00Z";
        let all = json!([server("a", "v1"), server("b", "v2"), server("c", "v2")]);
        // Who disagreed is gone.
        let status = cleaned(
            json!({ "storageVersions": all, "conditions": condition("False", before) }),
            &["a"],
        );
        assert_eq!(status["storageVersions"], json!([server("b", "v2"), server("c", "v2")]));
        assert_eq!(status["commonEncodingVersion"], "v2");
        assert_eq!(status["conditions"], condition("True", NOW));
        // They disagree as before.
        let status = cleaned(
            json!({ "storageVersions": all, "conditions": condition("False", before) }),
            &["b"],
        );
        assert_eq!(status["commonEncodingVersion"], Value::Null);
        assert_eq!(status["conditions"], condition("False", before));
        // They agree as before.
        let two = json!([server("b", "v2"), server("c", "v2")]);
        let agreed = json!({ "storageVersions": two, "commonEncodingVersion": "v2",
            "conditions": condition("True", before) });
        assert_eq!(cleaned(agreed, &["b"])["conditions"], condition("True", before));
        // They agree on something else.
        let other = json!({ "storageVersions": two, "commonEncodingVersion": "v1",
            "conditions": condition("True", before) });
        assert_eq!(cleaned(other, &["b"])["conditions"], condition("True", NOW));
        // Nobody is left.
        let status = cleaned(json!({ "storageVersions": two }), &["b", "c"]);
        assert_eq!(status["conditions"], condition("False", NOW));
    }

    #[test]
    fn what_a_server_says_replaces_what_it_said() {
        let mut version = StorageVersion::default();
        let mut say = |server: &str, stored: &str| {
            let served = [stored.to_owned(), "v1beta1".to_owned()];
            note(&mut version, server, stored, &served, NOW.parse().unwrap())
        };
        assert!(say("a", "v1"));
        assert!(!say("a", "v1"));
        assert!(say("b", "v2"));
        assert!(say("a", "v2"));
        assert_eq!(servers(&version).collect::<Vec<_>>(), ["a", "b"]);
        let status = serde_json::to_value(version.status).unwrap();
        assert_eq!(status["commonEncodingVersion"], "v2");
        assert_eq!(status["storageVersions"][0]["servedVersions"], json!(["v2", "v1beta1"]));
    }
}
