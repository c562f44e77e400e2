//! Where objects lie in the store.

/// Upstream's key prefixes where they are not the plural name.
const RENAMED: [(&str, &str); 5] = [
    ("endpoints", "services/endpoints"),
    ("ingresses", "ingress"),
    ("nodes", "minions"),
    ("replicationcontrollers", "controllers"),
    ("services", "services/specs"),
];

/// Groups whose resources upstream keeps under the group's name.
const WITH_GROUP: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// The prefix of a resource's keys, with its trailing slash.
pub(crate) fn prefix(group: &str, resource: &str) -> String {
    if WITH_GROUP.contains(&group) {
        return format!("/registry/{group}/{resource}/");
    }
    let name = RENAMED.iter().find(|(name, _)| *name == resource).map_or(resource, |(_, key)| key);
    format!("/registry/{name}/")
}
