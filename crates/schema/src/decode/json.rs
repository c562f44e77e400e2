//! JSON into the working form, in one pass driven by the table.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::scalar::{self, ScalarError};
use super::scanner::{Scanner, Syntax};
use super::{DecodeError, Decoded, TypeMeta};
use crate::table::{Field, Kind, Type};

/// Nesting of what is kept. Lower than Go's 10,000 so that neither a thread's stack nor a later
/// reader of the stored object (128 levels in serde_json) can be exhausted.
const MAX_DEPTH: usize = 120;

/// `sigs.k8s.io/json` stops collecting after this many findings.
const MAX_FINDINGS: usize = 100;

/// JSON without a table; findings are the members given twice.
pub(super) fn decode_untyped(bytes: &[u8], strict: bool) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::new(bytes, strict);
    decoder.follows_any = strict;
    let value = match decoder.any() {
        Ok(value) => value,
        Err(Stop::Syntax(text) | Stop::Scalar(text)) => return Err(DecodeError::Syntax(text)),
    };
    decoder.scanner.end().map_err(DecodeError::Syntax)?;
    Ok(Decoded { value, warnings: decoder.findings })
}

pub(super) fn decode(ty: &Type, bytes: &[u8], strict: bool) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::new(bytes, strict);
    let value = match decoder.object_of(ty, Map::new()) {
        Ok(value) => value,
        Err(Stop::Syntax(text)) => return Err(DecodeError::Syntax(text)),
        Err(Stop::Scalar(text)) => {
            // Go scans the whole text before it decodes any of it.
            let syntax = syntax_error(bytes);
            return Err(syntax.map_or(DecodeError::Type(text), DecodeError::Syntax));
        }
    };
    decoder.scanner.end().map_err(DecodeError::Syntax)?;
    if let Some(text) = decoder.mismatch {
        return Err(DecodeError::Type(text));
    }
    Ok(Decoded { value: value.unwrap_or_default(), warnings: decoder.findings })
}

pub(super) fn read_type_meta(bytes: &[u8]) -> Result<TypeMeta, String> {
    const GO_TYPE: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
                           Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let mut scanner = Scanner::new(bytes);
    let mut found = TypeMeta::default();
    let first = scanner.peek_value()?;
    if first != b'{' {
        let text = scanner.skip()?;
        scanner.end()?;
        if text == b"null" {
            return Ok(found);
        }
        let what = describe(first);
        return Err(format!("json: cannot unmarshal {what} into Go value of type {GO_TYPE}"));
    }
    let mut mismatch = None;
    if !scanner.open(b'}') {
        loop {
            let key = scanner.key()?;
            let wanted = matches!(&*key, "apiVersion" | "kind");
            match (scanner.peek_value()?, wanted) {
                (b'"', true) => {
                    let text = scanner.string()?.into_owned();
                    if key == "kind" { found.kind = text } else { found.api_version = text }
                }
                (byte, wanted) => {
                    scanner.skip()?;
                    if wanted && byte != b'n' && mismatch.is_none() {
                        let what = describe(byte);
                        mismatch = Some(format!(
                            "json: cannot unmarshal {what} into Go struct field .{key} of type \
                             string"
                        ));
                    }
                }
            }
            if !scanner.next_item(b'}')? {
                break;
            }
        }
    }
    scanner.end()?;
    mismatch.map_or(Ok(found), Err)
}

pub(super) fn syntax_error(bytes: &[u8]) -> Option<String> {
    let mut scanner = Scanner::new(bytes);
    match scanner.skip() {
        Ok(_) => scanner.end().err(),
        Err(text) => Some(text),
    }
}

fn describe(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        b'n' => "null",
        _ => "number",
    }
}

/// Why decoding ends at once.
enum Stop {
    Syntax(Syntax),
    /// A type with a decoder of its own in Go refused its text; Go does not go on after that.
    Scalar(String),
}

impl From<Syntax> for Stop {
    fn from(text: Syntax) -> Self {
        Stop::Syntax(text)
    }
}

