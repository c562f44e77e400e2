//! Decoding, and the errors of what cannot be decoded.

use super::*;
use crate::registry;
use meta::GroupVersionKind;
use proptest::prelude::*;

fn pod() -> &'static Type {
    registry().kind(&GroupVersionKind::new("", "v1", "Pod")).unwrap()
}

fn failure(text: &str) -> String {
    decode_json(pod(), text.as_bytes(), FieldValidation::Strict).unwrap_err().to_string()
}

#[test]
fn zeros_and_nulls_are_dropped() {
    let text = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":null,"creationTimestamp":null},
        "spec":{"hostNetwork":false,"terminationGracePeriodSeconds":0,"containers":[{"name":"c","env":[],"resources":{}}]},"status":{}}"#;
    let decoded = decode_json(pod(), text.as_bytes(), FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.value,
        serde_json::json!({"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},
            "spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c"}]}})
    );
}

#[test]
fn a_struct_that_stays_empty_is_absent_however_often_it_is_given() {
    let gvk = GroupVersionKind::new("coordination.k8s.io", "v1", "Lease");
    let lease = registry().kind(&gvk).unwrap();
    for text in [
        r#"{"spec":{},"spec":{"unknown":1}}"#,
        r#"{"spec":{"unknown":1},"spec":{}}"#,
        r#"{"spec":{}}"#,
    ] {
        let decoded = decode_json(lease, text.as_bytes(), FieldValidation::Ignore).unwrap();
        assert_eq!(decoded.value, serde_json::json!({}), "{text}");
    }
    let both = r#"{"spec":{"holderIdentity":"a"},"spec":{"leaseTransitions":1}}"#;
    let decoded = decode_json(lease, both.as_bytes(), FieldValidation::Ignore).unwrap();
    let spec = serde_json::json!({"holderIdentity": "a", "leaseTransitions": 1});
    assert_eq!(decoded.value["spec"], spec);
}

#[test]
fn no_time_at_all_is_absent() {
    let gvk = GroupVersionKind::new("metrics.k8s.io", "v1beta1", "NodeMetrics");
    let metrics = registry().kind(&gvk).unwrap();
    for text in [r#"{"window":"0s"}"#, r#"{"window":"0h0m0s"}"#, "{}"] {
        let decoded = decode_json(metrics, text.as_bytes(), FieldValidation::Ignore).unwrap();
        assert_eq!(decoded.value, serde_json::json!({}), "{text}");
    }
}

