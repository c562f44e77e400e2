//! Named formats.
//!
//! Upstream: `apiserver/pkg/cel/library/format.go`.

use meta::names;

use super::{OpaqueValue, no_overload, only_text, time};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        format_named: format.named(string) -> optional(format)
        format_validate: <format>.validate(string) -> optional(list(string))
        dns1123Label: format.dns1123Label() -> format
        dns1123Subdomain: format.dns1123Subdomain() -> format
        dns1035Label: format.dns1035Label() -> format
        qualifiedName: format.qualifiedName() -> format
        dns1123LabelPrefix: format.dns1123LabelPrefix() -> format
        dns1123SubdomainPrefix: format.dns1123SubdomainPrefix() -> format
        dns1035LabelPrefix: format.dns1035LabelPrefix() -> format
        labelValue: format.labelValue() -> format
        uri: format.uri() -> format
        uuid: format.uuid() -> format
        byte: format.byte() -> format
        date: format.date() -> format
        datetime: format.datetime() -> format
    ",
    functions: &[
        ("format.named", |args| {
            let name = only_text(args)?;
            let found = FORMATS.iter().find(|format| format.name == name);
            Ok(found.map_or(Value::Optional(None), |format| Value::some(value(format))))
        }),
        ("validate", validate),
        ("format.dns1123Label", |_| known(0)),
        ("format.dns1123Subdomain", |_| known(1)),
        ("format.dns1035Label", |_| known(2)),
        ("format.qualifiedName", |_| known(3)),
        ("format.dns1123LabelPrefix", |_| known(4)),
        ("format.dns1123SubdomainPrefix", |_| known(5)),
        ("format.dns1035LabelPrefix", |_| known(6)),
        ("format.labelValue", |_| known(7)),
        ("format.uri", |_| known(8)),
        ("format.uuid", |_| known(9)),
        ("format.byte", |_| known(10)),
        ("format.date", |_| known(11)),
        ("format.datetime", |_| known(12)),
    ],
};

/// A format.
#[derive(Debug)]
pub struct Format {
    pub(super) name: &'static str,
    /// What is wrong with a text.
    check: fn(&str) -> Vec<String>,
}

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", check: names::dns1123_label },
    Format { name: "dns1123Subdomain", check: names::dns1123_subdomain },
    Format { name: "dns1035Label", check: names::dns1035_label },
    Format { name: "qualifiedName", check: names::qualified_name },
    Format { name: "dns1123LabelPrefix", check: |text| names::dns1123_label(&prefix(text)) },
    Format {
        name: "dns1123SubdomainPrefix",
        check: |text| names::dns1123_subdomain(&prefix(text)),
    },
    Format { name: "dns1035LabelPrefix", check: |text| names::dns1035_label(&prefix(text)) },
    Format { name: "labelValue", check: names::label_value },
    Format {
        name: "uri",
        check: |text| match super::urls::problem(text) {
            Some(why) => vec![format!("parse {text:?}: {why}")],
            None => Vec::new(),
        },
    },
    Format { name: "uuid", check: |text| unless(is_uuid(text), "does not match the UUID format") },
    Format { name: "byte", check: |text| unless(is_base64(text), "invalid base64") },
    Format {
        name: "date",
        check: |text| {
            unless(text.len() == 10 && time::parse_declared(text).is_some(), "invalid date")
        },
    },
    Format {
        name: "datetime",
        check: |text| unless(time::parse_timestamp(text).is_some(), "invalid datetime"),
    },
];

/// A prefix may end in a dash, to which more is added.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.to_owned(),
    }
}

fn unless(is_good: bool, why: &str) -> Vec<String> {
    if is_good { Vec::new() } else { vec![why.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| *c != '-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    compact.len() == 32
        && compact.bytes().all(|b| b.is_ascii_hexdigit())
        && (groups == [32] || groups == [8, 4, 4, 4, 12])
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn value<'a>(format: &'static Format) -> Value<'a> {
    Value::opaque(OpaqueValue::Format(format))
}

fn known<'a>(at: usize) -> Outcome<Value<'a>> {
    Ok(value(&FORMATS[at]))
}

/// What is wrong with a text; nothing when it is of the format.
fn validate<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Opaque(format), Value::String(text)] = args else { return no_overload() };
    let OpaqueValue::Format(format) = &**format else {
        return Err(EvaluationError::NoSuchOverload);
    };
    let wrong = (format.check)(text);
    if wrong.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(wrong.into_iter().map(Value::string).collect())))
}
