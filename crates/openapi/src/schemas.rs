//! Tables as schemas, with the extensions by which clients patch and explain.

use std::collections::{BTreeMap, BTreeSet};

use meta::GroupVersionKind;
use schema::{Field, Kind, ListType, Type, registry};
use serde_json::{Map, Value, json};

use crate::Texts;
use crate::descriptions::{Described, Descriptions};

/// The two versions of OpenAPI differ in where schemas live and in what a union looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

/// The schemas of one document: what was asked for, and everything that refers to.
pub(crate) struct Schemas {
    dialect: Dialect,
    done: Texts,
    waiting: Vec<&'static Type>,
    seen: BTreeSet<&'static str>,
    descriptions: Descriptions,
    /// Describes the fields that every kind has, for those that upstream's package leaves out.
    every_kind: Option<Described>,
    /// Names of the schemas of custom kinds.
    custom: BTreeMap<GroupVersionKind, String>,
}

/// A kind that has every field that all kinds have.
const SOME_KIND: &str = "io.k8s.api.core.v1.Pod";

impl Schemas {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let descriptions = Descriptions::new();
        let every_kind = descriptions.of(SOME_KIND);
        let (done, seen) = (Texts::new(), BTreeSet::new());
        let (waiting, custom) = (Vec::new(), BTreeMap::new());
        Self { dialect, done, waiting, seen, descriptions, every_kind, custom }
    }

    /// What is said about a field of a type, such as a parameter's of `DeleteOptions`.
    pub(crate) fn description(&self, definition: &str, field: &str) -> Option<String> {
        Some(self.descriptions.of(definition)?.field(field)?.to_owned())
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Adds a kind, if there is a table of it.
    pub(crate) fn add_kind(&mut self, gvk: &GroupVersionKind) {
        if let Some(ty) = registry().kind(gvk) {
            self.add(ty);
        }
    }

    /// Adds a type by Go's package and name, if there is a table of it.
    pub(crate) fn add_named(&mut self, path: &str) {
        if let Some(ty) = registry().type_named(path) {
            self.add(ty);
        }
    }

    /// Gives the schema of a custom kind its name.
    pub(crate) fn name(&mut self, gvk: &GroupVersionKind, name: &str) {
        self.custom.insert(gvk.clone(), name.to_owned());
    }

    /// Whether a kind is custom.
    pub(crate) fn is_custom(&self, gvk: &GroupVersionKind) -> bool {
        self.custom.contains_key(gvk)
    }

    /// Adds a schema that is made already.
    pub(crate) fn put(&mut self, name: &str, schema: &Value) {
        self.done.insert(name.to_owned(), schema.to_string());
    }

    /// What is said about a field that every object has.
    pub(crate) fn of_every_object(&self, field: &str) -> Option<&str> {
        self.every_kind.as_ref()?.field(field)
    }

    /// A reference, with a description where there is one.
    pub(crate) fn described_reference(&self, name: &str, text: Option<&str>) -> Value {
        let mut schema = self.reference(name);
        let Some(text) = text else { return schema };
        if self.dialect == Dialect::V3 {
            // Nothing may stand beside a reference.
            schema = json!({ "allOf": [schema] });
        }
        schema["description"] = json!(text);
        schema
    }

    /// A reference to a kind; nothing when there is no table of it.
    pub(crate) fn kind_reference(&self, gvk: &GroupVersionKind) -> Option<Value> {
        if let Some(name) = self.custom.get(gvk) {
            return Some(self.reference(name));
        }
        registry().kind(gvk).map(|ty| self.reference(&schema_name(ty)))
    }

    /// All schemas, by name.
    pub(crate) fn finish(mut self) -> Texts {
        while let Some(ty) = self.waiting.pop() {
            let schema = self.object(ty);
            self.done.insert(schema_name(ty), schema.to_string());
        }
        self.done
    }

    fn add(&mut self, ty: &'static Type) {
        if self.seen.insert(&ty.path) {
            self.waiting.push(ty);
        }
    }

    /// A reference to a schema.
    pub(crate) fn reference(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    fn object(&mut self, ty: &'static Type) -> Value {
        let described = self.descriptions.of_type(ty);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in ty.fields() {
            let text = described.as_ref().and_then(|described| described.field(&field.name));
            let text = text.map(str::to_owned).or_else(|| self.of_every_kind(ty, field));
            properties.insert(field.name.to_string(), self.field(field, text));
            if field.required || (!field.optional && !field.omit_empty) {
                required.push(field.name.as_ref());
            }
        }
        let mut schema = json!({"type": "object"});
        if let Some(text) = described.as_ref().and_then(Described::itself) {
            schema["description"] = json!(text);
        }
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            required.sort_unstable();
            schema["required"] = json!(required);
        }
        if ty.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        if ty.has_type_meta() || ty.name() == "WatchEvent" {
            schema["x-kubernetes-group-version-kind"] = Value::Array(kinds(ty));
        }
        schema
    }

    fn of_every_kind(&self, ty: &Type, field: &Field) -> Option<String> {
        let is_shared = ty.has_type_meta() && matches!(&*field.name, "kind" | "apiVersion");
        let text = is_shared.then(|| self.every_kind.as_ref()?.field(&field.name)).flatten();
        text.map(str::to_owned)
    }

    fn field(&mut self, field: &'static Field, text: Option<String>) -> Value {
        let mut schema = self.value(&field.kind);
        let text = with_values(&mut schema, field, text);
        let default = match field.default.as_deref().map(serde_json::from_str) {
            Some(Ok(default)) => Some(default),
            _ if field.pointer || field.omit_empty => None,
            _ => zero(&field.kind),
        };
        let is_reference = schema.get("$ref").is_some();
        let is_struct = matches!(field.kind, Kind::Struct(_)) && !field.pointer;
        if self.dialect == Dialect::V3 && is_reference && (is_struct || text.is_some()) {
            // Nothing may stand beside a reference.
            schema = json!({ "allOf": [schema] });
        }
        // Clients of v2 took defaults for something to fill in, so upstream leaves them out there.
        if self.dialect == Dialect::V3 {
            if is_struct {
                schema["default"] = json!({});
            } else if let (Some(default), false) = (default, is_reference) {
                schema["default"] = default;
            }
        }
        if let Some(text) = text {
            schema["description"] = json!(text);
        }
        let Value::Object(map) = &mut schema else { return schema };
        extend(map, field);
        schema
    }

    fn value(&mut self, kind: &'static Kind) -> Value {
        match kind {
            Kind::String | Kind::Duration => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Float64 => json!({"type": "number", "format": "double"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Time => self.named(
                "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
                json!({"type": "string", "format": "date-time"}),
            ),
            Kind::MicroTime => self.named(
                "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
                json!({"type": "string", "format": "date-time"}),
            ),
            Kind::Quantity => {
                let union = json!({"oneOf": [{"type": "string"}, {"type": "number"}]});
                let schema = self.by_dialect(json!({"type": "string"}), union);
                self.named("io.k8s.apimachinery.pkg.api.resource.Quantity", schema)
            }
            Kind::IntOrString => {
                let both = json!({"format": "int-or-string",
                    "oneOf": [{"type": "integer"}, {"type": "string"}]});
                let one = json!({"type": "string", "format": "int-or-string"});
                let schema = self.by_dialect(one, both);
                self.named("io.k8s.apimachinery.pkg.util.intstr.IntOrString", schema)
            }
            Kind::RawExtension => self
                .named("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"})),
            Kind::FieldsV1 => self
                .named("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", json!({"type": "object"})),
            Kind::Json
            | Kind::Marked(_)
            | Kind::Deduced
            | Kind::SchemaOrBool(_)
            | Kind::SchemaOrArray(_)
            | Kind::SchemaOrStrings(_) => {
                // Unions that OpenAPI v2 cannot tell; upstream leaves them open too.
                json!({})
            }
            Kind::WrappedStrings => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Struct(ty) => {
                let ty = ty.get();
                self.add(ty);
                self.reference(&schema_name(ty))
            }
            Kind::List(item) => json!({"type": "array", "items": self.item(item)}),
            Kind::Map(item) => json!({"type": "object", "additionalProperties": self.item(item)}),
        }
    }

    fn item(&mut self, kind: &'static Kind) -> Value {
        let schema = self.value(kind);
        if self.dialect == Dialect::V3 && matches!(kind, Kind::Struct(_)) {
            return json!({"allOf": [schema], "default": {}});
        }
        schema
    }

    /// A scalar that has a schema of its own.
    fn named(&mut self, name: &str, mut schema: Value) -> Value {
        if !self.done.contains_key(name) {
            if let Some(text) = self.description(name, "") {
                schema["description"] = json!(text);
            }
            self.done.insert(name.to_owned(), schema.to_string());
        }
        self.reference(name)
    }

    fn by_dialect(&self, v2: Value, v3: Value) -> Value {
        if self.dialect == Dialect::V2 { v2 } else { v3 }
    }
}

