//! What is served: resources by group, version and name, and the storage behind them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use meta::{GroupResource, GroupVersionKind};
use schema::Type;
use serde_json::Value;

use crate::cache::Cache;
use crate::conversion::{self, Conversion};
use crate::storage_path;
use crate::strategy::{self, Strategy};

/// The objects of one resource, whatever the versions in which they are served.
pub(crate) struct Storage {
    pub(crate) resource: GroupResource,
    /// Kind in the version that is stored.
    pub(crate) gvk: GroupVersionKind,
    pub(crate) ty: &'static Type,
    pub(crate) is_namespaced: bool,
    pub(crate) prefix: String,
    pub(crate) cache: Arc<Cache>,
    pub(crate) strategy: &'static dyn Strategy,
}

impl Storage {
    /// The key in the cache.
    pub(crate) fn cache_key(&self, namespace: &str, name: &str) -> String {
        if self.is_namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// The key in the store.
    pub(crate) fn store_key(&self, namespace: &str, name: &str) -> bytes::Bytes {
        format!("{}{}", self.prefix, self.cache_key(namespace, name)).into()
    }
}

/// A resource in one version.
pub(crate) struct Resource {
    pub(crate) definition: &'static schema::Resource,
    pub(crate) gvk: GroupVersionKind,
    pub(crate) ty: &'static Type,
    /// `None` for resources that are answered and not kept, such as reviews.
    pub(crate) storage: Option<Arc<Storage>>,
    /// How objects get from and to the stored version, when that is another one.
    pub(crate) conversion: Option<&'static Conversion>,
    /// Length of `{"kind":"…","apiVersion":"…",`, which items of a list do not have.
    pub(crate) head: usize,
    /// The columns of its table as they are printed, once they have been.
    pub(crate) column_definitions: OnceLock<Value>,
}

impl Resource {
    /// The name without version.
    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.definition.group.to_owned(),
            resource: self.definition.name.to_owned(),
        }
    }

    /// The full name.
    pub(crate) fn gvr(&self) -> meta::GroupVersionResource {
        let def = self.definition;
        meta::GroupVersionResource::new(def.group, def.version, def.name)
    }

    /// Brings a working form of this version into the stored one.
    pub(crate) fn to_storage(&self, mut object: Value) -> Value {
        if let Some(conversion) = self.conversion {
            (conversion.to_storage)(&mut object);
        }
        object
    }

    /// A working form of the stored version in this one; the same when they are one version.
    pub(crate) fn served<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        match self.conversion {
            None => Cow::Borrowed(object),
            Some(_) => Cow::Owned(self.served_from(object.clone())),
        }
    }

    /// Brings a working form of the stored version into this one.
    pub(crate) fn served_from(&self, mut object: Value) -> Value {
        if let Some(conversion) = self.conversion {
            (conversion.from_storage)(&mut object);
        }
        object
    }
}

/// All resources.
pub(crate) struct Resources {
    by_name: HashMap<(String, String, String), Arc<Resource>>,
    storages: BTreeMap<String, Arc<Storage>>,
    by_resource: HashMap<(String, String), Arc<Storage>>,
    /// Resources by the prefix of their storage.
    by_storage: HashMap<String, Vec<Arc<Resource>>>,
}

impl Resources {
    /// The built-in resources, with empty caches.
    pub(crate) fn built_in() -> Self {
        let mut all = Self {
            by_name: HashMap::new(),
            storages: BTreeMap::new(),
            by_resource: HashMap::new(),
            by_storage: HashMap::new(),
        };
        let versions = schema::registry().groups().iter().flat_map(|group| &group.versions);
        for definition in versions.flat_map(|version| &version.resources) {
            all.add(definition);
        }
        all
    }

    /// A resource by group, version and plural name.
    pub(crate) fn get(&self, group: &str, version: &str, name: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(&(group.to_owned(), version.to_owned(), name.to_owned()))
    }

    /// The storage of a resource, whatever the version.
    pub(crate) fn storage(&self, group: &str, resource: &str) -> Option<&Arc<Storage>> {
        self.by_resource.get(&(group.to_owned(), resource.to_owned()))
    }

