//! Server-side tables, as `kubectl get` prints them.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

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
    let columns = schema::registry().columns(&resource.gvr());
    let version = if form.is_v1beta1 { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
    let rows: Vec<Value> = objects.iter().map(|json| row(resource, json, form, options)).collect();
    // A watch describes its columns once.
    if !with_columns {
        return json!({"kind": "Table", "apiVersion": version, "metadata": meta, "rows": rows});
    }
    let definitions: Vec<Value> = match columns {
        [] => default_columns(),
        columns => columns
            .iter()
            .map(|column| {
                json!({"name": column.name, "type": column.column_type, "format": column.format,
                    "description": "", "priority": column.priority})
            })
            .collect(),
    };
    json!({"kind": "Table", "apiVersion": version, "metadata": meta,
        "columnDefinitions": definitions, "rows": rows})
}

fn row(resource: &Resource, json: &Bytes, form: Form, options: TableOptions) -> Value {
    let Ok(object) = serde_json::from_slice::<Value>(json) else {
        return json!({"cells": []});
    };
    let gvr = resource.gvr();
    let cells = if schema::registry().columns(&gvr).is_empty() {
        let created = object.pointer("/metadata/creationTimestamp").cloned();
        vec![object["metadata"]["name"].clone(), created.unwrap_or(Value::Null)]
    } else {
        cells(&gvr, &object, options.now)
    };
    match options.include {
        Include::None => json!({ "cells": cells }),
        Include::Metadata => json!({"cells": cells, "object": metadata(json, form, true)}),
        Include::Object => json!({"cells": cells, "object": object}),
    }
}

fn cells(gvr: &meta::GroupVersionResource, object: &Value, now: Timestamp) -> Vec<Value> {
    schema::table_row(gvr, object, now)
}

fn default_columns() -> Vec<Value> {
    vec![
        json!({"name": "Name", "type": "string", "format": "name",
            "description": "", "priority": 0}),
        json!({"name": "Created At", "type": "date", "format": "",
            "description": "", "priority": 0}),
    ]
}
