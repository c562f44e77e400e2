//! Structural schemas: what a definition's schema says, compiled once.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

use crate::pattern;

/// Schemas nested deeper than this are refused; objects cannot be nested deeper either.
const MAX_DEPTH: usize = 120;

/// One node of a schema.
#[derive(Debug, Default)]
pub struct Structural {
    /// The type; `None` where anything is allowed, and in nested checks.
    pub ty: Option<JsonType>,
    /// Properties, by name.
    pub properties: Vec<(Box<str>, Structural)>,
    /// What items of a list are.
    pub items: Option<Box<Structural>>,
    /// What further members are.
    pub additional: Additional,
    /// The value of what is absent.
    pub default: Option<Value>,
    /// Whether null is allowed.
    pub is_nullable: bool,
    /// Whether members that are not specified are kept.
    pub preserves_unknown: bool,
    /// Whether the value is an object with `apiVersion`, `kind` and `metadata` of its own.
    pub is_embedded: bool,
    /// Whether the value is an integer or a string.
    pub is_int_or_string: bool,
    /// What tells the items of a list apart.
    pub list_type: ListType,
    /// Whether a map is replaced as a whole.
    pub is_atomic_map: bool,
    /// What is checked besides the type.
    pub checks: Option<Box<Checks>>,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// An object.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// An integer.
    Integer,
    /// A number.
    Number,
    /// A boolean.
    Boolean,
}

impl JsonType {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The word in schemas and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What is said of members that are not properties.
#[derive(Debug, Default)]
pub enum Additional {
    /// Nothing: they are pruned.
    #[default]
    Unspecified,
    /// They are kept, and what is in them is pruned.
    Allowed,
    /// They are like this.
    Schema(Box<Structural>),
}

/// What tells the items of a list apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Nothing was said: as atomic.
    #[default]
    Unspecified,
    /// Nothing: the list is one value.
    Atomic,
    /// Their values.
    Set,
    /// The values of these keys.
    Map(Vec<Box<str>>),
}

/// What is checked of a value besides its type.
#[derive(Debug, Default)]
pub struct Checks {
    /// A format that is known.
    pub format: Option<Box<str>>,
    /// Longest string, in characters.
    pub max_length: Option<u64>,
    /// Shortest string, in characters.
    pub min_length: Option<u64>,
    /// What strings must match.
    pub pattern: Option<Pattern>,
    /// Largest number.
    pub maximum: Option<f64>,
    /// Whether the maximum itself is not allowed.
    pub exclusive_maximum: bool,
    /// Smallest number.
    pub minimum: Option<f64>,
    /// Whether the minimum itself is not allowed.
    pub exclusive_minimum: bool,
    /// What numbers must be a multiple of.
    pub multiple_of: Option<f64>,
    /// Most items.
    pub max_items: Option<u64>,
    /// Fewest items.
    pub min_items: Option<u64>,
    /// Whether items must differ.
    pub unique_items: bool,
    /// Most members.
    pub max_properties: Option<u64>,
    /// Fewest members.
    pub min_properties: Option<u64>,
    /// Members that must be there.
    pub required: Vec<Box<str>>,
    /// The values that are allowed.
    pub allowed: Vec<Value>,
    /// All must fit.
    pub all_of: Vec<Structural>,
    /// At least one must fit.
    pub any_of: Vec<Structural>,
    /// Exactly one must fit.
    pub one_of: Vec<Structural>,
    /// Must not fit.
    pub not: Option<Box<Structural>>,
}

/// A regular expression that is compiled when it is first needed.
#[derive(Debug)]
pub struct Pattern {
    /// As it is written.
    pub text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// The expression; `None` when it is none, or too large.
    pub fn compiled(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| pattern::compile(&self.text)).as_ref()
    }
}

/// Why a schema cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is no object.
    #[error("a schema must be an object")]
    NoObject,
    /// It is nested too deeply.
    #[error("the schema is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It refers to another schema.
    #[error("schema references are not supported: {0}")]
    Reference(String),
}

