//! OpenAPI v2 and v3 documents from the schema tables.
//!
//! What it is: the documents under `/openapi/v2` and `/openapi/v3` for the built-in kinds: schemas
//! with what clients need to patch and explain (group, version and kind, patch strategy and key,
//! list type), and the paths with their operations and parameters.
//!
//! Start reading at [`v3`], then `schemas.rs`.
//!
//! Invariants: a document depends on the tables alone, so its hash is the same in every process.
//! Documents are made when they are asked for and not kept: they are read rarely, and together they
//! would take more memory than the rest of an idle server; only the hashes are remembered.
//!
//! What it deliberately does not do: it has no descriptions of fields yet, and no custom resources;
//! the server merges those. There is no protobuf form of v2.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod operations;
mod schemas;

use std::fmt::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use schema::{Group, Resource, Version, registry};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use self::schemas::{Dialect, Schemas};

/// What both documents say about themselves.
const VERSION: &str = "v1.36.0";

/// The v2 document as JSON.
pub fn v2_json() -> Bytes {
    let mut schemas = Schemas::new(Dialect::V2);
    let mut paths = Map::new();
    for (group, version) in versions() {
        add_version(group, version, &mut schemas, &mut paths);
    }
    let token = json!({"description": "Bearer Token authentication", "in": "header",
        "name": "authorization", "type": "apiKey"});
    bytes_of(&json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": schemas.finish(),
        "securityDefinitions": {"BearerToken": token},
        "security": [{"BearerToken": []}],
    }))
}

/// The paths under `/openapi/v3`, such as `apis/apps/v1`, with the hash of each document.
pub fn v3_index() -> Vec<(String, String)> {
    static INDEX: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let make = || {
        let entry = |(group, version): (&Group, &Version)| {
            let document = v3_document(group, version);
            (path_of(group, version), hash(&document))
        };
        versions().map(entry).collect()
    };
    INDEX.get_or_init(make).clone()
}

/// The v3 document of a path such as `apis/apps/v1` or `api/v1`.
pub fn v3(path: &str) -> Option<Bytes> {
    let (group, version) = versions().find(|(group, version)| path_of(group, version) == path)?;
    Some(v3_document(group, version))
}

fn v3_document(group: &Group, version: &Version) -> Bytes {
    let mut schemas = Schemas::new(Dialect::V3);
    let mut paths = Map::new();
    add_version(group, version, &mut schemas, &mut paths);
    let token = json!({"type": "apiKey", "description": "Bearer Token authentication",
        "name": "authorization", "in": "header"});
    bytes_of(&json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas.finish(), "securitySchemes": {"BearerToken": token}},
    }))
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

fn bytes_of(document: &Value) -> Bytes {
    // A value that was just built always prints.
    serde_json::to_vec(document).unwrap_or_default().into()
}

/// Upper-case hexadecimal, as upstream prints it in `?hash=`.
fn hash(document: &[u8]) -> String {
    Sha512::digest(document).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

#[cfg(test)]
mod tests;
