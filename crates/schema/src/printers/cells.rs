//! What cells are made of.

use jiff::Timestamp;
use meta::{LabelSelector, time};
use serde_json::{Value, json};

/// The text at a JSON pointer, or empty.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The text at a JSON pointer, or something else when it is empty.
pub(super) fn text_or<'a>(object: &'a Value, pointer: &str, empty: &'a str) -> &'a str {
    match text(object, pointer) {
        "" => empty,
        text => text,
    }
}

/// The integer at a JSON pointer, or 0.
pub(super) fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether there is `true` at a JSON pointer.
pub(super) fn is_true(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(true))
}

/// The items of the list at a JSON pointer.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many members the map or items the list at a JSON pointer has.
pub(super) fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

/// The texts of a list, joined.
pub(super) fn joined(object: &Value, pointer: &str, separator: &str) -> String {
    let texts: Vec<&str> = list(object, pointer).iter().filter_map(Value::as_str).collect();
    texts.join(separator)
}

/// A text that may be empty, or else `<none>`.
pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

pub(super) fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

pub(super) fn created(object: &Value) -> &str {
    text(object, "/metadata/creationTimestamp")
}

/// The age of the object.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(created(object), now))
}

/// How long ago a printed time was; `<unknown>` when there is none.
pub(super) fn since(at: &str, now: Timestamp) -> String {
    match time::parse(at) {
        Ok(at) => human_duration(now.as_second() - at.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Seconds as people like to read them: `5m`, `3d4h`; coarser the longer.
///
/// Upstream: `apimachinery/pkg/util/duration`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |a: i64, big: &str, b: i64, small: &str| match b {
        0 => format!("{a}{big}"),
        _ => format!("{a}{big}{b}{small}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

/// A map of labels as `a=b,c=d`.
pub(super) fn labels(object: &Value, pointer: &str) -> String {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let pairs: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    or_none(pairs.join(","))
}

/// A label selector in its text form.
pub(super) fn selector(object: &Value, pointer: &str) -> String {
    match LabelSelector::from_object(object.pointer(pointer)) {
        Ok(selector) => or_none(selector.to_string()),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of the containers of a pod spec.
pub(super) fn containers(object: &Value, pointer: &str) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let items = list(object, pointer).iter();
        let texts: Vec<&str> = items.filter_map(|item| item.get(field)?.as_str()).collect();
        json!(texts.join(","))
    })
}

/// `True`, `False` or `<unset>` at a JSON pointer.
pub(super) fn bool_text(object: &Value, pointer: &str) -> &'static str {
    match object.pointer(pointer).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

/// An integer, percentage or text at a JSON pointer.
pub(super) fn scalar(object: &Value, pointer: &str, absent: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => absent.to_owned(),
        Some(other) => other.to_string(),
    }
}
