//! Events as text: JSON, or upstream's older format of one line.
//!
//! Upstream: `apiserver/pkg/audit/format.go`; objects are printed as Go prints JSON, with the
//! characters escaped that mean something in HTML.

use std::collections::BTreeMap;
use std::net::IpAddr;

use authn::UserInfo;
use jiff::Timestamp;
use jiff::tz::Offset;
use meta::{GroupVersion, GroupVersionKind};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::event::{Event, Level, Media, ObjectReference, Recorded, ResponseStatus};
use crate::options::{Format, TruncateOptions};

/// Upstream's mark on an event that has lost its objects.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// Why an event cannot be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrintError {
    /// There is something in it that cannot be printed.
    #[error("{0}")]
    Unprintable(String),
    /// It is larger than may be, whatever is left out.
    #[error("event is too large even after truncating")]
    TooLarge,
}

impl PrintError {
    /// The plugin that upstream counts it for.
    pub(crate) fn plugin(&self, own: &'static str) -> &'static str {
        match self {
            Self::Unprintable(_) => own,
            Self::TooLarge => "truncate",
        }
    }
}

/// Prints a line of a log, with its end.
pub(crate) fn line(
    event: &Event,
    format: Format,
    truncate: &TruncateOptions,
    out: &mut Vec<u8>,
) -> Result<(), PrintError> {
    match format {
        Format::Json => bounded(event, true, truncate, out)?,
        Format::Legacy => out.extend_from_slice(legacy(event).as_bytes()),
    }
    out.push(b'\n');
    Ok(())
}

/// Prints an item of a list.
pub(crate) fn item(
    event: &Event,
    truncate: &TruncateOptions,
    out: &mut Vec<u8>,
) -> Result<(), PrintError> {
    bounded(event, false, truncate, out)
}

/// Prints an event, and without its objects if it is too large with them.
fn bounded(
    event: &Event,
    names_kind: bool,
    truncate: &TruncateOptions,
    out: &mut Vec<u8>,
) -> Result<(), PrintError> {
    let begin = out.len();
    json(event, names_kind, out)?;
    if !truncate.enabled || out.len() - begin <= truncate.max_event_size {
        return Ok(());
    }
    out.truncate(begin);
    if event.level < Level::Request {
        return Err(PrintError::TooLarge);
    }
    let mut event = event.clone();
    (event.request_object, event.response_object) = (None, None);
    event.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
    json(&event, names_kind, out)?;
    if out.len() - begin > truncate.max_event_size {
        out.truncate(begin);
        return Err(PrintError::TooLarge);
    }
    Ok(())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: &'a UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a UserInfo>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Box<RawValue>>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

fn json(event: &Event, names_kind: bool, out: &mut Vec<u8>) -> Result<(), PrintError> {
    let print = |recorded: &Option<Recorded>| {
        let printed = object(recorded.as_ref()?, event.omits_managed_fields);
        // Whoever sends nonsense must not get away unrecorded.
        printed.inspect_err(|error| tracing::debug!(error, "an object is left out")).ok()
    };
    let facts = &event.facts;
    let printed = Printed {
        kind: names_kind.then_some("Event"),
        api_version: names_kind.then_some("audit.k8s.io/v1"),
        level: event.level.as_str(),
        audit_id: &facts.audit_id,
        stage: event.stage.as_str(),
        request_uri: &facts.request_uri,
        verb: &facts.verb,
        user: &facts.user,
        impersonated_user: event.impersonated_user.as_ref(),
        source_ips: &facts.source_ips,
        user_agent: &facts.user_agent,
        object_ref: event.object.as_ref(),
        response_status: event.response_status.as_ref(),
        request_object: print(&event.request_object),
        response_object: print(&event.response_object),
        request_received_timestamp: micro_time(facts.received),
        stage_timestamp: micro_time(event.stage_timestamp),
        annotations: &event.annotations,
    };
    let text = serde_json::to_vec(&printed).map_err(|e| PrintError::Unprintable(e.to_string()))?;
    escape(&text, out);
    Ok(())
}

/// As [`meta::time::rfc3339_micro`], without a format to be read: every event has two of them.
fn micro_time(time: Timestamp) -> String {
    let civil = Offset::UTC.to_datetime(time);
    let mut text = String::with_capacity("2006-01-02T15:04:05.000000Z".len());
    let mut put = |number: i32, digits: u32, end: char| {
        for place in (0..digits).rev() {
            let digit = number.unsigned_abs() / 10_u32.pow(place) % 10;
            text.push(char::from_digit(digit, 10).unwrap_or('0'));
        }
        text.push(end);
    };
    put(civil.year().into(), 4, '-');
    put(civil.month().into(), 2, '-');
    put(civil.day().into(), 2, 'T');
    put(civil.hour().into(), 2, ':');
    put(civil.minute().into(), 2, ':');
    put(civil.second().into(), 2, '.');
    put(civil.subsec_nanosecond() / 1000, 6, 'Z');
    text
}

/// Copies JSON with `<`, `>`, `&` and the two line separators of Unicode escaped. They only occur
/// within strings.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'<' | b'>' | b'&' | 0xe2)) {
        out.extend_from_slice(&rest[..at]);
        let (len, escaped): (usize, &[u8]) = match &rest[at..] {
            [b'<', ..] => (1, b"\\u003c"),
            [b'>', ..] => (1, b"\\u003e"),
            [b'&', ..] => (1, b"\\u0026"),
            [0xe2, 0x80, 0xa8, ..] => (3, b"\\u2028"),
            [0xe2, 0x80, 0xa9, ..] => (3, b"\\u2029"),
            _ => (1, &[0xe2]),
        };
        out.extend_from_slice(escaped);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
}

/// An object as JSON, whatever it was sent as.
fn object(recorded: &Recorded, omits_managed_fields: bool) -> Result<Box<RawValue>, String> {
    let bytes = recorded.chunks.concat();
    let names_managed_fields =
        || bytes.windows(b"managedFields".len()).any(|window| window == b"managedFields");
    let mut value = match recorded.media {
        Media::Json if !omits_managed_fields || !names_managed_fields() => return raw(bytes),
        Media::Json => serde_json::from_slice(&bytes).map_err(|error| error.to_string())?,
        Media::Yaml => schema::yaml_to_value(&bytes).map_err(|error| error.to_string())?.0,
        Media::Protobuf => {
            let decoded = schema::decode_protobuf(&bytes).map_err(|error| error.to_string())?;
            let (gvk, mut value) = decoded;
            value["kind"] = Value::from(gvk.kind.as_str());
            value["apiVersion"] = Value::from(gvk.group_version().to_string());
            value
        }
    };
    if omits_managed_fields {
        remove_managed_fields(&mut value);
    }
    let mut text = Vec::with_capacity(bytes.len());
    let word = |field: &str| value[field].as_str().unwrap_or_default();
    let version = GroupVersion::parse(word("apiVersion"));
    let gvk = version.map(|it| GroupVersionKind::new(&it.group, &it.version, word("kind")));
    match gvk.and_then(|gvk| schema::registry().kind(&gvk)) {
        // In the order in which such objects are answered.
        Some(ty) if recorded.media != Media::Yaml => schema::encode_json(ty, &value, &mut text),
        _ => schema::encode_untyped(&value, &mut text),
    }
    raw(text)
}

/// JSON without the space between its parts: a client may send an object on many lines, and an event
/// has one.
fn raw(mut bytes: Vec<u8>) -> Result<Box<RawValue>, String> {
    let (mut is_text, mut is_escaped) = (false, false);
    bytes.retain(|byte| {
        let begins_or_ends = *byte == b'"' && !is_escaped;
        is_escaped = is_text && *byte == b'\\' && !is_escaped;
        is_text ^= begins_or_ends;
        is_text || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
    });
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    RawValue::from_string(text).map_err(|error| error.to_string())
}

/// From an object, the items of a list, and the objects in a table.
fn remove_managed_fields(value: &mut Value) {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(value);
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    if let Some(rows) = value.get_mut("rows").and_then(Value::as_array_mut) {
        rows.iter_mut().filter_map(|row| row.get_mut("object")).for_each(strip);
    }
}

/// The one line of `--audit-log-format=legacy`, without its end.
pub(crate) fn legacy(event: &Event) -> String {
    let quoted =
        |list: &[String]| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(",");
    let facts = &event.facts;
    let (mut user, mut groups) = ("<none>", "<none>".to_owned());
    if !facts.user.name.is_empty() {
        user = &facts.user.name;
        if !facts.user.groups.is_empty() {
            groups = quoted(&facts.user.groups);
        }
    }
    let (mut other, mut other_groups) = ("<self>", "<lookup>".to_owned());
    if let Some(impersonated) = &event.impersonated_user {
        other = &impersonated.name;
        if !impersonated.groups.is_empty() {
            other_groups = quoted(&impersonated.groups);
        }
    }
    let namespace = event.object.as_ref().map(|object| object.namespace.as_str());
    let namespace = namespace.filter(|name| !name.is_empty()).unwrap_or("<none>");
    let code = event.response_status.as_ref().map(|status| status.code.to_string());
    let code = code.unwrap_or_else(|| "<deferred>".to_owned());
    let ip = facts.source_ips.first().map(ToString::to_string);
    let ip = ip.unwrap_or_else(|| "<unknown>".to_owned());
    format!(
        "{} AUDIT: id={:?} stage={:?} ip={ip:?} method={:?} user={user:?} groups={groups:?} \
         as={other:?} asgroups={other_groups:?} user-agent={:?} namespace={namespace:?} uri={:?} \
         response={code:?}",
        facts.received,
        facts.audit_id,
        event.stage.as_str(),
        facts.verb,
        facts.user_agent,
        facts.request_uri,
    )
}

#[cfg(test)]
mod tests;
