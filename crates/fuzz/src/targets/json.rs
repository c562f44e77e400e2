//! JSON of every kind: what is decoded is printed and decoded to the same, and validation takes it.

use schema::FieldValidation;

use super::{Target, choose, chosen};
use crate::seeds;

const WORDS: &[&str] = &[
    "null",
    "true",
    "false",
    "\"a\"",
    "{}",
    "[]",
    "\\u0000",
    "\\ud800",
    "\\",
    "\"metadata\":",
    "\"spec\":",
    "\"status\":",
    "\"name\":",
    "1e400",
    "-0",
    "0.1",
    "9223372036854775808",
    "1Gi",
    "\u{2028}",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
    ",",
    ":",
];

/// Objects by their tables.
pub(super) const OBJECT: Target =
    Target { dictionary: WORDS, ..Target::new("json", seeds, object) };

/// JSON without a table.
pub(super) const UNTYPED: Target =
    Target { dictionary: WORDS, ..Target::new("json-untyped", untyped_seeds, untyped) };

fn seeds() -> Vec<Vec<u8>> {
    let kinds = seeds::kinds().into_iter().enumerate();
    kinds
        .map(|(at, (gvk, ty))| chosen(at, seeds::object(&gvk, ty).to_string().as_bytes()))
        .collect()
}

fn untyped_seeds() -> Vec<Vec<u8>> {
    [r#"{"a":[1,-2.5e3,"x\u00e9\n",null,true,{}],"b":{"c":[[]]}}"#, "[]", "1", "\"\""]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn object(input: &[u8]) {
    let Some((gvk, ty, text)) = choose(input) else { return };
    drop(schema::read_type_meta(text));
    let strict = schema::decode_json(ty, text, FieldValidation::Strict);
    let Ok(decoded) = schema::decode_json(ty, text, FieldValidation::Ignore) else {
        assert!(strict.is_err(), "strict takes more than lenient");
        return;
    };
    let mut value = decoded.value;
    let mut printed = Vec::new();
    schema::encode_json(ty, &value, &mut printed);
    let again = schema::decode_json(ty, &printed, FieldValidation::Ignore);
    let again = again.expect("what was printed is read").value;
    assert_eq!(again, value, "printed: {}", String::from_utf8_lossy(&printed));
    schema::apply_defaults(&gvk, &mut value);
    drop(validation::validate_create(&gvk, &value));
}

fn untyped(input: &[u8]) {
    let is_json = schema::check_json_syntax(input).is_ok();
    let Ok(decoded) = schema::decode_untyped(input, FieldValidation::Warn) else { return };
    assert!(is_json, "decoded what is no JSON");
    // Numbers such as 2e3 are printed as whole ones, and are whole ones from then on.
    let print = |value: &serde_json::Value| {
        let mut printed = Vec::new();
        schema::encode_untyped(value, &mut printed);
        printed
    };
    let printed = print(&decoded.value);
    let again = schema::decode_untyped(&printed, FieldValidation::Ignore);
    let again = print(&again.expect("what was printed is read").value);
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&printed));
}