impl Structural {
    /// Compiles `openAPIV3Schema` as it stands in a definition.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn compile(schema: &Value) -> Result<Self, CompileError> {
        compile(schema, 0)
    }

    /// A schema that keeps everything.
    pub fn anything() -> Self {
        Self { ty: Some(JsonType::Object), preserves_unknown: true, ..Self::default() }
    }

    /// A property by its name.
    pub fn property(&self, name: &str) -> Option<&Structural> {
        let at = self.properties.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    /// What a member is: the property, or what further members are.
    pub fn member(&self, name: &str) -> Option<&Structural> {
        self.property(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }
}

fn compile(schema: &Value, depth: usize) -> Result<Structural, CompileError> {
    let map = schema.as_object().ok_or(CompileError::NoObject)?;
    if depth > MAX_DEPTH {
        return Err(CompileError::TooDeep);
    }
    if let Some(reference) = map.get("$ref").and_then(Value::as_str).filter(|r| !r.is_empty()) {
        return Err(CompileError::Reference(reference.to_owned()));
    }
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
    let one = |key: &str| {
        let found = map.get(key).filter(|value| value.is_object());
        found.map(|value| compile(value, depth + 1).map(Box::new)).transpose()
    };
    let mut properties = Vec::new();
    for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        properties.push((name.as_str().into(), compile(property, depth + 1)?));
    }
    properties.sort_by(|(a, _): &(Box<str>, _), (b, _)| a.cmp(b));
    let additional = match map.get("additionalProperties") {
        Some(Value::Bool(true)) => Additional::Allowed,
        Some(more @ Value::Object(_)) => Additional::Schema(Box::new(compile(more, depth + 1)?)),
        _ => Additional::Unspecified,
    };
    Ok(Structural {
        ty: JsonType::parse(text("type")),
        properties,
        items: one("items")?,
        additional,
        default: map.get("default").filter(|default| !default.is_null()).cloned(),
        is_nullable: flag("nullable"),
        preserves_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        is_embedded: flag("x-kubernetes-embedded-resource"),
        is_int_or_string: flag("x-kubernetes-int-or-string"),
        list_type: list_type(map),
        is_atomic_map: text("x-kubernetes-map-type") == "atomic",
        checks: checks(map, depth)?,
    })
}

fn list_type(map: &Map<String, Value>) -> ListType {
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("x-kubernetes-list-type") {
        "atomic" => ListType::Atomic,
        "set" => ListType::Set,
        "map" => {
            let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            ListType::Map(keys.map(Box::from).collect())
        }
        _ => ListType::Unspecified,
    }
}

/// Keywords of [`Checks`]; most nodes have none of them.
const CHECKED: [&str; 20] = [
    "allOf",
    "anyOf",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "required",
    "uniqueItems",
];

fn checks(map: &Map<String, Value>, depth: usize) -> Result<Option<Box<Checks>>, CompileError> {
    if !map.keys().any(|key| CHECKED.contains(&key.as_str())) {
        return Ok(None);
    }
    let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
    let count = |key: &str| map.get(key).and_then(Value::as_u64);
    let number = |key: &str| map.get(key).and_then(Value::as_f64);
    let list = |key: &str| map.get(key).and_then(Value::as_array).into_iter().flatten();
    let schemas = |key: &str| -> Result<Vec<Structural>, CompileError> {
        list(key).map(|schema| compile(schema, depth + 1)).collect()
    };
    let not = map.get("not").filter(|value| value.is_object());
    Ok(Some(Box::new(Checks {
        format: text("format").filter(|format| crate::format::is_known(format)).map(Box::from),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text("pattern").map(Pattern::new),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: flag("uniqueItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: list("required").filter_map(Value::as_str).map(Box::from).collect(),
        allowed: list("enum").cloned().collect(),
        all_of: schemas("allOf")?,
        any_of: schemas("anyOf")?,
        one_of: schemas("oneOf")?,
        not: not.map(|not| compile(not, depth + 1).map(Box::new)).transpose()?,
    })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_refused() {
        let schema = json!({"type": "object", "properties": {"a": {"$ref": "#"}}});
        assert!(matches!(Structural::compile(&schema), Err(CompileError::Reference(_))));
    }

    #[test]
    fn schemas_that_are_nested_too_deeply_are_refused() {
        let mut schema = json!({"type": "string"});
        for _ in 0..=MAX_DEPTH {
            schema = json!({"type": "array", "items": schema});
        }
        assert!(matches!(Structural::compile(&schema), Err(CompileError::TooDeep)));
    }

    #[test]
    fn nodes_without_checks_carry_none() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"},
            "b": {"type": "string", "maxLength": 3, "pattern": "^a"}}});
        let compiled = Structural::compile(&schema).unwrap();
        assert!(compiled.property("a").unwrap().checks.is_none());
        let checks = compiled.property("b").unwrap().checks.as_ref().unwrap();
        assert!(checks.pattern.as_ref().unwrap().compiled().unwrap().is_match("abc"));
    }
}
