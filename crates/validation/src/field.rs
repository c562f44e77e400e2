//! Findings about fields, worded as upstream words them.

use std::fmt;
use std::sync::Arc;

use meta::Cause;
use serde_json::Value;

use crate::printed;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// A reference to what is not there.
    NotFound,
    /// A value is missing.
    Required,
    /// A value that must be unique is not.
    Duplicate,
    /// A value is not allowed.
    Invalid,
    /// A value is none of those allowed.
    NotSupported,
    /// A value may not be set here, or not changed.
    Forbidden,
    /// A value is too long.
    TooLong,
    /// There are too many items.
    TooMany,
    /// There are too few items.
    TooFew,
    /// A value is too short.
    TooShort,
    /// A value has the wrong type.
    TypeInvalid,
    /// Something else went wrong.
    Internal,
}

impl ErrorType {
    /// How the finding starts.
    fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::TooFew => "Too few",
            ErrorType::TooShort => "Too short",
            ErrorType::Internal => "Internal error",
        }
    }

    /// The word in the causes of a status.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::TooFew => "FieldValueTooFew",
            ErrorType::TooShort => "FieldValueTooShort",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
            ErrorType::Internal => "InternalError",
        }
    }

    fn prints_value(self) -> bool {
        !matches!(
            self,
            ErrorType::Required
                | ErrorType::Forbidden
                | ErrorType::TooLong
                | ErrorType::TooShort
                | ErrorType::Internal
        )
    }
}

/// The path of a field, such as `spec.containers[0].name`.
///
/// A chain of steps that share their beginnings: validation makes many paths and prints few. The
/// last fields stand in the path itself, so that to look at a field of an object allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Path {
    before: Option<Arc<Step>>,
    fields: [&'static str; INLINE],
    /// How many of these there are.
    count: usize,
}

/// Fields that a path has room for.
const INLINE: usize = 3;

#[derive(Debug)]
struct Step {
    before: Path,
    name: Name,
}

#[derive(Debug)]
enum Name {
    /// Only what is before.
    None,
    Index(usize),
    Key(Box<str>),
    Text(Box<str>),
}

impl Path {
    /// The path of a top-level field; dots are allowed.
    pub fn new(name: &'static str) -> Self {
        Self::default().child(name)
    }

    /// A field in it; dots are allowed.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        let mut path = match self.count {
            INLINE => self.shared(),
            _ => self.clone(),
        };
        path.fields[path.count] = name;
        path.count += 1;
        path
    }

    /// A field in it whose name comes from data; dots are allowed.
    #[must_use]
    pub fn member(&self, name: &str) -> Self {
        self.then(Name::Text(name.into()))
    }

    /// A field in it that is known by its text.
    pub(crate) fn new_in(parent: &Self, name: &str) -> Self {
        parent.then(Name::Text(name.into()))
    }

    /// An item of the list it is.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Name::Index(index))
    }

    /// A value of the map it is.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.then(Name::Key(key.into()))
    }

    /// The same path with room for more fields.
    fn shared(&self) -> Self {
        self.then(Name::None)
    }

    fn then(&self, name: Name) -> Self {
        let step = Step { before: self.clone(), name };
        Self { before: Some(Arc::new(step)), ..Self::default() }
    }

    fn print(&self, out: &mut String) {
        if let Some(step) = &self.before {
            step.print(out);
        }
        for name in &self.fields[..self.count] {
            push_member(name, out);
        }
    }
}

impl Step {
    fn print(&self, out: &mut String) {
        self.before.print(out);
        match &self.name {
            Name::None => {}
            Name::Text(name) => push_member(name, out),
            Name::Index(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
            Name::Key(key) => {
                out.push('[');
                out.push_str(key);
                out.push(']');
            }
        }
    }
}

fn push_member(name: &str, out: &mut String) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Path {}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.print(&mut out);
        // An object as a whole is what upstream calls a field without a name.
        f.write_str(if out.is_empty() { "[]" } else { &out })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub error_type: ErrorType,
    /// Where.
    pub path: Path,
    /// The value found.
    pub value: Value,
    /// More words; may be empty.
    pub detail: String,
    /// The value as upstream prints it, where that is not the JSON of the API.
    shown: Option<String>,
}

impl FieldError {
    fn new(error_type: ErrorType, path: &Path, value: Value, detail: impl Into<String>) -> Self {
        Self { error_type, path: path.clone(), value, detail: detail.into(), shown: None }
    }

