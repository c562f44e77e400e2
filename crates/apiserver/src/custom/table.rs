//! Tables of custom resources.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kind::CustomVersion;

/// The columns as they are printed.
pub(crate) fn definitions(version: &CustomVersion, descriptions: &openapi::Descriptions) -> Value {
    let name = descriptions.of_column(&schema::ColumnText::NAME);
    let created = descriptions.of_column(&schema::ColumnText::CREATED);
    let mut columns =
        vec![json!({"name": "Name", "type": "string", "format": "name", "description": name,
            "priority": 0})];
    for printer in &version.compiled().columns {
        let column = &printer.column;
        let description = match column.description.as_str() {
            "" if column.json_path == ".metadata.creationTimestamp" => json!(created),
            "" => json!(format!(
                "Custom resource definition column (in JSONPath format): {}",
                column.json_path
            )),
            text => json!(text),
        };
        columns.push(json!({"name": column.name, "type": column.column_type,
            "format": column.format, "description": description, "priority": column.priority}));
    }
    Value::Array(columns)
}

/// The cells of an object.
pub(crate) fn cells(version: &CustomVersion, object: &Value, now: Timestamp) -> Vec<Value> {
    let age = |time: Timestamp| schema::human_duration(now.duration_since(time).as_secs());
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(version.compiled().columns.iter().map(|column| column.cell(object, age)));
    cells
}
