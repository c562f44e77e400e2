//! Watch events from the bytes of an answer: one JSON object per line.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use meta::{Object, Status, WatchEvent};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ClientError;

/// The longest line that is accepted: an object is at most 3 MiB in a request, and escaping or
/// server-side additions may make it somewhat longer.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Collects bytes and gives whole events.
#[derive(Default)]
pub(crate) struct WatchDecoder {
    buffer: BytesMut,
    searched: usize,
}

impl WatchDecoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, or `None` when more bytes are needed.
    pub(crate) fn next_event(&mut self) -> Result<Option<WatchEvent>, ClientError> {
        loop {
            let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                if self.searched > LINE_BYTES_MAX {
                    return Err(ClientError::TooLarge { limit: LINE_BYTES_MAX });
                }
                return Ok(None);
            };
            let line = self.buffer.split_to(self.searched + at).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            if !line.is_empty() {
                return decode_line(&line).map(Some);
            }
        }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    metadata: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

fn decode_line(line: &Bytes) -> Result<WatchEvent, ClientError> {
    // What is laid out in another way is no object there, and is read as any JSON is.
    if let Some((kind, json)) = usual_parts(line)
        && let Ok(event) = decode_event(kind, json)
    {
        return Ok(event);
    }
    let parsed: Line<'_> = serde_json::from_slice(line).map_err(ClientError::decode)?;
    decode_event(parsed.kind, line.slice_ref(parsed.object.get().as_bytes()))
}

/// Type and object of a line as servers write it: nothing but these, in this order. Thus the object
/// is read once only, by whoever decodes it.
fn usual_parts(line: &Bytes) -> Option<(&str, Bytes)> {
    let rest = line.strip_prefix(br#"{"type":""#)?;
    let kind = rest.split(|byte| *byte == b'"').next()?;
    let object = rest[kind.len()..].strip_prefix(br#"","object":"#)?.strip_suffix(b"}")?;
    Some((str::from_utf8(kind).ok()?, line.slice_ref(object)))
}

fn decode_event(kind: &str, json: Bytes) -> Result<WatchEvent, ClientError> {
    if kind == "ERROR" {
        let status: Status = serde_json::from_slice(&json).map_err(ClientError::decode)?;
        return Err(status.into());
    }
    let object = Object::from_json(json).map_err(ClientError::decode)?;
    match kind {
        "ADDED" => Ok(WatchEvent::Added(Arc::new(object))),
        "MODIFIED" => Ok(WatchEvent::Modified(Arc::new(object))),
        "DELETED" => Ok(WatchEvent::Deleted(Arc::new(object))),
        "BOOKMARK" => {
            let marks: Annotated =
                serde_json::from_slice(object.json()).map_err(ClientError::decode)?;
            let end = marks.metadata.annotations.get("k8s.io/initial-events-end");
            Ok(WatchEvent::Bookmark {
                resource_version: object.header().resource_version,
                initial_events_end: end.is_some_and(|value| value == "true"),
            })
        }
        other => Err(ClientError::decode(format!("unknown watch event type {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_across_chunks() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n"
        );
        let mut decoder = WatchDecoder::default();
        let mut events = Vec::new();
        for byte in text.as_bytes() {
            decoder.push(&[*byte]);
            events.extend(decoder.next_event().unwrap());
        }
        assert!(matches!(&events[0], WatchEvent::Added(o) if o.header().name == "a"));
        assert!(matches!(&events[1],
            WatchEvent::Bookmark { resource_version, initial_events_end: true }
            if resource_version.0 == 9));
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn the_parts_of_an_event_may_come_in_any_order() {
        for line in [
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}}}"#,
            r#"{ "type": "ADDED", "object": {"metadata":{"name":"a","resourceVersion":"3"}} }"#,
            r#"{"object":{"metadata":{"name":"a","resourceVersion":"3"}},"type":"ADDED"}"#,
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}},"x":{}}"#,
        ] {
            let event = decode_line(&Bytes::from_static(line.as_bytes())).unwrap();
            let WatchEvent::Added(object) = event else { panic!("{event:?}") };
            assert_eq!((&*object.header().name, object.header().resource_version.0), ("a", 3));
            let json = r#"{"metadata":{"name":"a","resourceVersion":"3"}}"#;
            assert_eq!(object.json(), json, "{line}");
        }
        for line in [r#"{"type":"ADDED","object":{"metadata":{}}"#, r#"{"type":"ADDED","object":"#]
        {
            assert!(decode_line(&Bytes::from_static(line.as_bytes())).is_err(), "{line}");
        }
    }

    #[test]
    fn an_error_event_is_an_error() {
        let mut decoder = WatchDecoder::default();
        decoder.push(br#"{"type":"ERROR","object":{"reason":"Expired","code":410}}"#);
        decoder.push(b"\n");
        assert!(decoder.next_event().unwrap_err().is_expired());
    }
}
