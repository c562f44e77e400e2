//! From objects to the bytes of an answer.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use meta::{GroupVersionKind, Object, Status};
use serde_json::{Value, json};

use crate::custom::convert;
use crate::negotiate::{Encoding, Form, Shape};
use crate::resources::Resource;
use crate::table;
use cache::splice;
use connection::Body;

/// What tables need to know besides the objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableOptions {
    pub(crate) include: table::Include,
    pub(crate) now: Timestamp,
}

/// Metadata of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<u64>,
}

impl ListMeta {
    fn json(&self) -> Value {
        let mut meta = serde_json::Map::new();
        if !self.resource_version.is_empty() {
            meta.insert("resourceVersion".into(), json!(self.resource_version));
        }
        if !self.continue_token.is_empty() {
            meta.insert("continue".into(), json!(self.continue_token));
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".into(), json!(remaining));
        }
        Value::Object(meta)
    }

    /// In upstream's field order. Lists of custom resources always have a token.
    pub(crate) fn text(&self, has_token: bool) -> String {
        let mut fields = vec![format!("\"resourceVersion\":{:?}", self.resource_version)];
        if has_token || !self.continue_token.is_empty() {
            fields.push(format!("\"continue\":{:?}", self.continue_token));
        }
        if let Some(remaining) = self.remaining {
            fields.push(format!("\"remainingItemCount\":{remaining}"));
        }
        format!("{{{}}}", fields.join(","))
    }
}

/// The JSON of an object in the version of the resource.
pub(crate) fn versioned(resource: &Resource, object: &Object) -> Bytes {
    if let Some(version) = &resource.custom {
        return convert::versioned(version, object.json());
    }
    let (Some(_), Some(storage)) = (resource.conversion, &resource.storage) else {
        return object.json().clone();
    };
    let decoded = schema::decode_json(storage.ty, object.json(), schema::FieldValidation::Ignore);
    let Ok(decoded) = decoded else {
        tracing::error!(key = %object.header().key(), "a cached object does not fit its kind");
        return object.json().clone();
    };
    encode(resource.ty, &resource.served_from(decoded.value))
}

/// Canonical JSON of a working form.
pub(crate) fn encode(ty: &schema::Type, value: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    schema::encode_json(ty, value, &mut out);
    out.into()
}

/// An answer with one object.
pub(crate) fn object(
    code: StatusCode,
    resource: &Resource,
    object: &Object,
    form: Form,
    options: TableOptions,
) -> Response<Body> {
    let json = versioned(resource, object);
    match form.shape {
        Shape::Object => bytes(code, &resource.gvk, json, form),
        Shape::Metadata => {
            value(code, &metadata_kind(form, ""), &metadata(resource, &json, form), form)
        }
        Shape::Table => {
            let meta = ListMeta { resource_version: version_text(object), ..ListMeta::default() };
            let table = table::of(resource, &[json], &meta.json(), form, options, true);
            value(code, &metadata_kind(form, "Table"), &table, form)
        }
    }
}

/// An answer with JSON of a kind that is already encoded.
pub(crate) fn bytes(
    code: StatusCode,
    gvk: &GroupVersionKind,
    json: Bytes,
    form: Form,
) -> Response<Body> {
    match form.encoding {
        Encoding::Json => {
            let chunks = VecDeque::from([json, Bytes::from_static(b"\n")]);
            respond(code, form.content_type(), Body::chunks(chunks))
        }
        _ => match serde_json::from_slice(&json) {
            Ok(parsed) => value(code, gvk, &parsed, form),
            Err(error) => status(&crate::errors::internal(error), Form::JSON),
        },
    }
}