    /// The value is printed as the internal form of a type, such as `core/v1.Taint`, or of a list
    /// of it.
    #[must_use]
    pub(crate) fn shown_as(mut self, ty: &str) -> Self {
        if !ty.is_empty() {
            self.shown = Some(printed::compact(ty, &self.value));
        }
        self
    }

    /// The value is not printed.
    #[must_use]
    pub fn without_value(mut self) -> Self {
        self.shown = Some(String::new());
        self
    }

    /// With other words.
    #[must_use]
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// A missing value.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, path, Value::Null, detail)
    }

    /// A value that is not allowed.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, path, value.into(), detail)
    }

    /// The same finding about the type of the value.
    #[must_use]
    pub fn of_wrong_type(mut self) -> Self {
        self.error_type = ErrorType::TypeInvalid;
        self
    }

    /// A value that is none of `supported`; they are printed in the order given.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(ErrorType::NotSupported, path, value.into(), detail)
    }

    /// A value that may not be set or changed.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, path, Value::Null, detail)
    }

    /// A repeated value.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::Duplicate, path, value.into(), "")
    }

    /// A reference to what is not there.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::NotFound, path, value.into(), "")
    }

    /// A value of more than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(ErrorType::TooLong, path, Value::Null, detail)
    }

    /// More than `max` items.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {items}");
        Self::new(ErrorType::TooMany, path, Value::from(actual), detail)
    }

    /// The finding without its path, as it stands in a cause.
    pub fn body(&self) -> String {
        let mut out = self.error_type.text().to_owned();
        let shown = self.shown.clone().unwrap_or_else(|| quoted(&self.value));
        if self.error_type.prints_value() && !shown.is_empty() {
            out.push_str(": ");
            out.push_str(&shown);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }

    /// The finding as a cause of a status.
    pub fn cause(&self) -> Cause {
        Cause {
            reason: self.error_type.reason().to_owned(),
            message: self.body(),
            field: self.path.to_string(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// A value as upstream prints it in a finding: strings quoted, the rest as JSON.
fn quoted(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => go_quoted(text),
        Value::Array(items) if !items.is_empty() => {
            let items: Vec<String> = items.iter().map(quoted).collect();
            format!("[{}]", items.join(","))
        }
        other => {
            let mut out = Vec::new();
            match other.as_object().and_then(struct_of) {
                Some(ty) => schema::encode_json(ty, other, &mut out),
                None => schema::encode_untyped(other, &mut out),
            }
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}

/// A text as Go's `%q` prints it.
pub(crate) fn go_quoted(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        // Writing to a string does not fail.
        let written = match letter {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\u{7}' => out.write_str("\\a"),
            '\u{8}' => out.write_str("\\b"),
            '\u{c}' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\u{b}' => out.write_str("\\v"),
            ' '..='~' => out.write_char(letter),
            letter if letter.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(letter)),
            letter if !is_printable(letter) && u32::from(letter) < 0x1_0000 => {
                write!(out, "\\u{:04x}", u32::from(letter))
            }
            letter if !is_printable(letter) => write!(out, "\\U{:08x}", u32::from(letter)),
            letter => out.write_char(letter),
        };
        debug_assert!(written.is_ok());
    }
    out.push('"');
    out
}

/// What Go prints as it is: everything but controls, unusual spaces and what is not assigned.
fn is_printable(letter: char) -> bool {
    !letter.is_control()
        && !letter.is_whitespace()
        && !matches!(u32::from(letter), 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f
            | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xffff)
}

/// The struct that upstream prints where a finding quotes this object; its fields have an order.
fn struct_of(map: &serde_json::Map<String, Value>) -> Option<&'static schema::Type> {
    const OWNER: [&str; 6] =
        ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let only = |known: &[&str]| map.keys().all(|key| known.contains(&key.as_str()));
    let path = if map.is_empty() {
        return None;
    } else if only(&["matchLabels", "matchExpressions"]) {
        "meta/v1.LabelSelector"
    } else if only(&OWNER) && map.contains_key("uid") {
        "meta/v1.OwnerReference"
    } else {
        return None;
    };
    schema::registry().type_named(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_in_upstream_words() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        for (error, expected) in [
            (FieldError::required(&path, ""), "spec.containers[0].name: Required value"),
            (
                FieldError::invalid(&path, "X", "no"),
                "spec.containers[0].name: Invalid value: \"X\": no",
            ),
            (
                FieldError::not_supported(&path, "X", &["a", "b"]),
                "spec.containers[0].name: Unsupported value: \"X\": supported values: \"a\", \"b\"",
            ),
            (
                FieldError::too_many(&path, 3, 1),
                "spec.containers[0].name: Too many: 3: must have at most 1 item",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
