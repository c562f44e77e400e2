//! The cells of a custom resource's table.

use jiff::Timestamp;
use serde_json::Value;

use crate::definition::Column;
use crate::json_path::JsonPath;

/// A column that is ready to be read.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    /// What the definition says.
    pub column: Column,
    path: Option<JsonPath>,
}

impl PrinterColumn {
    /// The columns of a version; the age when it has none of its own.
    pub fn of(columns: &[Column]) -> Vec<Self> {
        let age = Column {
            name: "Age".to_owned(),
            column_type: "date".to_owned(),
            json_path: ".metadata.creationTimestamp".to_owned(),
            ..Column::default()
        };
        let own = if columns.is_empty() { std::slice::from_ref(&age) } else { columns };
        let ready = |column: &Column| Self { column: column.clone(), path: column.path() };
        own.iter().map(ready).collect()
    }

    /// The cell of an object; `age` prints the time that has passed since then.
    pub fn cell(&self, object: &Value, age: impl Fn(Timestamp) -> String) -> Value {
        let Some(path) = &self.path else { return Value::Null };
        let found = path.find(object);
        let Some(value) = found.first() else { return Value::Null };
        match (self.column.column_type.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("integer", Value::Number(number)) => match number.as_f64() {
                #[expect(clippy::cast_possible_truncation, reason = "Go converts it so")]
                Some(double) if number.is_f64() => Value::from(double as i64),
                _ => (*value).clone(),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("string", Value::String(text)) => Value::from(text.as_str()),
            ("string", other) => Value::from(other.to_string()),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(time) => Value::from(age(time)),
                Err(_) => Value::from("<invalid>"),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let object = json!({"n": 1.5, "s": "x", "l": [1, 2], "b": false, "d": "then",
            "t": "2024-01-01T00:00:00Z"});
        let cell = |column_type: &str, path: &str| {
            let column = Column {
                column_type: column_type.to_owned(),
                json_path: path.to_owned(),
                ..Column::default()
            };
            PrinterColumn::of(&[column])[0].cell(&object, |_| "1d".to_owned())
        };
        assert_eq!(cell("integer", ".n"), json!(1));
        assert_eq!(cell("number", ".n"), json!(1.5));
        assert_eq!(cell("string", ".l[*]"), json!("1"));
        assert_eq!(cell("boolean", ".b"), json!(false));
        assert_eq!(cell("date", ".t"), json!("1d"));
        assert_eq!(cell("date", ".d"), json!("<invalid>"));
        assert_eq!(cell("integer", ".s"), Value::Null);
        assert_eq!(cell("string", ".nope"), Value::Null);
    }
}
