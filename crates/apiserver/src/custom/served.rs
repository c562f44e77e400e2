//! The custom resources that are served, as they follow from the definitions.
//!
//! A snapshot that is replaced as a whole: maps share what did not change, so that one definition
//! among thousands is cheap. What is served of a definition is made anew when its specification or
//! its names change, with a cache of its own; watches of the old one end then, as upstream's do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use custom::{Definition, Names};
use imbl::OrdMap;
use meta::{GroupResource, GroupVersionKind, Object};
use schema::{Subresource, Text};

use super::kind::{CustomKind, CustomVersion};
use crate::resources::{Resource, Storage};
use crate::strategy;
use cache::Cache;

/// Group, version and plural.
type Key = (String, String, String);

/// What is served at one time.
#[derive(Clone, Default)]
pub(crate) struct Served {
    /// By the name of the definition.
    pub(crate) entries: OrdMap<String, Arc<Entry>>,
    by_name: OrdMap<Key, Arc<Resource>>,
    /// By prefix.
    storages: OrdMap<String, Arc<Storage>>,
    /// How often anything has changed.
    pub(crate) stamp: u64,
}

/// What is served of one definition.
pub(crate) struct Entry {
    pub(crate) kind: Arc<CustomKind>,
    pub(crate) storage: Arc<Storage>,
    /// One per served version.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// What it was made of.
    pub(crate) made_of: MadeOf,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MadeOf {
    uid: String,
    generation: i64,
    names: Names,
}

/// What a definition means for what is served.
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It is served no longer, or never was.
    Gone,
    /// It is served from now on, or in another way, once its objects are loaded.
    New(Arc<Entry>),
}

impl Served {
    pub(crate) fn get(&self, group: &str, version: &str, name: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(&(group.to_owned(), version.to_owned(), name.to_owned()))
    }

    /// The storage of a resource, whatever the version.
    pub(crate) fn storage(&self, group: &str, resource: &str) -> Option<&Arc<Storage>> {
        Some(&self.entries.get(&format!("{resource}.{group}"))?.storage)
    }

    /// The storage whose prefix a key begins with.
    pub(crate) fn of_key(&self, key: &str) -> Option<&Arc<Storage>> {
        let (prefix, storage) = self.storages.get_prev(key)?;
        key.starts_with(prefix.as_str()).then_some(storage)
    }

    pub(crate) fn storages(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.storages.values()
    }

    /// The versions of what a storage holds.
    pub(crate) fn versions(&self, storage: &Storage) -> &[Arc<Resource>] {
        let entry = storage.custom.as_ref().and_then(|kind| self.entries.get(&kind.name));
        entry.map_or(&[], |entry| &entry.resources)
    }

    /// What a definition means now; `None` is one that is gone.
    pub(crate) fn change(&self, name: &str, object: Option<&Arc<Object>>) -> Change {
        let known = self.entries.get(name);
        let served = object.and_then(|object| {
            let definition = Definition::parse(object.json()).ok()?;
            // Once established it stays so, whatever becomes of its names.
            let is_served = definition.is("Established");
            is_served.then_some((object, definition))
        });
        let Some((object, definition)) = served else {
            return if known.is_some() { Change::Gone } else { Change::None };
        };
        let made_of = MadeOf {
            uid: object.header().uid.clone(),
            generation: object.header().generation,
            names: definition.status.accepted_names.clone(),
        };
        if let Some(known) = known.filter(|known| known.made_of == made_of) {
            known.kind.set_terminating(definition.is("Terminating"));
            return Change::None;
        }
        let kind = Arc::new(CustomKind::new(object.clone(), definition));
        match entry(kind, made_of) {
            Some(entry) => Change::New(Arc::new(entry)),
            None => Change::Gone,
        }
    }

    /// Puts what is served of a definition in place of what was.
    pub(crate) fn put(&mut self, name: &str, entry: Option<Arc<Entry>>) {
        self.stamp += 1;
        if let Some(old) = self.entries.remove(name) {
            for resource in &old.resources {
                self.by_name.remove(&key(resource));
            }
            self.storages.remove(&old.storage.prefix);
            old.storage.cache.close();
        }
        let Some(entry) = entry else { return };
        for resource in &entry.resources {
            self.by_name.insert(key(resource), resource.clone());
        }
        self.storages.insert(entry.storage.prefix.clone(), entry.storage.clone());
        self.entries.insert(name.to_owned(), entry);
    }
}

fn key(resource: &Resource) -> Key {
    let def = &resource.definition;
    (def.group.to_string(), def.version.to_string(), def.name.to_string())
}

