//! Protobuf of every kind: what is decoded is encoded and decoded to the same.

use super::Target;
use crate::seeds;

pub(super) const TARGET: Target = Target::new("protobuf", seeds, run);

fn seeds() -> Vec<Vec<u8>> {
    let kinds = seeds::kinds().into_iter();
    kinds
        .filter_map(|(gvk, ty)| Some(schema::encode_protobuf(&gvk, &seeds::working(&gvk, ty)?)))
        .collect()
}

fn run(input: &[u8]) {
    let Ok((gvk, value)) = schema::decode_protobuf(input) else { return };
    let encoded = schema::encode_protobuf(&gvk, &value);
    let (_, again) = schema::decode_protobuf(&encoded).expect("what was encoded is decoded");
    assert_eq!(again, value, "{gvk}");
}
