//! Objects that are parameters of policies.

use std::sync::Arc;

use ::policy::{ParamKind, Params};
use meta::{GroupVersion, LabelSelector};
use serde_json::Value;

use crate::render;
use crate::resources::{Resource, Resources, Storage};

/// The caches as a source of parameters.
pub(super) struct Source<'a> {
    pub(super) resources: &'a Resources,
}

impl Source<'_> {
    /// The resource of a kind.
    fn find(&self, kind: &ParamKind) -> Option<(Arc<Storage>, Arc<Resource>)> {
        let wanted = GroupVersion::parse(&kind.api_version)?;
        for storage in self.resources.storages() {
            if storage.gvk.group != wanted.group || storage.gvk.kind != kind.kind {
                continue;
            }
            for resource in self.resources.versions(&storage) {
                if resource.gvk.version == wanted.version {
                    return Some((storage.clone(), resource.clone()));
                }
            }
        }
        None
    }
}

impl Params for Source<'_> {
    fn is_namespaced(&self, kind: &ParamKind) -> Option<bool> {
        self.find(kind).map(|(storage, _)| storage.is_namespaced)
    }

    fn get(&self, kind: &ParamKind, namespace: &str, name: &str) -> Option<Value> {
        let (storage, resource) = self.find(kind)?;
        let object = storage.cache.get(&storage.cache_key(namespace, name))?;
        serde_json::from_slice(&render::versioned(&resource, &object)).ok()
    }

    fn list(&self, kind: &ParamKind, namespace: &str, selector: &LabelSelector) -> Vec<Value> {
        let Some((storage, resource)) = self.find(kind) else { return Vec::new() };
        let snapshot = storage.cache.snapshot(0);
        let objects = snapshot.map.values().filter(|object| {
            let header = object.header();
            (namespace.is_empty() || header.namespace == namespace)
                && selector.matches_header(header)
        });
        objects
            .filter_map(|object| serde_json::from_slice(&render::versioned(&resource, object)).ok())
            .collect()
    }
}