enum Segment<'t, 'a> {
    /// A field of a struct. Around it may be structs that Go embeds; only some errors show them.
    Field(&'t Type, &'t Field),
    Key(Cow<'a, str>),
    Index(usize),
}

struct Decoder<'t, 'a> {
    scanner: Scanner<'a>,
    strict: bool,
    findings: Vec<String>,
    path: Vec<Segment<'t, 'a>>,
    structs: Vec<&'t Type>,
    mismatch: Option<String>,
    depth: usize,
    /// Whether members given twice are told of values without a table too.
    follows_any: bool,
}

impl<'a> Decoder<'_, 'a> {
    fn new(bytes: &'a [u8], strict: bool) -> Self {
        Self {
            scanner: Scanner::new(bytes),
            strict,
            findings: Vec::new(),
            path: Vec::new(),
            structs: Vec::new(),
            mismatch: None,
            depth: 0,
            follows_any: false,
        }
    }
}

impl<'t> Decoder<'t, '_> {
    /// A value of some kind; `None` for null, for Go's zero where it is not kept, and for what
    /// does not fit (then noted, and decoding goes on to find syntax errors).
    fn value(&mut self, kind: &'t Kind, go: &str, keep_zero: bool) -> Result<Option<Value>, Stop> {
        let first = self.scanner.peek_value()?;
        if first == b'n' {
            self.scanner.literal("null")?;
            return Ok(None);
        }
        let value = match (kind, first) {
            (Kind::String, b'"') => {
                let text = self.scanner.string()?;
                if text.is_empty() && !keep_zero {
                    return Ok(None);
                }
                Value::String(text.into_owned())
            }
            (Kind::Bool, b't') => {
                self.scanner.literal("true")?;
                Value::Bool(true)
            }
            (Kind::Bool, b'f') => {
                self.scanner.literal("false")?;
                if !keep_zero {
                    return Ok(None);
                }
                Value::Bool(false)
            }
            (Kind::Int32 | Kind::Int64 | Kind::Float64, b'-' | b'0'..=b'9') => {
                return self.number(kind, go, keep_zero);
            }
            (Kind::List(item), b'[') => return self.list(item, go, keep_zero),
            (Kind::WrappedStrings, b'[') => return self.list(&STRING, go, keep_zero),
            (Kind::Map(item), b'{') => return self.map(item, go, keep_zero),
            (Kind::Struct(inner), b'{') => return self.nested(inner.get(), keep_zero),
            (Kind::Json | Kind::RawExtension, _) => return self.any().map(Some),
            (Kind::FieldsV1, _) => return self.raw().map(Some),
            (Kind::SchemaOrBool(ty) | Kind::SchemaOrArray(ty) | Kind::SchemaOrStrings(ty), _) => {
                return self.schema_or(kind, ty.get(), first);
            }
            (Kind::String | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Float64, _)
            | (Kind::List(_) | Kind::WrappedStrings | Kind::Map(_) | Kind::Struct(_), _) => {
                self.scanner.skip()?;
                self.note_mismatch(describe(first), go);
                return Ok(None);
            }
            _ => return self.scalar(kind, first, keep_zero),
        };
        Ok(Some(value))
    }

    /// Kinds whose text has a syntax of its own.
    fn scalar(&mut self, kind: &Kind, first: u8, keep_zero: bool) -> Result<Option<Value>, Stop> {
        let result = if first == b'"' {
            let text = self.scanner.string()?;
            scalar::from_string(kind, &text)
        } else {
            let text = self.scanner.skip()?;
            scalar::from_other(kind, &String::from_utf8_lossy(text), describe(first))
        };
        match result {
            Ok(value) => {
                let is_zero = value == ""
                    || value == "0"
                    || value == 0
                    || (matches!(kind, Kind::Duration) && value == "0s");
                let zero = !keep_zero && is_zero;
                Ok(if zero { None } else { Some(value) })
            }
            Err(ScalarError::Note(text)) => {
                self.mismatch.get_or_insert(text);
                Ok(None)
            }
            Err(ScalarError::Stop(text)) => Err(Stop::Scalar(text)),
            Err(ScalarError::Mismatch(what, go)) => Err(Stop::Scalar(self.mismatched(&what, go))),
        }
    }

    fn number(&mut self, kind: &'t Kind, go: &str, keep_zero: bool) -> Result<Option<Value>, Stop> {
        let text = self.scanner.number()?;
        let parsed = match kind {
            Kind::Int32 => text.0.parse::<i32>().ok().map(Value::from),
            Kind::Int64 => text.0.parse::<i64>().ok().map(Value::from),
            _ => text.to_number().map(Value::Number),
        };
        match parsed {
            Some(value) if keep_zero || value != 0 => Ok(Some(value)),
            Some(_) => Ok(None),
            None => {
                self.note_mismatch(&format!("number {}", text.0), go);
                Ok(None)
            }
        }
    }

    fn list(&mut self, item: &'t Kind, go: &str, keep_zero: bool) -> Result<Option<Value>, Stop> {
        self.enter()?;
        let go = go.strip_prefix("[]").unwrap_or(go);
        let mut items = Vec::new();
        if !self.scanner.open(b']') {
            loop {
                self.path.push(Segment::Index(items.len()));
                let value = self.value(item, go, true)?;
                self.path.pop();
                items.push(value.unwrap_or_else(|| zero(item)));
                if !self.scanner.next_item(b']')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        let dropped = items.is_empty() && !keep_zero;
        Ok(if dropped { None } else { Some(Value::Array(items)) })
    }

    fn map(&mut self, item: &'t Kind, go: &str, keep_zero: bool) -> Result<Option<Value>, Stop> {
        self.enter()?;
        let go = go.split_once(']').map_or(go, |(_, item)| item);
        let mut map = Map::new();
        if !self.scanner.open(b'}') {
            loop {
                let key = self.scanner.key()?;
                if self.strict && map.contains_key(&*key) {
                    self.note_finding("duplicate", &key);
                }
                self.path.push(Segment::Key(key.clone()));
                let value = self.value(item, go, true)?;
                self.path.pop();
                map.insert(key.into_owned(), value.unwrap_or_else(|| zero(item)));
                if !self.scanner.next_item(b'}')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        let dropped = map.is_empty() && !keep_zero;
        Ok(if dropped { None } else { Some(Value::Object(map)) })
    }

    fn nested(&mut self, ty: &'t Type, keep_zero: bool) -> Result<Option<Value>, Stop> {
        let value = self.object_of(ty, Map::new())?;
        let empty = value.as_ref().and_then(Value::as_object).is_some_and(Map::is_empty);
        Ok(if empty && !keep_zero { None } else { value })
    }

    /// An object into `map`, which holds what an earlier field of the same name left.
    fn object_of(
        &mut self,
        ty: &'t Type,
        mut map: Map<String, Value>,
    ) -> Result<Option<Value>, Stop> {
        let first = self.scanner.peek_value()?;
        if first != b'{' {
            self.scanner.skip()?;
            if first != b'n' {
                let go = go_name(ty);
                self.note_mismatch(describe(first), &go);
            }
            return Ok(None);
        }
        self.enter()?;
        self.structs.push(ty);
        if !self.scanner.open(b'}') {
            let mut seen = 0_u128;
            loop {
                self.member(ty, &mut map, &mut seen)?;
                if !self.scanner.next_item(b'}')? {
                    break;
                }
            }
        }
        self.structs.pop();
        self.depth -= 1;
        Ok(Some(Value::Object(map)))
    }

    fn member(
        &mut self,
        ty: &'t Type,
        map: &mut Map<String, Value>,
        seen: &mut u128,
    ) -> Result<(), Stop> {
        let key = self.scanner.key()?;
        let Some(position) = ty.position(&key) else {
            if ty.preserve_unknown {
                let value = self.any()?;
                map.insert(key.into_owned(), value);
                return Ok(());
            }
            if self.strict {
                self.note_finding("unknown", &key);
            }
            self.scanner.skip()?;
            return Ok(());
        };
        let field = &ty.fields()[position];
        let again = match 1_u128.checked_shl(u32::try_from(position).unwrap_or(u32::MAX)) {
            Some(bit) => {
                let again = *seen & bit != 0;
                *seen |= bit;
                again
            }
            None => map.contains_key(&*key),
        };
        if again && self.strict {
            self.note_finding("duplicate", &key);
        }
        let depth = self.path.len();
        self.path.push(Segment::Field(ty, field));
        let keep_zero = field.keeps_zero() || self.shows_empty(ty, field);
        let value = match &field.kind {
            // Go decodes a repeated struct into the one it has.
            Kind::Struct(inner) if again && self.scanner.peek_value()? == b'{' => {
                let before = match map.remove(&*key) {
                    Some(Value::Object(before)) => before,
                    _ => Map::new(),
                };
                let value = self.object_of(inner.get(), before)?;
                let is_empty = value.as_ref().and_then(Value::as_object).is_some_and(Map::is_empty);
                value.filter(|_| keep_zero || !is_empty)
            }
            kind => self.value(kind, &field.go_type, keep_zero)?,
        };
        self.path.truncate(depth);
        match value {
            Some(value) => {
                map.insert(key.into_owned(), value);
            }
            None if again => {
                map.remove(&*key);
            }
            None => {}
        }
        Ok(())
    }

    /// Any JSON, kept as it is.
    fn any(&mut self) -> Result<Value, Stop> {
        Ok(match self.scanner.peek_value()? {
            b'{' => {
                self.enter()?;
                let mut map = Map::new();
                if !self.scanner.open(b'}') {
                    loop {
                        let key = self.scanner.key()?;
                        if self.follows_any {
                            if map.contains_key(&*key) {
                                self.note_finding("duplicate", &key);
                            }
                            self.path.push(Segment::Key(key.clone()));
                        }
                        let value = self.any()?;
                        if self.follows_any {
                            self.path.pop();
                        }
                        map.insert(key.into_owned(), value);
                        if !self.scanner.next_item(b'}')? {
                            break;
                        }
                    }
                }
                self.depth -= 1;
                Value::Object(map)
            }
            b'[' => {
                self.enter()?;
                let mut items = Vec::new();
                if !self.scanner.open(b']') {
                    loop {
                        if self.follows_any {
                            self.path.push(Segment::Index(items.len()));
                        }
                        let value = self.any()?;
                        if self.follows_any {
                            self.path.pop();
                        }
                        items.push(value);
                        if !self.scanner.next_item(b']')? {
                            break;
                        }
                    }
                }
                self.depth -= 1;
                Value::Array(items)
            }
            b'"' => Value::String(self.scanner.string()?.into_owned()),
            b't' => {
                self.scanner.literal("true")?;
                Value::Bool(true)
            }
            b'f' => {
                self.scanner.literal("false")?;
                Value::Bool(false)
            }
            b'n' => {
                self.scanner.literal("null")?;
                Value::Null
            }
            _ => self.scanner.number()?.to_number().map_or(Value::Null, Value::Number),
        })
    }

    /// Any JSON as its text, without spaces.
    fn raw(&mut self) -> Result<Value, Stop> {
        let start = self.scanner.clone();
        let text = String::from_utf8_lossy(self.scanner.skip()?);
        if !text.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return Ok(Value::String(text.into_owned()));
        }
        self.scanner = start;
        let mut compact = Vec::new();
        crate::encode_untyped(&self.any()?, &mut compact);
        Ok(Value::String(String::from_utf8_lossy(&compact).into_owned()))
    }

    /// The three unions inside `JSONSchemaProps`. Go decodes them apart, and not strictly.
    fn schema_or(
        &mut self,
        kind: &'t Kind,
        ty: &'t Type,
        first: u8,
    ) -> Result<Option<Value>, Stop> {
        let strict = std::mem::replace(&mut self.strict, false);
        let value = match (kind, first) {
            (_, b'{') => self.object_of(ty, Map::new())?,
            (Kind::SchemaOrBool(_), b't' | b'f') => Some(self.any()?),
            (Kind::SchemaOrArray(_), b'[') => {
                self.enter()?;
                let mut items = Vec::new();
                if !self.scanner.open(b']') {
                    loop {
                        items.push(self.object_of(ty, Map::new())?.unwrap_or_default());
                        if !self.scanner.next_item(b']')? {
                            break;
                        }
                    }
                }
                self.depth -= 1;
                Some(Value::Array(items))
            }
            (Kind::SchemaOrStrings(_), b'[') => self.list(&STRING, "[]string", true)?,
            (Kind::SchemaOrBool(_), _) => {
                return Err(Stop::Scalar("boolean or JSON schema expected".to_owned()));
            }
            _ => {
                self.scanner.skip()?;
                None
            }
        };
        self.strict = strict;
        Ok(value)
    }

    /// Whether upstream's validation shows that a list or map is there and empty. It refuses all of
    /// these, so that none is stored.
    fn shows_empty(&self, ty: &Type, field: &Field) -> bool {
        // Nearly all fields have other names, and the name of a type has to be cut out of its path.
        if !matches!(&*field.name, "policies" | "values" | "rules" | "capacity" | "labels") {
            return false;
        }
        match (&*field.name, ty.name()) {
            ("policies", "HPAScalingRules")
            | ("values", "PodFailurePolicyOnExitCodesRequirement")
            | ("rules", "SuccessPolicy")
            | ("capacity", "PersistentVolumeSpec") => true,
            ("labels", "ObjectMeta") => {
                let within: Vec<&str> = self.structs.iter().map(|ty| &*ty.path).collect();
                matches!(
                    within.as_slice(),
                    [
                        "apps/v1.DaemonSet"
                            | "apps/v1.Deployment"
                            | "apps/v1.ReplicaSet"
                            | "apps/v1.StatefulSet"
                            | "core/v1.ReplicationController",
                        _,
                        "core/v1.PodTemplateSpec",
                        _,
                    ]
                )
            }
            _ => false,
        }
    }

    fn enter(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Stop::Syntax(self.scanner.unexpected("exceeded max depth")));
        }
        Ok(())
    }

    fn note_mismatch(&mut self, what: &str, go: &str) {
        if self.mismatch.is_none() {
            self.mismatch = Some(self.mismatched(what, go));
        }
    }

    fn mismatched(&self, what: &str, go: &str) -> String {
        let mut names: Vec<&str> = Vec::new();
        for segment in &self.path {
            if let Segment::Field(ty, field) = segment {
                names.extend(embedded_around(ty, field));
                names.push(&field.name);
            }
        }
        match self.structs.last() {
            Some(ty) => format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {go}",
                ty.name(),
                names.join(".")
            ),
            None => format!("json: cannot unmarshal {what} into Go value of type {go}"),
        }
    }

    fn note_finding(&mut self, what: &str, key: &str) {
        if self.findings.len() >= MAX_FINDINGS {
            return;
        }
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(_, field) => push_name(&mut path, &field.name),
                Segment::Key(name) => push_name(&mut path, name),
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        push_name(&mut path, key);
        let finding = format!("{what} field \"{path}\"");
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// The structs that Go embeds around a field, from the outside in.
fn embedded_around(ty: &Type, field: &Field) -> &'static [&'static str] {
    if field.within.is_empty() {
        return &[];
    }
    match ty.name() {
        "ConfigMapEnvSource"
        | "ConfigMapKeySelector"
        | "ConfigMapProjection"
        | "ConfigMapVolumeSource"
        | "SecretEnvSource"
        | "SecretKeySelector"
        | "SecretProjection" => &["LocalObjectReference"],
        "DeviceAllocationConfiguration"
        | "DeviceClaimConfiguration"
        | "DeviceClassConfiguration" => &["DeviceConfiguration"],
        "EphemeralContainer" => &["EphemeralContainerCommon"],
        "IngressRule" => &["IngressRuleValue"],
        "NamedRuleWithOperations" if field.within.len() > 1 => &["RuleWithOperations", "Rule"],
        "NamedRuleWithOperations" => &["RuleWithOperations"],
        "PersistentVolumeSpec" => &["PersistentVolumeSource"],
        "Probe" => &["ProbeHandler"],
        "RuleWithOperations" => &["Rule"],
        "Volume" => &["VolumeSource"],
        _ => &[],
    }
}

static STRING: Kind = Kind::String;

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

impl Field {
    /// Whether Go tells the zero value of a field from its absence. Empty lists and maps are
    /// dropped too, also where Go would print them: upstream stores objects in protobuf, which has
    /// none. Only of managed fields an empty list is kept, because it asks for something: to forget
    /// them.
    pub fn keeps_zero(&self) -> bool {
        self.pointer
            || (matches!(self.kind, Kind::Bytes) && !self.omit_empty)
            || self.go_type == "[]v1.ManagedFieldsEntry"
    }
}

/// The type as Go's reflection names it: package and name.
fn go_name(ty: &Type) -> String {
    ty.path.rsplit('/').next().unwrap_or(&ty.path).to_owned()
}

fn zero(kind: &Kind) -> Value {
    match kind {
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Bool => Value::Bool(false),
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => Value::from(0),
        Kind::Quantity => Value::String("0".to_owned()),
        Kind::Duration => Value::String("0s".to_owned()),
        Kind::Struct(_) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}
