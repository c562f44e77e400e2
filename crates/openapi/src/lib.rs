//! OpenAPI v2 and v3 documents from the schema tables.
//!
//! What it is: the documents under `/openapi/v2` and `/openapi/v3` for the built-in kinds: schemas
//! with what clients need to patch and explain (group, version and kind, patch strategy and key,
//! list type), and the paths with their operations and parameters.
//!
//! Start reading at [`Documents`], then `schemas.rs`.
//!
//! Invariants: a document depends on the tables and on the descriptions that `build.rs` gathers, so
//! its hash is the same in every process of one build. Documents are made when they are asked for
//! and kept no longer than somebody reads them: they are read rarely, and together they would take
//! more memory than the rest of an idle server; only the hashes are remembered.
//!
//! What it deliberately does not do: it has no custom resources; the server merges those. There is
//! no protobuf form of v3, which clients do not ask for.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod descriptions;
mod documents;
mod operations;
mod protobuf;
mod schemas;

use schema::{Group, Resource, Version, registry};
use serde_json::{Map, Value, json};

pub use self::descriptions::{Described, Descriptions};
pub use self::documents::{Document, Documents, Encoding};

use self::schemas::{Dialect, Schemas};

/// What both documents say about themselves.
const VERSION: &str = "v1.36.0";

fn v2_document() -> Value {
    let mut schemas = Schemas::new(Dialect::V2);
    let mut paths = Map::new();
    for (group, version) in versions() {
        add_version(group, version, &mut schemas, &mut paths);
    }
    let token = json!({"description": "Bearer Token authentication", "in": "header",
        "name": "authorization", "type": "apiKey"});
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": schemas.finish(),
        "securityDefinitions": {"BearerToken": token},
        "security": [{"BearerToken": []}],
    })
}

fn v3_document(group: &Group, version: &Version) -> Value {
    let mut schemas = Schemas::new(Dialect::V3);
    let mut paths = Map::new();
    add_version(group, version, &mut schemas, &mut paths);
    let token = json!({"type": "apiKey", "description": "Bearer Token authentication",
        "name": "authorization", "in": "header"});
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas.finish(), "securitySchemes": {"BearerToken": token}},
    })
}

fn versions() -> impl Iterator<Item = (&'static Group, &'static Version)> {
    let groups = registry().groups().iter();
    groups.flat_map(|group| group.versions.iter().map(move |version| (group, version)))
}

fn path_of(group: &Group, version: &Version) -> String {
    if group.name.is_empty() {
        format!("api/{}", version.version)
    } else {
        format!("apis/{}/{}", group.name, version.version)
    }
}

fn add_version(
    group: &Group,
    version: &Version,
    schemas: &mut Schemas,
    paths: &mut Map<String, Value>,
) {
    let root = format!("/{}", path_of(group, version));
    for resource in &version.resources {
        add_kinds(resource, schemas);
        operations::add_resource(&root, resource, schemas, paths);
    }
}

/// The kind of a resource, its list and what its subresources take.
fn add_kinds(resource: &Resource, schemas: &mut Schemas) {
    schemas.add_kind(&resource.gvk());
    let list = format!("{}List", resource.kind);
    schemas.add_kind(&meta::GroupVersionKind::new(resource.group, resource.version, list));
    for sub in &resource.subresources {
        schemas.add_kind(&meta::GroupVersionKind::new(sub.group, sub.version, sub.kind));
    }
    for shared in ["DeleteOptions", "Status", "WatchEvent"] {
        schemas.add_kind(&meta::GroupVersionKind::new("meta.k8s.io", "v1", shared));
    }
}

#[cfg(test)]
mod tests;
