//! Values as JSON.

use serde_json::{Map, Number, Value as Json};

use super::Value;
use crate::error::{EvaluationError, Outcome};
use crate::library::time;

impl Value<'_> {
    /// The value as JSON.
    ///
    /// # Errors
    /// When JSON has nothing like it.
    pub fn to_json(&self) -> Result<Json, EvaluationError> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Double(value) => {
                let number = Number::from_f64(*value);
                number.map(Json::Number).ok_or_else(|| unsupported(self))?
            }
            Self::String(text) => Json::from(&**text),
            Self::Bytes(bytes) => {
                use base64::Engine as _;
                Json::from(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Self::Timestamp(at) => Json::from(time::print_timestamp(*at)),
            Self::Duration(nanos) => Json::from(time::print_duration(*nanos)),
            Self::JsonList(items, _) => Json::Array(items.to_vec()),
            Self::JsonMap(map, _) => Json::Object((*map).clone()),
            Self::List(items) => {
                Json::Array(items.iter().map(Value::to_json).collect::<Outcome<_>>()?)
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries.iter() {
                    let key = key.to_value();
                    let Some(key) = key.as_str() else { return Err(unsupported(self)) };
                    map.insert(key.to_owned(), value.to_json()?);
                }
                Json::Object(map)
            }
            Self::Object(made) => {
                let mut map = Map::new();
                for (name, value) in &made.fields {
                    map.insert(name.to_string(), value.to_json()?);
                }
                Json::Object(map)
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            Self::Optional(None) => Json::Null,
            _ => return Err(unsupported(self)),
        })
    }
}

fn unsupported(value: &Value<'_>) -> EvaluationError {
    EvaluationError::failed(format!("unsupported type conversion: {}", value.type_name()))
}
