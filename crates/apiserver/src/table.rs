//! Server-side tables, as `kubectl get` prints them.

use bytes::Bytes;
use jiff::Timestamp;
use schema::{Column, ColumnText};
use serde_json::{Value, json};

use crate::custom;
use crate::negotiate::Form;
use crate::render::{TableOptions, metadata};
use crate::resources::Resource;

/// How much of the object comes with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads the `includeObject` parameter.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// A table with one row per object.
pub(crate) fn of(
    resource: &Resource,
    objects: &[Bytes],
    meta: &Value,
    form: Form,
    options: TableOptions,
    with_columns: bool,
) -> Value {
    let version = if form.is_v1beta1 { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
    let rows: Vec<Value> = objects.iter().map(|json| row(resource, json, form, options)).collect();
    // A watch describes its columns once.
    if !with_columns {
        return json!({"kind": "Table", "apiVersion": version, "metadata": meta, "rows": rows});
    }
    json!({"kind": "Table", "apiVersion": version, "metadata": meta,
        "columnDefinitions": definitions(resource), "rows": rows})
}

/// The columns with their descriptions, which are unpacked once for each resource that is printed.
fn definitions(resource: &Resource) -> &Value {
    resource.column_definitions.get_or_init(|| {
        let descriptions = openapi::Descriptions::new();
        if let Some(version) = &resource.custom {
            return custom::table::definitions(version, &descriptions);
        }
        let columns = match schema::registry().columns(&resource.gvr()) {
            [] => &DEFAULT_COLUMNS,
            columns => columns,
        };
        let definition = |column: &Column| {
            json!({"name": column.name, "type": column.column_type, "format": column.format,
                "description": descriptions.of_column(&column.text), "priority": column.priority})
        };
        columns.iter().map(definition).collect()
    })
}

const DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        column_type: "string",
        format: "name",
        priority: 0,
        text: ColumnText::NAME,
    },
    Column {
        name: "Created At",
        column_type: "date",
        format: "",
        priority: 0,
        text: ColumnText::CREATED,
    },
];

fn row(resource: &Resource, json: &Bytes, form: Form, options: TableOptions) -> Value {
    let Ok(object) = serde_json::from_slice::<Value>(json) else {
        return json!({"cells": []});
    };
    let gvr = resource.gvr();
    let cells = if let Some(version) = &resource.custom {
        custom::table::cells(version, &object, options.now)
    } else if schema::registry().columns(&gvr).is_empty() {
        let created = object.pointer("/metadata/creationTimestamp").cloned();
        vec![object["metadata"]["name"].clone(), created.unwrap_or(Value::Null)]
    } else {
        cells(&gvr, &object, options.now)
    };
    let mut row = json!({ "cells": cells });
    if let Some(conditions) = schema::table_row_conditions(&gvr, &object) {
        row["conditions"] = conditions;
    }
    match options.include {
        Include::None if resource.custom.is_some() => row["object"] = Value::Null,
        Include::None => {}
        Include::Metadata => row["object"] = metadata(resource, json, form),
        Include::Object => row["object"] = object,
    }
    row
}

fn cells(gvr: &meta::GroupVersionResource, object: &Value, now: Timestamp) -> Vec<Value> {
    schema::table_row(gvr, object, now)
}
