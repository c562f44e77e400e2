//! Patches of every sort, on an object: its JSON, a zero byte, and the patch.

use patch::Merge;
use schema::FieldValidation;
use serde_json::Value;

use super::{Target, choose, chosen, halves};
use crate::seeds;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "{\"op\":\"add\",\"path\":\"/a\",\"value\":1}",
        "\"op\":\"test\"",
        "\"op\":\"move\"",
        "\"op\":\"copy\"",
        "\"op\":\"remove\"",
        "\"from\":",
        "/-",
        "/-1",
        "/0",
        "~0",
        "~1",
        "$patch",
        "\"$patch\":\"delete\"",
        "\"$patch\":\"replace\"",
        "\"$retainKeys\":[]",
        "\"$setElementOrder/containers\":",
        "\"$deleteFromPrimitiveList/finalizers\":",
        "null",
        "\"managedFields\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
    ],
    // Patches copy what they are told to copy; the server bounds the result when it is stored.
    memory_per_byte: 4096,
    nanos_per_byte: 100_000,
    ..Target::new("patches", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    let wanted = ["Pod", "ConfigMap", "Deployment", "Service", "CustomResourceDefinition"];
    let patches = [
        "[{\"op\":\"add\",\"path\":\"/metadata/labels/x\",\"value\":\"y\"},\
         {\"op\":\"copy\",\"from\":\"/metadata\",\"path\":\"/spec\"}]",
        "{\"metadata\":{\"labels\":{\"x\":null,\"y\":\"z\"}},\"spec\":{\"containers\":\
         [{\"name\":\"a\",\"image\":\"b\"},{\"$patch\":\"delete\",\"name\":\"c\"}]}}",
        "{\"metadata\":{\"name\":\"a\",\"finalizers\":[\"f\"]},\"spec\":{\"$retainKeys\":[\"a\"]}}",
    ];
    let kinds = seeds::kinds();
    let objects = kinds.iter().enumerate().filter(|(_, (gvk, _))| wanted.contains(&&*gvk.kind));
    let both = |at, object: &Value, patch: &str| {
        chosen(at, &[object.to_string().as_bytes(), b"\0", patch.as_bytes()].concat())
    };
    objects
        .flat_map(|(at, (gvk, ty))| {
            let object = seeds::object(gvk, ty);
            patches.map(|patch| both(at, &object, patch))
        })
        .collect()
}

fn run(input: &[u8]) {
    let Some((_, ty, rest)) = choose(input) else { return };
    let (object, patch) = halves(rest);
    let Ok(object) = schema::decode_json(ty, object, FieldValidation::Ignore) else { return };
    let working = object.value;
    // Patches are made against what clients see.
    let mut printed = Vec::new();
    schema::encode_json(ty, &working, &mut printed);
    let document: Value = serde_json::from_slice(&printed).expect("what was printed is JSON");
    drop(patch::json(&document, patch));
    drop(patch::json_unknown_fields(patch));
    for merge in [Merge::Plain, Merge::Strategic] {
        let whole = match merge {
            Merge::Plain => patch::merge(document.clone(), patch),
            Merge::Strategic => patch::strategic_merge(ty, &document, patch),
        };
        let whole = whole.ok().and_then(|merged| {
            schema::decode_value(ty, &merged, FieldValidation::Ignore).ok().map(|it| it.value)
        });
        // The short way, where it dares, leads to the same.
        if let Some(short) = patch::merge_touched(ty, &working, patch, merge) {
            assert_eq!(Some(short), whole, "{merge:?}");
        }
    }
    let Ok(config) = schema::decode_json(ty, patch, FieldValidation::Ignore) else { return };
    let Ok(applied) = apply::merged(ty, &working, &config.value) else { return };
    let twice = apply::merged(ty, &applied, &config.value);
    assert_eq!(twice.ok(), Some(applied), "applying again changes nothing");
}
