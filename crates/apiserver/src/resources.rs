//! What is served: resources by group, version and name, and the storage behind them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use meta::{GroupResource, GroupVersionKind};
use schema::Type;
use serde_json::Value;

use crate::conversion::{self, Conversion};
use crate::custom::{CustomKind, CustomVersion, Served};
use crate::storage_path;
use crate::strategy::{self, Strategy};
use cache::Cache;

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
    /// What the objects are of, if not of a built-in kind.
    pub(crate) custom: Option<Arc<CustomKind>>,
    /// The revision at which the cache was filled; older changes are in it.
    pub(crate) loaded: AtomicU64,
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
    pub(crate) definition: Arc<schema::Resource>,
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
    /// Set for custom resources.
    pub(crate) custom: Option<CustomVersion>,
}

impl Resource {
    /// The name without version.
    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.definition.group.to_string(),
            resource: self.definition.name.to_string(),
        }
    }

    /// The full name.
    pub(crate) fn gvr(&self) -> meta::GroupVersionResource {
        let def = &self.definition;
        meta::GroupVersionResource::new(&*def.group, &*def.version, &*def.name)
    }

    /// Fills in what the kind has by default.
    pub(crate) fn apply_defaults(&self, object: &mut Value) {
        match &self.custom {
            Some(version) => version.compiled().apply_defaults(object),
            None => schema::apply_defaults(&self.gvk, object),
        }
    }

    /// The table of the fields of its objects, by which they are owned.
    pub(crate) fn fields(&self) -> &Type {
        match &self.custom {
            Some(version) => version.compiled().table(),
            None => self.ty,
        }
    }

    /// Whether clients cannot write the status with the object itself.
    pub(crate) fn resets_status(&self) -> bool {
        match (&self.custom, &self.storage) {
            (Some(version), _) => version.has_status(),
            (None, Some(storage)) => storage.strategy.resets_status(),
            (None, None) => false,
        }
    }

    /// The kind of lists of its objects.
    pub(crate) fn list_kind(&self) -> String {
        match &self.custom {
            Some(version) => version.kind.names().list_kind.clone(),
            None => format!("{}List", self.gvk.kind),
        }
    }

    /// Brings a working form of this version into the stored one. Objects of custom resources stay
    /// in the version of the request until they are encoded.
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

    /// What upstream validates of an object: the stored version's form, or what clients see.
    pub(crate) fn validated<'a>(
        &'a self,
        stored: &'a Value,
        served: &'a Value,
    ) -> (&'a GroupVersionKind, &'a Value) {
        match (self.conversion, &self.storage) {
            (Some(conversion), Some(storage)) if conversion.is_validated_as_stored => {
                (&storage.gvk, stored)
            }
            _ => (&self.gvk, served),
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
    custom: ArcSwap<Served>,
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
            custom: ArcSwap::default(),
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
    pub(crate) fn get(&self, group: &str, version: &str, name: &str) -> Option<Arc<Resource>> {
        let built_in = self.by_name.get(&(group.to_owned(), version.to_owned(), name.to_owned()));
        built_in.cloned().or_else(|| self.custom.load().get(group, version, name).cloned())
    }

    /// The custom resources that are served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.custom.load_full()
    }

    /// Serves other custom resources from now on.
    pub(crate) fn serve(&self, served: Served) {
        self.custom.store(Arc::new(served));
    }

    /// The storage of a resource, built in or custom, whatever the version.
    pub(crate) fn any_storage(&self, group: &str, resource: &str) -> Option<Arc<Storage>> {
        let built_in = self.storage(group, resource).cloned();
        built_in.or_else(|| self.custom.load().storage(group, resource).cloned())
    }

    /// The storage of a built-in resource, whatever the version.
    pub(crate) fn storage(&self, group: &str, resource: &str) -> Option<&Arc<Storage>> {
        self.by_resource.get(&(group.to_owned(), resource.to_owned()))
    }

    /// The storage that a key of the store belongs to, and the rest of the key.
    pub(crate) fn of_key<'a>(&self, key: &'a str) -> Option<(Arc<Storage>, &'a str)> {
        // Prefixes end in a slash, and none is the beginning of another.
        let built_in = self
            .storages
            .range::<str, _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)))
            .next_back();
        let rest = |storage: &Arc<Storage>| {
            Some((storage.clone(), key.strip_prefix(storage.prefix.as_str())?))
        };
        built_in
            .and_then(|(_, storage)| rest(storage))
            .or_else(|| self.custom.load().of_key(key).and_then(rest))
    }

    /// The versions in which a storage is served.
    pub(crate) fn versions(&self, storage: &Storage) -> Vec<Arc<Resource>> {
        match &storage.custom {
            Some(_) => self.custom.load().versions(storage).to_vec(),
            None => self.by_storage.get(&storage.prefix).cloned().unwrap_or_default(),
        }
    }

    /// Every storage.
    pub(crate) fn storages(&self) -> Vec<Arc<Storage>> {
        self.storages.values().chain(self.custom.load().storages()).cloned().collect()
    }

    fn add(&mut self, definition: &'static schema::Resource) {
        let gvk = definition.gvk();
        let Some(ty) = schema::registry().kind(&gvk) else {
            tracing::error!(kind = %gvk, "no table for a served kind");
            return;
        };
        let conversion = conversion::find(&definition.group, &definition.version, &definition.name);
        let is_kept = definition.verbs.contains(&"get") && definition.name != "componentstatuses";
        let storage = match conversion {
            _ if !is_kept => None,
            Some(conversion) => Some(self.storage_of(conversion.stored_as)),
            None => Some(self.storage_for(definition, &gvk, ty)),
        };
        let api_version = gvk.group_version().to_string();
        let head = format!(r#"{{"kind":"{}","apiVersion":"{api_version}","#, gvk.kind).len();
        let key = (
            definition.group.to_string(),
            definition.version.to_string(),
            definition.name.to_string(),
        );
        let storage = storage.flatten();
        if let Some(storage) = &storage {
            let resource = (definition.group.to_string(), definition.name.to_string());
            self.by_resource.insert(resource, storage.clone());
        }
        let prefix = storage.as_ref().map(|storage| storage.prefix.clone());
        let resource = Arc::new(Resource {
            definition: Arc::new(definition.clone()),
            gvk,
            ty,
            storage,
            conversion,
            head,
            column_definitions: OnceLock::new(),
            custom: None,
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
        let prefix = storage_path::prefix(&definition.group, &definition.name);
        let storage = self.storages.entry(prefix.clone()).or_insert_with(|| {
            Arc::new(Storage {
                resource: GroupResource {
                    group: definition.group.to_string(),
                    resource: definition.name.to_string(),
                },
                gvk: gvk.clone(),
                ty,
                is_namespaced: definition.namespaced,
                prefix,
                cache: Arc::new(Cache::default()),
                strategy: strategy::of(definition),
                custom: None,
                loaded: AtomicU64::new(0),
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
        assert!(Arc::ptr_eq(&storage(&core), &storage(&new)));
        assert!(new.conversion.is_some() && core.conversion.is_none());
    }
}