/// `None` when no version is stored, which validation does not let through.
fn entry(kind: Arc<CustomKind>, made_of: MadeOf) -> Option<Entry> {
    let definition = &kind.definition;
    let (group, plural) = (&definition.spec.group, &definition.status.accepted_names.plural);
    let stored = definition.stored()?;
    let storage = Arc::new(Storage {
        resource: GroupResource { group: group.clone(), resource: plural.clone() },
        gvk: GroupVersionKind::new(group, &stored.name, &kind.names().kind),
        ty: custom::wire(),
        is_namespaced: definition.is_namespaced(),
        prefix: format!("/registry/{group}/{plural}/"),
        cache: Arc::new(Cache::default()),
        strategy: strategy::of_custom_resources(),
        custom: Some(kind.clone()),
        loaded: AtomicU64::new(0),
    });
    let served = definition.spec.versions.iter().filter(|version| version.served);
    let resources = served.map(|version| Arc::new(resource(&kind, version, &storage))).collect();
    Some(Entry { kind: kind.clone(), storage, resources, made_of })
}

fn resource(kind: &Arc<CustomKind>, version: &custom::Version, storage: &Arc<Storage>) -> Resource {
    let definition = described(kind, version);
    let gvk = definition.gvk();
    let head = format!(r#"{{"apiVersion":"{}","kind":"{}","#, gvk.group_version(), gvk.kind);
    Resource {
        definition: Arc::new(definition),
        gvk,
        ty: custom::wire(),
        storage: Some(storage.clone()),
        conversion: None,
        // Items of these lists keep their kind; only the opening brace is put anew.
        head: 1,
        column_definitions: OnceLock::new(),
        custom: Some(CustomVersion { kind: kind.clone(), name: version.name.clone(), head }),
    }
}

/// The resource as discovery tells of it.
fn described(kind: &CustomKind, version: &custom::Version) -> schema::Resource {
    let (spec, names) = (&kind.definition.spec, kind.names());
    let text = |text: &str| Text::Owned(text.to_owned());
    let texts = |list: &[String]| list.iter().map(|one| text(one)).collect();
    let verbs = vec!["get", "patch", "update"];
    let mut subresources = Vec::new();
    if version.has_status() {
        subresources.push(Subresource {
            name: "status",
            kind: text(&names.kind),
            group: text(&spec.group),
            version: text(&version.name),
            verbs: verbs.clone(),
        });
    }
    if version.subresources.scale.is_some() {
        subresources.push(Subresource {
            name: "scale",
            kind: Text::Borrowed("Scale"),
            group: Text::Borrowed("autoscaling"),
            version: Text::Borrowed("v1"),
            verbs,
        });
    }
    schema::Resource {
        group: text(&spec.group),
        version: text(&version.name),
        name: text(&names.plural),
        singular: text(&names.singular),
        kind: text(&names.kind),
        namespaced: kind.definition.is_namespaced(),
        verbs: vec![
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "create",
            "update",
            "watch",
        ],
        short_names: texts(&names.short_names),
        categories: texts(&names.categories),
        subresources,
        columns: Vec::new(),
    }
}

impl Served {
    /// The groups in which custom resources are served, for discovery.
    pub(crate) fn groups(&self) -> Vec<schema::Group> {
        let mut groups: Vec<schema::Group> = Vec::new();
        let mut at: HashMap<String, usize> = HashMap::new();
        for entry in self.entries.values() {
            for resource in &entry.resources {
                let def = &resource.definition;
                let group = *at.entry(def.group.to_string()).or_insert_with(|| {
                    groups.push(schema::Group {
                        name: def.group.clone(),
                        preferred_version: Text::Borrowed(""),
                        versions: Vec::new(),
                    });
                    groups.len() - 1
                });
                let versions = &mut groups[group].versions;
                let found = versions.iter().position(|version| version.version == def.version);
                let found = found.unwrap_or_else(|| {
                    let version = def.version.clone();
                    versions.push(schema::Version { version, resources: Vec::new() });
                    versions.len() - 1
                });
                versions[found].resources.push((**def).clone());
            }
        }
        for group in &mut groups {
            group.versions.sort_by(|a, b| by_maturity(&b.version, &a.version));
            if let Some(first) = group.versions.first() {
                group.preferred_version = first.version.clone();
            }
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }
}

/// Upstream's order of versions, least first: others by name backwards, then alpha, beta, stable.
pub(crate) fn by_maturity(a: &str, b: &str) -> std::cmp::Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// Stability, major and minor number of `v1beta2` and the like.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let rest = &rest[digits..];
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, number) = match (rest.strip_prefix("alpha"), rest.strip_prefix("beta")) {
        (Some(number), _) => (0, number),
        (_, Some(number)) => (1, number),
        _ => return None,
    };
    Some((stability, major, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions = vec!["foo1", "v1", "v10", "v2", "v1beta1", "v2alpha1", "v1beta2", "bar"];
        versions.sort_by(|a, b| by_maturity(b, a));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "bar", "foo1"]);
    }
}
