//! Declarations from the schemas of custom resources.
//!
//! Upstream: `apiserver/pkg/cel/common/schemas.go`. Where a schema has no limit, the most that fits
//! in a request is taken, which is why the least number of bytes of every type is kept.

use serde_json::Value as Json;

use crate::declaration::{Declaration, Fields, ListKind, Shape};
use crate::types::Type;

/// Most bytes of a request.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;
/// Most bytes of a time or duration in JSON.
const MAX_TIME: u64 = 32;
/// Bytes of a date in JSON.
const DATE: u64 = 12;

impl Declaration {
    /// What a structural schema (`openAPIV3Schema`) says of a value; `None` when expressions cannot
    /// see it. The root of a resource has a kind and metadata, whatever its schema says.
    pub fn from_schema(schema: &Json, is_root: bool) -> Option<Self> {
        of(schema, is_root)
    }

    /// What the schema of a custom kind says, with this for its metadata.
    pub fn custom(schema: &Json, metadata: Declaration) -> Self {
        let properties = schema["properties"].as_object();
        let fields = properties.into_iter().flatten().filter_map(|(name, property)| {
            let is_own = !matches!(&**name, "kind" | "apiVersion" | "metadata");
            is_own.then(|| Some((name.clone(), of(property, false)?))).flatten()
        });
        let text = || Declaration::of(Type::String);
        let own = [("kind", text()), ("apiVersion", text()), ("metadata", metadata)];
        let own = own.map(|(name, declaration)| (name.to_owned(), declaration));
        Self::object(Fields::new("object", fields.chain(own)))
    }

    /// How many such values one request can have at the most.
    pub fn most_in_a_request(&self) -> u64 {
        // There is a comma between two of them.
        MAX_REQUEST / (self.min_bytes + 1)
    }
}

fn is_set(schema: &Json, name: &str) -> bool {
    schema[name] == Json::Bool(true)
}

fn of(schema: &Json, is_root: bool) -> Option<Declaration> {
    if is_set(schema, "x-kubernetes-int-or-string") {
        // A number or a text: only known when it runs.
        let max = schema["maxLength"].as_u64().unwrap_or(MAX_REQUEST - 2);
        return Some(Declaration::dynamic().at_most(max));
    }
    let is_resource = is_root || is_set(schema, "x-kubernetes-embedded-resource");
    match schema["type"].as_str() {
        Some("array") => list(schema),
        Some("object") => object(schema, is_resource),
        None | Some("") if is_resource => object(schema, true),
        Some("string") => Some(string(schema)),
        Some("boolean") => Some(Declaration::of(Type::Bool).at_least_bytes(4)),
        Some("number") => Some(Declaration::of(Type::Double)),
        Some("integer") => Some(Declaration::of(Type::Int)),
        _ => None,
    }
}

fn list(schema: &Json) -> Option<Declaration> {
    let items = of(&schema["items"], false)?;
    let max = schema["maxItems"].as_u64();
    let max = max.unwrap_or((MAX_REQUEST - 2) / (items.min_bytes + 1));
    let kind = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            let keys = keys.into_iter().flatten().filter_map(Json::as_str);
            ListKind::Map(keys.map(str::to_owned).collect())
        }
        _ => ListKind::Atomic,
    };
    Some(Declaration::list(items, kind).at_most(max))
}

fn object(schema: &Json, is_resource: bool) -> Option<Declaration> {
    if schema["additionalProperties"].is_object() {
        let values = of(&schema["additionalProperties"], false)?;
        let max = schema["maxProperties"].as_u64();
        let max = max.unwrap_or((MAX_REQUEST - 2) / (values.min_bytes + 6));
        let key_max = MAX_REQUEST - 2;
        let mut map = Declaration::map(values).at_most(max);
        if let Shape::Map { keys, .. } = &mut map.shape {
            *keys = std::sync::Arc::new(Declaration::of(Type::String).at_most(key_max));
        }
        return Some(map);
    }
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let mut min_bytes = 2;
    let mut fields = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let is_metadata = is_resource && matches!(&**name, "kind" | "apiVersion" | "metadata");
        if is_metadata {
            continue;
        }
        let Some(declaration) = of(property, false) else { continue };
        if required.contains(&&**name) && property.get("default").is_none() {
            let name_bytes = u64::try_from(name.len()).unwrap_or(u64::MAX);
            min_bytes += name_bytes + declaration.min_bytes + 4;
        }
        fields.push((name.clone(), declaration));
    }
    if is_resource {
        let text = || Declaration::of(Type::String).at_most(MAX_REQUEST - 2);
        fields.push(("kind".to_owned(), text()));
        fields.push(("apiVersion".to_owned(), text()));
        let names = ["name", "generateName"].map(|name| (name.to_owned(), text()));
        fields.push(("metadata".to_owned(), Declaration::object(Fields::new("object", names))));
    }
    Some(Declaration::object(Fields::new("object", fields)).at_least_bytes(min_bytes))
}

fn string(schema: &Json) -> Declaration {
    let max_length = schema["maxLength"].as_u64();
    match schema["format"].as_str() {
        Some("byte") => {
            let max = max_length.unwrap_or(MAX_REQUEST - 2);
            Declaration::of(Type::Bytes).at_most(max).at_least_bytes(2)
        }
        Some("duration") => Declaration::of(Type::Duration).at_most(MAX_TIME).at_least_bytes(3),
        Some("date") => Declaration::of(Type::Timestamp).at_most(DATE).at_least_bytes(DATE),
        Some("date-time") => Declaration::of(Type::Timestamp).at_most(MAX_TIME).at_least_bytes(21),
        _ => {
            let longest = |values: &Vec<Json>| {
                values.iter().filter_map(Json::as_str).map(|text| text.chars().count()).max()
            };
            let of_enum = schema["enum"].as_array().and_then(longest);
            let of_enum = of_enum.and_then(|longest| u64::try_from(longest).ok());
            let max = max_length.or(of_enum).unwrap_or(MAX_REQUEST - 2);
            Declaration::of(Type::String).at_most(max).at_least_bytes(2)
        }
    }
}
