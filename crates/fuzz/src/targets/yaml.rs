//! YAML: what is decoded is the same when it is printed as JSON.

use schema::FieldValidation;

use super::{Target, choose, chosen};
use crate::seeds;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "---\n",
        "...\n",
        "- ",
        ": ",
        "? ",
        "&a ",
        "*a",
        "<<: *a",
        "|\n",
        ">-\n",
        "!!binary ",
        "!!str ",
        "!!int ",
        "!!set ",
        "0o17",
        "0x1f",
        "1_000",
        ".inf",
        ".nan",
        "~",
        "yes",
        "on",
        "2026-01-01",
        "\"\\x00\"",
        "%YAML 1.2\n",
        "\t",
        "{a: 1}",
        "[a, b]",
        "'",
        "\u{feff}",
        "#",
    ],
    // The parser keeps its events and where they were.
    memory_per_byte: 1024,
    nanos_per_byte: 30_000,
    ..Target::new("yaml", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    let wanted = ["Pod", "ConfigMap", "Service", "Deployment", "CustomResourceDefinition"];
    let kinds = seeds::kinds();
    let chosen_kinds =
        kinds.iter().enumerate().filter(|(_, (gvk, _))| wanted.contains(&&*gvk.kind));
    let text = "kind: ConfigMap\napiVersion: v1\nmetadata: &m\n  name: a\n  labels: {a: \"1\"}\n\
                data:\n  k: |\n    text\n    more\n  b: >-\n    folded\n    line\n";
    let json = chosen_kinds
        .map(|(at, (gvk, ty))| chosen(at, seeds::object(gvk, ty).to_string().as_bytes()));
    json.chain([chosen(0, text.as_bytes())]).collect()
}

fn run(input: &[u8]) {
    let Some((_, ty, text)) = choose(input) else { return };
    drop(schema::yaml_to_value(text));
    let Ok(decoded) = schema::decode_yaml(ty, text, FieldValidation::Warn) else { return };
    let mut printed = Vec::new();
    schema::encode_json(ty, &decoded.value, &mut printed);
    let again = schema::decode_json(ty, &printed, FieldValidation::Ignore);
    assert_eq!(again.expect("what was printed is read").value, decoded.value);
}
