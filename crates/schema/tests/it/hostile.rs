//! Bytes from outside: no decoder panics, goes deeper than it may, or makes much out of little.

use std::path::PathBuf;

use meta::GroupVersionKind;
use proptest::prelude::*;
use schema::{FieldValidation, Type, registry};
use serde_json::Value;

/// Values that one byte of input may become. A byte of a packed list is a value, and a field that is
/// left out may bring its parents.
const VALUES_PER_BYTE: usize = 4;
/// As deep as an object may be nested, with what is around it.
const DEPTH_MAX: usize = 128;

fn pod() -> &'static Type {
    registry().kind(&GroupVersionKind::new("", "v1", "Pod")).expect("there are pods")
}

/// Values and depth of a decoded object.
fn measure(value: &Value) -> (usize, usize) {
    let add = |all: (usize, usize), inner: (usize, usize)| (all.0 + inner.0, all.1.max(inner.1));
    let inner = match value {
        Value::Array(items) => items.iter().map(measure).fold((0, 0), add),
        Value::Object(map) => map.values().map(measure).fold((0, 0), add),
        _ => (0, 0),
    };
    (inner.0 + 1, inner.1 + 1)
}

fn check(input: &[u8], value: &Value) {
    let (values, depth) = measure(value);
    assert!(depth <= DEPTH_MAX, "{depth} deep");
    let most = VALUES_PER_BYTE * input.len() + 64;
    assert!(values <= most, "{values} values of {} bytes", input.len());
}

/// Decodes in every way there is.
fn decode_all(input: &[u8]) {
    if let Ok(decoded) = schema::decode_json(pod(), input, FieldValidation::Strict) {
        check(input, &decoded.value);
    }
    if let Ok(decoded) = schema::decode_yaml(pod(), input, FieldValidation::Warn) {
        check(input, &decoded.value);
    }
    if let Ok((_, value)) = schema::decode_protobuf(input) {
        check(input, &value);
    }
    drop(schema::read_type_meta(input));
    drop(schema::check_json_syntax(input));
}

/// Vectors of every sort.
fn vectors(extension: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let paths = std::fs::read_dir(directory).expect("the vectors are there");
    let mut paths: Vec<_> = paths.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a vector")).collect()
}

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            _ if bytes.is_empty() => {}
            Self::Set(at, byte) => *at.get_mut(bytes.as_mut_slice()) = *byte,
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..bytes.len().min(at + count)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        any::<prop::sample::Index>().prop_map(Change::Cut),
        (any::<prop::sample::Index>(), 1_usize..40)
            .prop_map(|(at, count)| Change::Repeat(at, count)),
    ];
    prop::collection::vec(change, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_at_random_are_decoded_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        decode_all(&bytes);
        decode_all(&[&schema::PROTOBUF_MAGIC[..], &bytes].concat());
    }

    #[test]
    fn damaged_objects_are_decoded_or_refused(
        which in any::<prop::sample::Index>(),
        is_protobuf in any::<bool>(),
        changes in changes(),
    ) {
        let vectors = vectors(if is_protobuf { "pb" } else { "json" });
        let mut bytes = which.get(&vectors).clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        decode_all(&bytes);
    }

    #[test]
    fn nearly_yaml_is_decoded_or_refused(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("- "), Just("a: "), Just("? "), Just("&a "), Just("*a"), Just("<<: *a"),
                Just("\n"), Just("  "), Just("|\n"), Just("{"), Just("}"), Just("["), Just("]"),
                Just("---\n"), Just("!!binary "), Just("\""), Just("0777"), Just("#"), Just(","),
            ],
            0..40,
        ),
    ) {
        decode_all(pieces.concat().as_bytes());
    }
}

#[test]
fn depth_has_a_limit_in_every_form() {
    const DEPTH: usize = 200_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{a: ", "}")] {
        let text = [open.repeat(DEPTH), "1".to_owned(), close.repeat(DEPTH)].concat();
        decode_all(text.as_bytes());
        decode_all(open.repeat(DEPTH).as_bytes());
        let within = format!("{{\"metadata\":{{\"annotations\":{text}}}}}");
        decode_all(within.as_bytes());
    }
    decode_all("- ".repeat(DEPTH).as_bytes());
    // A schema within a schema, as deep as the bytes go: field 13 of `JSONSchemaProps` is one.
    let gvk = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let ty = registry().type_named("apiextensions/v1.JSONSchemaProps").expect("there are schemas");
    let mut raw: Vec<u8> = Vec::new();
    let not = ty.field("not").expect("schemas have not").number;
    for _ in 0..2000 {
        let mut around = Vec::new();
        varint(&mut around, u64::from(not) << 3 | 2);
        varint(&mut around, raw.len() as u64);
        around.extend_from_slice(&raw);
        raw = around;
    }
    assert!(schema::decode_protobuf_body(ty, &gvk, &raw).is_err());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[test]
fn a_few_aliases_do_not_become_a_billion_values() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for pair in ["ab", "bc", "cd", "de", "ef", "fg", "gh", "hi", "ij"] {
        let (before, name) = pair.split_at(1);
        let aliases = vec![format!("*{before}"); 10].join(", ");
        text.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    match schema::yaml_to_value(text.as_bytes()) {
        Err(_) => {}
        Ok((value, _)) => assert!(measure(&value).0 < 1_000_000),
    }
}

#[test]
fn numbers_are_decoded_or_refused_whatever_their_size() {
    for number in ["1e999999999", "-0", "9223372036854775808", "1.7976931348623157e309"] {
        decode_all(format!("{{\"spec\":{{\"priority\":{number}}}}}").as_bytes());
        decode_all(format!("{{\"metadata\":{{\"generation\":{number}}}}}").as_bytes());
    }
    let digits = "9".repeat(100_000);
    decode_all(format!("{{\"spec\":{{\"priority\":{digits}}}}}").as_bytes());
    let quantity = format!("{{\"spec\":{{\"overhead\":{{\"cpu\":\"{digits}\"}}}}}}");
    decode_all(quantity.as_bytes());
}