/// Tells the values of a field that has no others, or of its items; those of a field itself are told
/// in its description too, as upstream does.
fn with_values(schema: &mut Value, field: &Field, text: Option<String>) -> Option<String> {
    let mut values: Vec<&str> = registry().enum_values(&field.values).collect();
    if values.is_empty() {
        return text;
    }
    values.sort_unstable();
    match &field.kind {
        Kind::List(_) => schema["items"]["enum"] = json!(values),
        Kind::Map(_) => schema["additionalProperties"]["enum"] = json!(values),
        _ => {
            schema["enum"] = json!(values);
            let lines: Vec<String> = values.iter().map(|value| format!(" - `{value:?}`")).collect();
            let told = format!("Possible enum values:\n{}", lines.join("\n"));
            return Some(match text {
                Some(text) => format!("{text}\n\n{told}"),
                None => told,
            });
        }
    }
    text
}

/// The kinds a type is known as. Options and events of watches are registered in every version.
fn kinds(ty: &Type) -> Vec<Value> {
    let kind =
        |group: &str, version: &str| json!({"group": group, "version": version, "kind": ty.name()});
    if !matches!(ty.name(), "DeleteOptions" | "WatchEvent") {
        let group = if ty.group == "meta.k8s.io" { "" } else { &ty.group };
        return vec![kind(group, &ty.version)];
    }
    let groups = registry().groups().iter();
    groups
        .flat_map(|group| group.versions.iter().map(|version| kind(&group.name, &version.version)))
        .collect()
}

