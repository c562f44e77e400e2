//! Sets of managed fields: what is read is printed and read to the same.

use apply::FieldSet;

use super::{Target, halves};

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "{}",
        "\"f:a\":",
        "\"k:{\\\"name\\\":\\\"a\\\"}\":",
        "\"v:1\":",
        "\"v:\\\"a\\\"\":",
        "\"i:0\":",
        "\".\":",
        ",",
        ":",
        "null",
        "\"k:{}\"",
        "\\u0000",
    ],
    memory_per_byte: 256,
    ..Target::new("field-set", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    let one = r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}}}}"#;
    let other = r#"{"f:metadata":{"f:finalizers":{"v:\"x\"":{}}},"f:x":{"i:3":{}}}"#;
    vec![one.into(), [one, "\0", other].concat().into()]
}

fn run(input: &[u8]) {
    let (one, other) = halves(input);
    let read = |bytes: &[u8]| FieldSet::from_fields_v1(std::str::from_utf8(bytes).ok()?).ok();
    let Some(one) = read(one) else { return };
    let printed = one.to_fields_v1();
    let again = FieldSet::from_fields_v1(&printed).expect("what was printed is read");
    assert_eq!(again.to_fields_v1(), printed);
    let Some(other) = read(other) else { return };
    let both = one.union(&other);
    assert_eq!(both.difference(&other).union(&both.intersection(&other)).len(), both.len());
}
