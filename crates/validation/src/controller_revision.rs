//! ControllerRevisions: data that does not change.

use crate::FieldError;
use crate::node::{Findings, Node};

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    let data = object.get("data");
    if !data.is_set() {
        out.push(FieldError::required(&data.path, "data is mandatory"));
    } else if !data.value.is_object() {
        out.push(FieldError::required(&data.path, "data must be a valid JSON object"));
    }
    object.get("revision").non_negative(out);
}

pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    new.get("revision").non_negative(out);
    new.get("data").immutable(&old.get("data"), out);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::{check, check_update};

    #[test]
    fn data_is_an_object_and_stays() {
        let with = |data: Value, revision: i64| json!({"metadata": {"name": "r", "namespace": "n"}, "data": data, "revision": revision});
        check(
            "apps",
            "ControllerRevision",
            with(json!([1]), -1),
            &[
                "data: Required value: data must be a valid JSON object",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check_update(
            "apps",
            "ControllerRevision",
            "",
            (&with(json!({"a": 1}), 1), &with(json!({"a": 2}), 1)),
            &["data: Invalid value: {\"a\":1}: field is immutable"],
        );
    }
}