fn extend(schema: &mut Map<String, Value>, field: &Field) {
    let mut put = |key: &str, value: Value| schema.insert(format!("x-kubernetes-{key}"), value);
    if !field.patch_strategy.is_empty() {
        put("patch-strategy", json!(field.patch_strategy));
    }
    if !field.patch_merge_key.is_empty() {
        put("patch-merge-key", json!(field.patch_merge_key));
    }
    match &field.list_type {
        Some(ListType::Atomic) => drop(put("list-type", json!("atomic"))),
        Some(ListType::Set) => drop(put("list-type", json!("set"))),
        Some(ListType::Map(keys)) => {
            put("list-type", json!("map"));
            put("list-map-keys", json!(keys));
        }
        None => {}
    }
    if field.atomic {
        put("map-type", json!("atomic"));
    }
}

/// What upstream gives as default for a field that is always printed.
fn zero(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::String => Some(json!("")),
        Kind::Bool => Some(json!(false)),
        Kind::Int32 | Kind::Int64 | Kind::Float64 => Some(json!(0)),
        _ => None,
    }
}

/// The name of a schema: the protobuf package turned round.
pub(crate) fn schema_name(ty: &Type) -> String {
    let rest = ty.message.strip_prefix("k8s.io.").unwrap_or(&ty.message);
    if rest.is_empty() {
        return format!("io.k8s.{}", ty.path.replace('/', "."));
    }
    format!("io.k8s.{}", rest.replace('_', "-"))
}
