//! Values.
//!
//! What is read from JSON stays there: lists and maps are references into the document, and only
//! what an expression looks at becomes a value.

pub(crate) mod compare;
mod convert;
pub(crate) mod key;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json};

use crate::authorizer::Authorization;
use crate::declaration::{Declaration, Fields, Shape};
use crate::error::{EvaluationError, Outcome};
use crate::library::OpaqueValue;
use crate::types::Type;
use key::Key;
pub(crate) use text::Text;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Double(f64),
    /// A string.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A time.
    Timestamp(Timestamp),
    /// A number of nanoseconds.
    Duration(i64),
    /// A list that was made.
    List(Arc<Vec<Value<'a>>>),
    /// A map that was made.
    Map(Arc<Entries<'a>>),
    /// A list in a document, and what is declared of it.
    JsonList(&'a [Json], Option<&'a Declaration>),
    /// An object in a document, and what is declared of it.
    JsonMap(&'a JsonMap<String, Json>, Option<&'a Declaration>),
    /// Something or nothing.
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(Arc<str>),
    /// A value of a library.
    Opaque(Arc<OpaqueValue>),
    /// A question to an authorizer, or its answer.
    Authorization(Arc<Authorization<'a>>),
    /// An object that was made, and the name of its type.
    Object(Arc<Made<'a>>),
}

/// The entries of a map that was made, in order of their keys.
pub(crate) type Entries<'a> = BTreeMap<Key<'a>, Value<'a>>;

/// An object that was made.
#[derive(Debug)]
pub struct Made<'a> {
    pub(crate) ty: Arc<str>,
    pub(crate) fields: BTreeMap<Arc<str>, Value<'a>>,
}

impl<'a> Value<'a> {
    /// A value in a document, typed by what is declared of it.
    pub fn json(json: &'a Json, declared: Option<&'a Declaration>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                let is_double =
                    declared.is_some_and(|d| matches!(d.shape, Shape::Plain(Type::Double)));
                match number.as_i64() {
                    Some(int) if !is_double => Self::Int(int),
                    _ => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
            Json::String(text) => match declared.map(|declared| &declared.shape) {
                Some(Shape::Plain(ty)) => typed_string(text, ty),
                _ => Self::String(Text::Borrowed(text)),
            },
            Json::Array(items) => Self::JsonList(items, declared),
            Json::Object(map) => Self::JsonMap(map, declared),
        }
    }

    /// A string of its own.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(Arc::new(items))
    }

    /// Something.
    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn opaque(value: OpaqueValue) -> Self {
        Self::Opaque(Arc::new(value))
    }

    /// The boolean it is.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The string it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Its number of characters, bytes, items or entries; `None` when it has none.
    pub(crate) fn size(&self) -> Option<u64> {
        let size = match self {
            Self::String(text) => text::characters(text),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.len(),
            Self::JsonList(items, _) => items.len(),
            Self::Map(entries) => entries.len(),
            Self::JsonMap(map, _) => map.len(),
            Self::Opaque(value) => return value.size(),
            _ => return None,
        };
        u64::try_from(size).ok()
    }

    /// Whether at most so many lists and maps that were made lie within each other.
    pub(crate) fn is_nested_at_most(&self, depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        match self {
            Self::List(items) => items.iter().all(|item| item.is_nested_at_most(depth)),
            Self::Map(entries) => entries.values().all(|value| value.is_nested_at_most(depth)),
            Self::Optional(Some(inner)) => inner.is_nested_at_most(depth),
            Self::Object(made) => made.fields.values().all(|value| value.is_nested_at_most(depth)),
            _ => true,
        }
    }

    /// Its items, when it is a list.
    pub(crate) fn items(&self) -> Option<Items<'_, 'a>> {
        match self {
            Self::List(items) => Some(Items::Made(items.iter())),
            Self::JsonList(items, declared) => {
                let declared = declared.and_then(|d| d.element()).map(|d| &**d);
                Some(Items::Json(items.iter(), declared))
            }
            _ => None,
        }
    }

    /// The item at a place of a list.
    pub(crate) fn item(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::List(items) => items.get(at).cloned(),
            Self::JsonList(items, declared) => {
                let declared = declared.and_then(|d| d.element()).map(|d| &**d);
                items.get(at).map(|item| Self::json(item, declared))
            }
            _ => None,
        }
    }

    /// The entries of a map: keys and values.
    pub(crate) fn entries(&self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self {
            Self::Map(entries) => {
                Some(entries.iter().map(|(key, value)| (key.to_value(), value.clone())).collect())
            }
            Self::JsonMap(map, declared) => Some(
                map.iter()
                    .map(|(key, value)| {
                        let declared = declared.and_then(|d| d.json_field(key));
                        (Self::String(Text::Borrowed(key)), Self::json(value, declared))
                    })
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The value under a key of a map; `None` without such an entry.
    pub(crate) fn entry(&self, key: &Value<'_>) -> Outcome<Option<Value<'a>>> {
        match self {
            Self::Map(entries) => Ok(Key::of(key).and_then(|key| key::get(entries, &key)).cloned()),
            Self::JsonMap(map, declared) => match key {
                Value::String(name) => Ok(json_field(map, *declared, name)),
                _ => Ok(None),
            },
            _ => Err(EvaluationError::NoSuchOverload),
        }
    }

    /// The field that an expression names; `None` when it is not set.
    pub(crate) fn field(&self, name: &Arc<str>) -> Outcome<Option<Value<'a>>> {
        match self {
            Self::JsonMap(map, Some(declared)) if let Some(fields) = declared.fields() => {
                Ok(declared_field(map, fields, name))
            }
            Self::JsonMap(map, declared) => Ok(json_field(map, *declared, name)),
            Self::Map(entries) => {
                Ok(key::get(entries, &Key::String(Text::Borrowed(name))).cloned())
            }
            Self::Object(made) => Ok(made.fields.get(name).cloned()),
            _ => Err(EvaluationError::NoSuchOverload),
        }
    }

    /// The name of its type.
    pub fn type_text(&self) -> String {
        self.type_name().to_string()
    }

    /// Whether the objects that were made have the types of the fields that they are in:
    /// `Object.spec` in field `spec` of `Object`.
    ///
    /// # Errors
    /// Which one has not.
    pub fn check_type_names(&self) -> Result<(), String> {
        self.check_type_name("Object")
    }

    fn check_type_name(&self, expected: &str) -> Result<(), String> {
        match self {
            Self::Object(made) if *made.ty != *expected => Err(format!(
                "unexpected type name {:?}, expected {expected:?}, which matches field name path \
                 from root Object type",
                &*made.ty
            )),
            Self::Object(made) => made
                .fields
                .iter()
                .try_for_each(|(name, value)| value.check_type_name(&format!("{expected}.{name}"))),
            Self::List(items) => items.iter().try_for_each(|item| item.check_type_name(expected)),
            Self::Map(entries) => {
                entries.values().try_for_each(|value| value.check_type_name(expected))
            }
            Self::Optional(Some(inner)) => inner.check_type_name(expected),
            _ => Ok(()),
        }
    }

    pub(crate) fn type_name(&self) -> Arc<str> {
        match self {
            Self::Null => "null_type".into(),
            Self::Bool(_) => "bool".into(),
            Self::Int(_) => "int".into(),
            Self::Uint(_) => "uint".into(),
            Self::Double(_) => "double".into(),
            Self::String(_) => "string".into(),
            Self::Bytes(_) => "bytes".into(),
            Self::Timestamp(_) => "google.protobuf.Timestamp".into(),
            Self::Duration(_) => "google.protobuf.Duration".into(),
            Self::List(_) | Self::JsonList(..) => "list".into(),
            Self::JsonMap(_, Some(declared)) if let Some(fields) = declared.fields() => {
                fields.name().into()
            }
            Self::Map(_) | Self::JsonMap(..) => "map".into(),
            Self::Optional(_) => "optional_type".into(),
            Self::Type(_) => "type".into(),
            Self::Opaque(value) => value.type_name().into(),
            Self::Authorization(value) => value.type_name().into(),
            Self::Object(made) => made.ty.clone(),
        }
    }
}

/// A string whose declared format makes it something else. What cannot be read stays a string.
fn typed_string<'a>(text: &'a str, ty: &Type) -> Value<'a> {
    let typed = match ty {
        Type::Timestamp => crate::library::time::parse_declared(text).map(Value::Timestamp),
        Type::Duration => crate::library::time::parse_duration(text).map(Value::Duration),
        Type::Bytes => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
            bytes.map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    };
    typed.unwrap_or(Value::String(Text::Borrowed(text)))
}

fn json_field<'a>(
    map: &'a JsonMap<String, Json>,
    declared: Option<&'a Declaration>,
    name: &str,
) -> Option<Value<'a>> {
    let value = map.get(name)?;
    Some(Value::json(value, declared.and_then(|declared| declared.json_field(name))))
}

/// Fields that are not declared cannot be seen.
fn declared_field<'a>(
    map: &'a JsonMap<String, Json>,
    fields: &'a Fields,
    name: &str,
) -> Option<Value<'a>> {
    let json = fields.json_name(name)?;
    let value = map.get(json)?;
    Some(Value::json(value, fields.field(name).map(|declared| &**declared)))
}

/// The items of a list.
pub(crate) enum Items<'v, 'a> {
    Made(std::slice::Iter<'v, Value<'a>>),
    Json(std::slice::Iter<'a, Json>, Option<&'a Declaration>),
}

impl<'a> Iterator for Items<'_, 'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        match self {
            Self::Made(items) => items.next().cloned(),
            Self::Json(items, declared) => items.next().map(|item| Value::json(item, *declared)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Made(items) => items.size_hint(),
            Self::Json(items, _) => items.size_hint(),
        }
    }
}
