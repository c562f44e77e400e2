//! Schemas of custom resources, objects for them, and JSON paths: a schema, a zero byte, an object.

use custom::{JsonPath, Structural};
use serde_json::Value;

use super::{Target, halves};

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "\"type\":\"object\"",
        "\"type\":\"array\"",
        "\"type\":\"string\"",
        "\"properties\":{",
        "\"additionalProperties\":",
        "\"items\":",
        "\"pattern\":\"",
        "(a|b)*",
        "[^a]{1,9}",
        "\"format\":\"date-time\"",
        "\"enum\":[",
        "\"default\":",
        "\"nullable\":true",
        "\"x-kubernetes-preserve-unknown-fields\":true",
        "\"x-kubernetes-int-or-string\":true",
        "\"x-kubernetes-list-type\":\"map\"",
        "\"x-kubernetes-list-map-keys\":[\"a\"]",
        "\"x-kubernetes-embedded-resource\":true",
        "\"x-kubernetes-validations\":[{\"rule\":\"",
        "\"maximum\":",
        "\"multipleOf\":0.1",
        "\"oneOf\":[",
        "\"not\":",
        "$ref",
        ".a[0].b",
        "[*]",
        "..",
        "[?(@.a=='b')]",
        "null",
    ],
    // A pattern may take what `docs/limits.md` gives it.
    memory_per_byte: 4096,
    memory_base: 16 << 20,
    nanos_per_byte: 200_000,
    time_base: std::time::Duration::from_millis(500),
    ..Target::new("schemas", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    let schema = r#"{"type":"object","required":["a"],"properties":{"a":{"type":"string","pattern":"^[a-z]+$","default":"x"},"b":{"type":"array","items":{"type":"object","properties":{"k":{"type":"integer","minimum":1}},"x-kubernetes-preserve-unknown-fields":true},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"]},"c":{"x-kubernetes-int-or-string":true},"d":{"type":"object","additionalProperties":{"type":"number","nullable":true}}}}"#;
    let object = r#"{"a":"b","b":[{"k":1,"z":2}],"c":"1","d":{"e":null},"f":3}"#;
    vec![
        [schema, "\0", object].concat().into(),
        b".spec.a[0].b".to_vec(),
        b"{.items[*].name}".to_vec(),
    ]
}

fn run(input: &[u8]) {
    let (schema, object) = halves(input);
    let object: Value = serde_json::from_slice(object).unwrap_or_default();
    if let Ok(text) = std::str::from_utf8(schema)
        && let Ok(path) = JsonPath::parse(text)
    {
        path.find(&object);
    }
    let Ok(schema) = serde_json::from_slice::<Value>(schema) else { return };
    let Ok(compiled) = Structural::compile(&schema) else { return };
    let mut pruned = object;
    custom::prune(&mut pruned, Some(&compiled));
    custom::apply_defaults(&mut pruned, &compiled);
    let mut again = pruned.clone();
    custom::apply_defaults(&mut again, &compiled);
    assert_eq!(again, pruned, "defaults are there once they are");
    drop(custom::validate(&pruned, None, &compiled));
}