/// An answer with a working form of a built-in kind, or with plain JSON.
pub(crate) fn value(
    code: StatusCode,
    gvk: &GroupVersionKind,
    value: &Value,
    form: Form,
) -> Response<Body> {
    let ty = schema::registry().kind(gvk);
    let body = match form.encoding {
        Encoding::Protobuf if ty.is_some() => schema::encode_protobuf(gvk, value).into(),
        Encoding::Yaml => yaml(value),
        Encoding::PrettyJson => {
            let mut text = pretty(&canonical(ty, value));
            text.push(b'\n');
            text.into()
        }
        Encoding::Json | Encoding::Protobuf => {
            let mut text = canonical(ty, value);
            text.push(b'\n');
            text.into()
        }
    };
    let form = if ty.is_none() && form.encoding == Encoding::Protobuf { Form::JSON } else { form };
    respond(code, form.content_type(), body)
}

/// A failure, or a success without an object.
pub(crate) fn status(status: &Status, form: Form) -> Response<Body> {
    let code = match status.code {
        0 => StatusCode::OK,
        code => StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let text = match serde_json::to_value(status) {
        Ok(text) => text,
        Err(error) => json!({"kind": "Status", "message": error.to_string()}),
    };
    let mut response = match form.encoding {
        // The struct's own field order is upstream's.
        Encoding::Json => {
            let mut bytes = serde_json::to_vec(status).unwrap_or_default();
            bytes.push(b'\n');
            respond(code, form.content_type(), bytes.into())
        }
        _ => value(code, &GroupVersionKind::new("", "v1", "Status"), &text, form),
    };
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert("retry-after", HeaderValue::from(retry));
    }
    response
}

/// An answer with a list.
pub(crate) fn list(
    resource: &Resource,
    objects: &[std::sync::Arc<Object>],
    meta: &ListMeta,
    form: Form,
    options: TableOptions,
) -> Response<Body> {
    let items = objects.iter().map(|object| versioned(resource, object));
    let gvk = GroupVersionKind { kind: resource.list_kind(), ..resource.gvk.clone() };
    let is_custom = resource.custom.is_some();
    match (form.shape, form.encoding) {
        (Shape::Object, Encoding::Json) => {
            let chunks = list_chunks(&gvk, items, resource.head, &meta.text(is_custom));
            respond(StatusCode::OK, form.content_type(), Body::chunks(chunks))
        }
        (Shape::Object, _) => {
            let parsed = items.filter_map(|json| serde_json::from_slice::<Value>(&json).ok());
            // Of custom resources each item says what it is.
            let bare = |object| if is_custom { object } else { without_kind(object) };
            let items = parsed.map(bare).collect::<Vec<_>>();
            let mut list = json!({"kind": gvk.kind, "apiVersion": gvk.group_version().to_string(),
                "metadata": meta.json(), "items": items});
            if is_custom && meta.continue_token.is_empty() {
                list["metadata"]["continue"] = json!("");
            }
            value(StatusCode::OK, &gvk, &list, form)
        }
        (Shape::Metadata, _) => {
            let items: Vec<Value> = items.map(|json| metadata(resource, &json, form)).collect();
            let gvk = metadata_kind(form, "PartialObjectMetadataList");
            let list = json!({"kind": gvk.kind, "apiVersion": gvk.group_version().to_string(),
                "metadata": meta.json(), "items": items});
            value(StatusCode::OK, &gvk, &list, form)
        }
        (Shape::Table, _) => {
            let items: Vec<Bytes> = items.collect();
            let table = table::of(resource, &items, &meta.json(), form, options, true);
            value(StatusCode::OK, &metadata_kind(form, "Table"), &table, form)
        }
    }
}

/// The pieces of a JSON list: the items are shared with the cache.
pub(crate) fn list_chunks(
    gvk: &GroupVersionKind,
    items: impl Iterator<Item = Bytes>,
    head: usize,
    meta: &str,
) -> VecDeque<Bytes> {
    let start = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{},"items":["#,
        gvk.kind,
        gvk.group_version(),
        meta
    );
    let mut chunks = VecDeque::from([Bytes::from(start)]);
    for (index, item) in items.enumerate() {
        chunks.push_back(Bytes::from_static(if index == 0 { b"{" } else { b",{" }));
        chunks.push_back(item.slice(head.min(item.len())..));
    }
    chunks.push_back(Bytes::from_static(b"]}\n"));
    chunks
}

