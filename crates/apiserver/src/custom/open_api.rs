//! What documents are told of custom resources.

use std::collections::BTreeMap;

use openapi::{CustomKind, CustomKinds, CustomVersion};

use super::served::Served;

impl CustomKinds for Served {
    fn stamp(&self) -> u64 {
        self.stamp
    }

    fn versions(&self) -> Vec<CustomVersion> {
        let mut versions: BTreeMap<(String, String), String> = BTreeMap::new();
        for (name, entry) in &self.entries {
            for resource in &entry.resources {
                let def = &resource.definition;
                let key = (def.group.to_string(), def.version.to_string());
                let text = versions.entry(key).or_default();
                text.push_str(&format!("{name} {:?}\n", entry.made_of));
            }
        }
        let of = |((group, version), fingerprint)| CustomVersion { group, version, fingerprint };
        versions.into_iter().map(of).collect()
    }

    fn version(&self, group: &str, version: &str) -> Option<CustomVersion> {
        let mut fingerprint = String::new();
        for (name, entry) in &self.entries {
            let is_of = |resource: &std::sync::Arc<crate::resources::Resource>| {
                resource.definition.group == group && resource.definition.version == version
            };
            if entry.resources.iter().any(is_of) {
                fingerprint.push_str(&format!("{name} {:?}\n", entry.made_of));
            }
        }
        let (group, version) = (group.to_owned(), version.to_owned());
        (!fingerprint.is_empty()).then_some(CustomVersion { group, version, fingerprint })
    }

    fn kinds(&self, group: &str, version: &str) -> Vec<CustomKind> {
        let mut kinds = Vec::new();
        for entry in self.entries.values() {
            let is_wanted = |resource: &&std::sync::Arc<crate::resources::Resource>| {
                resource.definition.group == group && resource.definition.version == version
            };
            let Some(resource) = entry.resources.iter().find(is_wanted) else { continue };
            kinds.push(CustomKind {
                resource: (*resource.definition).clone(),
                list_kind: entry.kind.names().list_kind.clone(),
                schema: entry.kind.schema(version),
                preserves_unknown: entry.kind.definition.spec.preserve_unknown_fields,
            });
        }
        kinds
    }
}
