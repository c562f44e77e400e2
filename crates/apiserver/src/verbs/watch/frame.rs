//! The bytes of watch events.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use super::Item;
use crate::negotiate::{Encoding, Form, Shape};
use crate::render::{self, TableOptions};
use crate::resources::Resource;
use cache::Batch;

/// How a watcher wants its events.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    pub(super) form: Form,
    pub(super) options: TableOptions,
}

/// The bytes of what a watch hands out. `is_first` as no event has been sent yet: tables begin with
/// their columns.
pub(super) fn write(resource: &Resource, item: &Item, manner: Manner, is_first: bool) -> Bytes {
    let Manner { form, .. } = manner;
    let mut out = BytesMut::new();
    match item {
        Item::Changes(batch) if form.shape != Shape::Table => {
            return batch.written((form.number(), &resource.gvk), || {
                changes(resource, batch, manner, is_first, &mut out);
                out.freeze()
            });
        }
        Item::Changes(batch) => changes(resource, batch, manner, is_first, &mut out),
        Item::Bookmark { revision, ends_initial } => {
            let object = bookmark(resource, *revision, *ends_initial);
            let (gvk, json) = match form.shape {
                Shape::Object => (resource.gvk.clone(), object),
                _ => match meta::Object::from_json(object.clone()) {
                    Ok(object) => {
                        render::watched(resource, &object, form, manner.options, is_first)
                    }
                    Err(_) => (resource.gvk.clone(), object),
                },
            };
            event("BOOKMARK", &gvk, &json, form, &mut out);
        }
        Item::Failed(status) => {
            let gvk = meta::GroupVersionKind::new("", "v1", "Status");
            let json = serde_json::to_vec(status).unwrap_or_default();
            event("ERROR", &gvk, &json, form, &mut out);
        }
    }
    out.freeze()
}

fn changes(
    resource: &Resource,
    batch: &Batch,
    Manner { form, options }: Manner,
    mut is_first: bool,
    out: &mut BytesMut,
) {
    if form.encoding != Encoding::Protobuf {
        let bytes = |change: &cache::Selected| change.object().json().len() + 64;
        out.reserve(batch.changes.iter().map(bytes).sum());
    }
    for change in &batch.changes {
        let (gvk, json) = render::watched(resource, change.object(), form, options, is_first);
        event(change.word(), &gvk, &json, form, out);
        is_first = false;
    }
}

fn event(word: &str, gvk: &meta::GroupVersionKind, json: &[u8], form: Form, out: &mut BytesMut) {
    if form.encoding == Encoding::Protobuf {
        return protobuf_frame(word, gvk, json, out);
    }
    out.reserve(json.len() + 48);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(word.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(json);
    out.put_slice(b"}\n");
}

fn bookmark(resource: &Resource, revision: u64, ends_initial: bool) -> Bytes {
    let mut object = json!({
        "kind": resource.gvk.kind,
        "apiVersion": resource.gvk.group_version().to_string(),
        "metadata": {"resourceVersion": revision.to_string()},
    });
    if ends_initial {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    render::encode(resource.ty, &object)
}

/// A length, then `WatchEvent { type = 1, object = 2 { raw = 1 } }`.
fn protobuf_frame(word: &str, gvk: &meta::GroupVersionKind, json: &[u8], out: &mut BytesMut) {
    let value = serde_json::from_slice(json).unwrap_or_default();
    let raw = schema::encode_protobuf(gvk, &value);
    let mut extension = Vec::with_capacity(raw.len() + 8);
    put_field(&mut extension, 1, &raw);
    let mut event = Vec::with_capacity(extension.len() + 32);
    put_field(&mut event, 1, word.as_bytes());
    put_field(&mut event, 2, &extension);
    out.reserve(event.len() + 4);
    out.put_u32(u32::try_from(event.len()).unwrap_or(u32::MAX));
    out.put_slice(&event);
}

fn put_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend_from_slice(bytes);
}