/// An object in the shape wanted in a watch: its bytes, and the kind they are of.
pub(crate) fn watched(
    resource: &Resource,
    object: &Object,
    form: Form,
    options: TableOptions,
    is_first: bool,
) -> (GroupVersionKind, Bytes) {
    let json = versioned(resource, object);
    match form.shape {
        Shape::Object => (resource.gvk.clone(), json),
        Shape::Metadata => {
            let gvk = metadata_kind(form, "");
            let value = metadata(resource, &json, form);
            let text = canonical(schema::registry().kind(&gvk), &value);
            (gvk, text.into())
        }
        Shape::Table => {
            let meta = ListMeta { resource_version: version_text(object), ..ListMeta::default() };
            let table = table::of(resource, &[json], &meta.json(), form, options, is_first);
            let gvk = metadata_kind(form, "Table");
            let text = canonical(schema::registry().kind(&gvk), &table);
            (gvk, text.into())
        }
    }
}

/// An annotation that upstream has as a field while it works on the object, so that it is missing
/// where only the metadata is shown.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// `PartialObjectMetadata` of an object.
pub(crate) fn metadata(resource: &Resource, json: &[u8], form: Form) -> Value {
    let metadata = splice::metadata(json).and_then(|raw| serde_json::from_slice(raw).ok());
    let mut metadata: Value = metadata.unwrap_or_else(|| json!({}));
    if resource.gvk.kind == "DaemonSet"
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(TEMPLATE_GENERATION);
        if annotations.is_empty() {
            crate::strategy::remove(&mut metadata, "annotations");
        }
    }
    let gvk = metadata_kind(form, "");
    json!({"kind": gvk.kind, "apiVersion": gvk.group_version().to_string(), "metadata": metadata})
}

fn metadata_kind(form: Form, kind: &str) -> GroupVersionKind {
    let kind = if kind.is_empty() { "PartialObjectMetadata" } else { kind };
    GroupVersionKind::new("meta.k8s.io", if form.is_v1beta1 { "v1beta1" } else { "v1" }, kind)
}

fn version_text(object: &Object) -> String {
    match object.header().resource_version.0 {
        0 => String::new(),
        version => version.to_string(),
    }
}

fn without_kind(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

fn canonical(ty: Option<&schema::Type>, value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    match ty {
        Some(ty) => schema::encode_json(ty, value, &mut out),
        None => schema::encode_untyped(value, &mut out),
    }
    out
}

/// Indented by two spaces, as upstream does it, in the order of the text.
fn pretty(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut is_string = false;
    let mut at = 0;
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * 2, b' ');
    };
    while let Some(&byte) = json.get(at) {
        at += 1;
        if is_string {
            out.push(byte);
            match byte {
                b'\\' => {
                    out.extend(json.get(at));
                    at += 1;
                }
                b'"' => is_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => {
                is_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                let is_empty = matches!(json.get(at), Some(b'}' | b']'));
                if is_empty {
                    out.extend(json.get(at));
                    at += 1;
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out
}

fn yaml(value: &Value) -> Body {
    serde_saphyr::to_string(value).unwrap_or_default().into_bytes().into()
}

/// An answer with a body of a type.
pub(crate) fn respond(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_json_keeps_the_order() {
        let text = pretty(br#"{"b":[1,{"x":"a,{"}],"a":{}}"#);
        let expected =
            "{\n  \"b\": [\n    1,\n    {\n      \"x\": \"a,{\"\n    }\n  ],\n  \"a\": {}\n}";
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
    }

    #[test]
    fn a_list_shares_the_bytes_of_its_items() {
        let item = Bytes::from_static(br#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#);
        let head = r#"{"kind":"Pod","apiVersion":"v1","#.len();
        let meta = ListMeta { resource_version: "7".into(), ..ListMeta::default() };
        let gvk = GroupVersionKind::new("", "v1", "PodList");
        let chunks = list_chunks(&gvk, [item.clone(), item].into_iter(), head, &meta.text(false));
        let text: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
        assert_eq!(
            std::str::from_utf8(&text).unwrap().trim_end(),
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{}},{"metadata":{}}]}"#
        );
    }
}