    /// The storage that a key of the store belongs to, and the rest of the key.
    pub(crate) fn of_key<'a>(&self, key: &'a str) -> Option<(&Arc<Storage>, &'a str)> {
        // Prefixes end in a slash, and none is the beginning of another.
        let (_, storage) = self
            .storages
            .range::<str, _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)))
            .next_back()?;
        Some((storage, key.strip_prefix(storage.prefix.as_str())?))
    }

    /// The versions in which a storage is served.
    pub(crate) fn versions(&self, storage: &Storage) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_storage.get(&storage.prefix).into_iter().flatten()
    }

    /// Every storage.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.storages.values()
    }

    fn add(&mut self, definition: &'static schema::Resource) {
        let gvk = definition.gvk();
        let Some(ty) = schema::registry().kind(&gvk) else {
            tracing::error!(kind = %gvk, "no table for a served kind");
            return;
        };
        let conversion = conversion::find(definition.group, definition.version, definition.name);
        let is_kept = definition.verbs.contains(&"get") && definition.name != "componentstatuses";
        let storage = match conversion {
            _ if !is_kept => None,
            Some(conversion) => Some(self.storage_of(conversion.stored_as)),
            None => Some(self.storage_for(definition, &gvk, ty)),
        };
        let api_version = gvk.group_version().to_string();
        let head = format!(r#"{{"kind":"{}","apiVersion":"{api_version}","#, gvk.kind).len();
        let key = (
            definition.group.to_owned(),
            definition.version.to_owned(),
            definition.name.to_owned(),
        );
        let storage = storage.flatten();
        if let Some(storage) = &storage {
            let resource = (definition.group.to_owned(), definition.name.to_owned());
            self.by_resource.insert(resource, storage.clone());
        }
        let prefix = storage.as_ref().map(|storage| storage.prefix.clone());
        let resource = Arc::new(Resource {
            definition,
            gvk,
            ty,
            storage,
            conversion,
            head,
            column_definitions: OnceLock::new(),
        });
        if let Some(prefix) = prefix {
            self.by_storage.entry(prefix).or_default().push(resource.clone());
        }
        self.by_name.insert(key, resource);
    }

    fn storage_of(&mut self, (group, version, name): (&str, &str, &str)) -> Option<Arc<Storage>> {
        let definition = schema::registry().resource(group, version, name)?;
        let gvk = definition.gvk();
        let ty = schema::registry().kind(&gvk)?;
        self.storage_for(definition, &gvk, ty)
    }

    fn storage_for(
        &mut self,
        definition: &'static schema::Resource,
        gvk: &GroupVersionKind,
        ty: &'static Type,
    ) -> Option<Arc<Storage>> {
        let prefix = storage_path::prefix(definition.group, definition.name);
        let storage = self.storages.entry(prefix.clone()).or_insert_with(|| {
            Arc::new(Storage {
                resource: GroupResource {
                    group: definition.group.to_owned(),
                    resource: definition.name.to_owned(),
                },
                gvk: gvk.clone(),
                ty,
                is_namespaced: definition.namespaced,
                prefix,
                cache: Arc::new(Cache::new()),
                strategy: strategy::of(definition),
            })
        });
        Some(storage.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_to_their_storage() {
        let resources = Resources::built_in();
        let check = |key: &str, expected: &str, rest: &str| {
            let (storage, found) = resources.of_key(key).unwrap();
            assert_eq!((storage.resource.to_string().as_str(), found), (expected, rest));
        };
        check("/registry/pods/a/b", "pods", "a/b");
        check("/registry/podtemplates/a/b", "podtemplates", "a/b");
        check("/registry/services/specs/a/b", "services", "a/b");
        check("/registry/minions/n", "nodes", "n");
        assert!(resources.of_key("/registry/unknown/x").is_none());
    }

    #[test]
    fn both_event_groups_share_one_storage() {
        let resources = Resources::built_in();
        let core = resources.get("", "v1", "events").unwrap();
        let new = resources.get("events.k8s.io", "v1", "events").unwrap();
        let storage = |resource: &Resource| resource.storage.clone().unwrap();
        assert!(Arc::ptr_eq(&storage(core), &storage(new)));
        assert!(new.conversion.is_some() && core.conversion.is_none());
    }
}
