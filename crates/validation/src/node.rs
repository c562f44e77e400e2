//! A place in an object: a value and the path to it.

use serde_json::{Map, Value};

use crate::{FieldError, Path};

/// What validation collects.
pub(crate) type Findings = Vec<FieldError>;

static NULL: Value = Value::Null;

/// A value in an object, with its path; absent values are null.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: Path,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, path: Path::default() }
    }

    pub(crate) fn get(&self, field: &'static str) -> Node<'a> {
        Node { value: self.value.get(field).unwrap_or(&NULL), path: self.path.child(field) }
    }

    /// The same value, reported under another path.
    pub(crate) fn under(&self, path: Path) -> Node<'a> {
        Node { value: self.value, path }
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(at, value)| Node { value, path: path.index(at) })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> + use<'a> {
        let path = self.path.clone();
        let map: Option<&Map<String, Value>> = self.value.as_object();
        map.into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), Node { value, path: path.key(key) }))
    }

    pub(crate) fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    pub(crate) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    pub(crate) fn int(&self) -> i64 {
        self.value.as_i64().unwrap_or(0)
    }

    pub(crate) fn is_true(&self) -> bool {
        *self.value == Value::Bool(true)
    }

    /// Reports each message as an invalid value here.
    pub(crate) fn invalid_each(&self, messages: Vec<String>, out: &mut Findings) {
        // Only texts have such messages, and an absent text is an empty one.
        let value = if self.is_set() { self.value.clone() } else { Value::from("") };
        let finding = |text| FieldError::invalid(&self.path, value.clone(), text);
        out.extend(messages.into_iter().map(finding));
    }

    pub(crate) fn invalid(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path, self.value.clone(), detail)
    }

    pub(crate) fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(&self.path, detail)
    }

    /// Reports a missing text; whether it is there.
    pub(crate) fn require(&self, out: &mut Findings) -> bool {
        let missing = self.value.is_null() || self.value == "";
        if missing {
            out.push(FieldError::required(&self.path, ""));
        }
        !missing
    }

    /// Must be set and one of these.
    pub(crate) fn require_one_of(&self, supported: &[&str], out: &mut Findings) {
        if self.require(out) {
            self.one_of(supported, out);
        }
    }

    /// If set, one of these; they are printed in this order.
    pub(crate) fn one_of(&self, supported: &[&str], out: &mut Findings) {
        let text = self.text();
        if self.is_set() && !supported.contains(&text) {
            out.push(FieldError::not_supported(&self.path, text, supported));
        }
    }

    pub(crate) fn non_negative(&self, out: &mut Findings) {
        if self.int() < 0 {
            out.push(self.invalid("must be greater than or equal to 0"));
        }
    }

    pub(crate) fn port_number(&self, out: &mut Findings) {
        if !(1..=65535).contains(&self.int()) {
            let value = self.int();
            let detail = "must be between 1 and 65535, inclusive";
            out.push(FieldError::invalid(&self.path, value, detail));
        }
    }

    /// A port number or the name of a port.
    pub(crate) fn port_or_name(&self, out: &mut Findings) {
        match self.value {
            Value::String(name) if name.is_empty() => {
                out.push(self.invalid("must contain at least one letter (a-z)"));
            }
            Value::String(name) => self.invalid_each(meta::names::port_name(name), out),
            _ => self.port_number(out),
        }
    }

    /// A DNS subdomain; empty is none.
    pub(crate) fn subdomain(&self, out: &mut Findings) {
        self.invalid_each(meta::names::dns1123_subdomain(self.text()), out);
    }

    /// A DNS label; empty is none.
    pub(crate) fn label(&self, out: &mut Findings) {
        self.invalid_each(meta::names::dns1123_label(self.text()), out);
    }

    /// Set, and a DNS subdomain.
    pub(crate) fn require_subdomain(&self, out: &mut Findings) {
        if self.require(out) {
            self.subdomain(out);
        }
    }

    /// Set, and a DNS label.
    pub(crate) fn require_label(&self, out: &mut Findings) {
        if self.require(out) {
            self.label(out);
        }
    }

    /// At most this many items.
    pub(crate) fn at_most(&self, max: usize, out: &mut Findings) {
        if self.len() > max {
            out.push(FieldError::too_many(&self.path, self.len(), max));
        }
    }

    /// At most this many bytes.
    pub(crate) fn no_longer_than(&self, max: usize, out: &mut Findings) {
        if self.text().len() > max {
            out.push(FieldError::too_long(&self.path, max));
        }
    }

    /// The findings of an invalid number; an absent one is zero.
    pub(crate) fn invalid_int(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path, self.int(), detail)
    }

    /// The finding of an invalid text; an absent one is empty.
    pub(crate) fn invalid_text(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path, self.text(), detail)
    }

    /// Must not differ from the old value, which is a text.
    pub(crate) fn immutable_text(&self, old: &Node<'_>, out: &mut Findings) {
        if self.text() != old.text() {
            out.push(self.invalid_text("field is immutable"));
        }
    }

    /// Must not differ from the old value, which is printed as the internal form of a type.
    pub(crate) fn immutable_as(&self, ty: &str, old: &Node<'_>, out: &mut Findings) {
        if self.value == old.value {
            return;
        }
        // A spec is no pointer: what is unset is a spec with nothing in it.
        let is_empty_spec = !self.is_set() && ty.ends_with("Spec");
        let value = if is_empty_spec { serde_json::json!({}) } else { self.value.clone() };
        out.push(FieldError::invalid(&self.path, value, "field is immutable").shown_as(ty));
    }

    /// Must not differ from the old value.
    pub(crate) fn immutable(&self, old: &Node<'_>, out: &mut Findings) {
        if self.value != old.value {
            out.push(self.invalid("field is immutable"));
        }
    }
}
