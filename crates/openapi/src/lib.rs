//! OpenAPI v2 and v3 documents from the schema tables.
//!
//! What it is: the documents under `/openapi/v2` and `/openapi/v3`, of built-in and custom kinds: schemas
//! with what clients need to patch and explain (group, version and kind, patch strategy and key,
//! list type), and the paths with their operations and parameters.
//!
//! Start reading at [`Documents`], then `schemas.rs`.
//!
//! Invariants: a document depends on the tables, on the descriptions that `build.rs` gathers and on the
//! definitions of custom kinds, so its hash is the same in every process of one build. Documents are made when they are asked for
//! and kept no longer than somebody reads them: they are read rarely, and together they would take
//! more memory than the rest of an idle server; only the hashes are remembered. Those of custom kinds
//! that were read last are kept, up to a few megabytes.
//!
//! What it deliberately does not do: it does not know which custom kinds there are, but is told
//! ([`CustomKinds`]). There is no protobuf form of v3, which clients do not ask for.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod custom;
mod descriptions;
mod documents;
mod foreign;
mod kept;
mod operations;
mod protobuf;
mod schemas;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schema::{Group, Resource, Version, registry};
use serde_json::{Value, json};

pub use self::custom::{CustomKind, CustomKinds, CustomVersion};
pub use self::descriptions::{Described, Descriptions};
pub use self::documents::{Document, Documents, Encoding};
pub use self::foreign::ForeignDocument;

use self::schemas::{Dialect, Schemas};

/// What both documents say about themselves.
const VERSION: &str = "v1.36.0";

/// What a document is made of. The parts are text: as values they would take thirty times the memory.
#[derive(Default)]
struct Parts {
    paths: Texts,
    schemas: Texts,
}

/// JSON by name.
type Texts = BTreeMap<String, String>;

impl Parts {
    fn v2(custom: &dyn CustomKinds) -> Self {
        let kinds = custom.versions().into_iter();
        let kinds = kinds.flat_map(|of| custom.kinds(&of.group, &of.version));
        Self::of(Dialect::V2, versions(), kinds)
    }

    fn v3(group: &'static Group, version: &'static Version) -> Self {
        Self::of(Dialect::V3, [(group, version)].into_iter(), std::iter::empty())
    }

    fn v3_custom(kinds: Vec<CustomKind>) -> Self {
        Self::of(Dialect::V3, std::iter::empty(), kinds.into_iter())
    }

    fn of<'a>(
        dialect: Dialect,
        versions: impl Iterator<Item = (&'a Group, &'a Version)>,
        custom: impl Iterator<Item = CustomKind>,
    ) -> Self {
        let mut schemas = Schemas::new(dialect);
        let mut paths = Texts::new();
        for (group, version) in versions {
            add_version(group, version, &mut schemas, &mut paths);
        }
        for kind in custom {
            custom::add(&kind, &mut schemas, &mut paths);
        }
        Self { paths, schemas: schemas.finish() }
    }

    /// Enough for the document, so that it does not have to grow.
    fn size(&self) -> usize {
        let parts = self.paths.iter().chain(&self.schemas);
        1024 + parts.map(|(name, text)| name.len() + text.len() + 8).sum::<usize>()
    }

    fn v2_text(&self) -> String {
        let mut out = String::with_capacity(self.size());
        let _ = write!(out, r#"{{"swagger":"2.0","info":{},"paths":"#, info());
        write_map(&mut out, &self.paths);
        out.push_str(r#","definitions":"#);
        write_map(&mut out, &self.schemas);
        let _ = write!(
            out,
            r#","securityDefinitions":{{"BearerToken":{}}},"security":[{{"BearerToken":[]}}]}}"#,
            bearer_token()
        );
        out
    }

    fn v3_text(&self) -> String {
        let mut out = String::with_capacity(self.size());
        let _ = write!(out, r#"{{"openapi":"3.0.0","info":{},"paths":"#, info());
        write_map(&mut out, &self.paths);
        out.push_str(r#","components":{"schemas":"#);
        write_map(&mut out, &self.schemas);
        let _ = write!(out, r#","securitySchemes":{{"BearerToken":{}}}}}}}"#, bearer_token());
        out
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

fn bearer_token() -> Value {
    json!({"description": "Bearer Token authentication", "in": "header", "name": "authorization",
        "type": "apiKey"})
}

fn write_map(out: &mut String, texts: &Texts) {
    let mut mark = '{';
    for (name, text) in texts {
        out.push(mark);
        mark = ',';
        let _ = write!(out, "{}:{text}", Value::from(name.as_str()));
    }
    if texts.is_empty() {
        out.push(mark);
    }
    out.push('}');
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

fn add_version(group: &Group, version: &Version, schemas: &mut Schemas, paths: &mut Texts) {
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
    schemas.add_kind(&meta::GroupVersionKind::new(&*resource.group, &*resource.version, list));
    for sub in &resource.subresources {
        schemas.add_kind(&meta::GroupVersionKind::new(&*sub.group, &*sub.version, &*sub.kind));
    }
    for shared in ["DeleteOptions", "Status", "WatchEvent"] {
        schemas.add_kind(&meta::GroupVersionKind::new("meta.k8s.io", "v1", shared));
    }
}

#[cfg(test)]
mod tests;