#[test]
fn type_errors_are_in_go_words() {
    for (text, expected) in [
        (
            r#"{"spec":{"containers":"x"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"containers":[{"image":1}]}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            r#"{"spec":{"priority":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"metadata":{"creationTimestamp":5}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            r#"{"spec":{"overhead":{"cpu":"x"}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(failure(text), expected);
    }
}

#[test]
fn syntax_errors_are_in_go_words() {
    for (text, expected) in [
        ("", "unexpected end of JSON input"),
        ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
        (r#"{"a":1"#, "unexpected end of JSON input"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 2}"#, "invalid character '2' after object key:value pair"),
        (r#"{"a":[1 2]}"#, "invalid character '2' after array element"),
        (r#"{} x"#, "invalid character 'x' after top-level value"),
        (r#"{'a':1}"#, r"invalid character '\'' looking for beginning of object key string"),
        (r#"{"a":01}"#, "invalid character '1' after object key:value pair"),
    ] {
        assert_eq!(failure(text), expected, "{text}");
        let meta = read_type_meta(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(meta, format!("couldn't get version/kind; json parse error: {expected}"));
    }
}

#[test]
fn unknown_and_duplicate_fields_are_found_in_order() {
    let text = r#"{"metadata":{"name":"a","name":"b","lables":{}},
        "spec":{"containers":[{"image":"a","image":"b","prots":[]},{"bar":1}],"hostNetwrok":true}}"#;
    let decoded = decode_json(pod(), text.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(
        decoded.warnings,
        [
            "duplicate field \"metadata.name\"",
            "unknown field \"metadata.lables\"",
            "duplicate field \"spec.containers[0].image\"",
            "unknown field \"spec.containers[0].prots\"",
            "unknown field \"spec.containers[1].bar\"",
            "unknown field \"spec.hostNetwrok\"",
        ]
    );
    assert_eq!(decoded.value["metadata"]["name"], "b");
}

#[test]
fn depth_is_limited() {
    let deep = "[".repeat(20_000);
    let text = format!("{{\"x\":{deep}");
    assert_eq!(failure(&text), "invalid character '[' exceeded max depth");
    let schema =
        registry().kind(&GroupVersionKind::new("apps", "v1", "ControllerRevision")).unwrap();
    let text = format!("{{\"data\":{}{}}}", "[".repeat(200), "]".repeat(200));
    assert!(decode_json(schema, text.as_bytes(), FieldValidation::Ignore).is_err());
}

/// Bytes that look like an object, so that decoding gets somewhere.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(":".to_owned()),
        Just(",".to_owned()),
        Just("\"spec\"".to_owned()),
        Just("\"containers\"".to_owned()),
        Just("\"metadata\"".to_owned()),
        Just("null".to_owned()),
        Just("-1.5e3".to_owned()),
        "[ -~]{0,3}".prop_map(|text| text),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn nothing_from_outside_makes_decoding_panic(
        text in nearly_json(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        for input in [&text, &bytes] {
            let decoded = decode_json(pod(), input, FieldValidation::Strict);
            let serde = serde_json::from_slice::<Value>(input);
            // What Go takes for JSON, serde takes too.
            prop_assert!(decoded.is_err() || serde.is_ok());
            drop(decode_yaml(pod(), input, FieldValidation::Warn));
            drop(read_type_meta(input));
            drop(crate::decode_protobuf(&[&crate::PROTOBUF_MAGIC[..], input].concat()));
        }
    }
}

#[test]
fn type_errors_name_what_go_embeds() {
    for (text, expected) in [
        (
            r#"{"spec":{"containers":[{"livenessProbe":{"exec":{"command":1}}}]}}"#,
            "ExecAction.spec.containers.livenessProbe.ProbeHandler.exec.command of type []string",
        ),
        (
            r#"{"spec":{"volumes":[{"secret":"x"}]}}"#,
            "Volume.spec.volumes.VolumeSource.secret of type v1.SecretVolumeSource",
        ),
    ] {
        let error = failure(text);
        assert!(error.ends_with(expected), "{error}");
    }
    // What is unknown is found by another part of upstream's decoder, which does not.
    let text = r#"{"spec":{"containers":[{"livenessProbe":{"exec":{"x":1}}}]}}"#;
    assert_eq!(
        failure(text),
        "strict decoding error: unknown field \"spec.containers[0].livenessProbe.exec.x\""
    );
}

#[test]
fn empty_values_stay_where_they_are_refused() {
    let decoded = |group: &str, kind: &str, text: &str| {
        let ty = registry().kind(&GroupVersionKind::new(group, "v1", kind)).unwrap();
        decode_json(ty, text.as_bytes(), FieldValidation::Strict).unwrap().value
    };
    let template = r#"{"spec":{"template":{"metadata":{"labels":{}}}}}"#;
    let labels = "/spec/template/metadata/labels";
    let has_labels =
        |kind: &str, group: &str| decoded(group, kind, template).pointer(labels).is_some();
    assert!(has_labels("DaemonSet", "apps"));
    assert!(!has_labels("Job", "batch"));
    let volume = decoded("", "PersistentVolume", r#"{"spec":{"capacity":{},"mountOptions":[]}}"#);
    assert_eq!(volume, serde_json::json!({"spec": {"capacity": {}}}));
}
