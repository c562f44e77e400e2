//! What definitions are refused for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::node::Node;
use crate::tests::{check, check_update};

fn definition(versions: Value) -> Value {
    json!({"metadata": {"name": "foos.a.b"}, "spec": {"group": "a.b", "scope": "Cluster",
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "versions": versions}, "status": {"storedVersions": ["v1"]}})
}

fn version(schema: Value) -> Value {
    json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}})
}

fn refused(versions: Value, expected: &[&str]) {
    check("apiextensions.k8s.io", "CustomResourceDefinition", definition(versions), expected);
}

/// Findings below the schema that all versions share.
fn refused_schema(spec: Value, expected: &[&str]) {
    let root = json!({"type": "object", "properties": {"spec": spec}});
    let expected: Vec<String> = expected
        .iter()
        .map(|text| format!("spec.validation.openAPIV3Schema.properties[spec]{text}"))
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    refused(json!([version(root)]), &expected);
}

#[test]
fn a_plain_definition_is_valid() {
    refused(json!([version(json!({"type": "object"}))]), &[]);
}

#[test]
fn what_one_version_has_is_the_definitions() {
    refused(
        json!([version(json!({}))]),
        &["spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"],
    );
    let mut other = version(json!({"type": "object"}));
    (other["name"], other["storage"]) = (json!("v2"), json!(false));
    refused(
        json!([version(json!({"type": "array"})), other]),
        &[
            "spec.versions[0].schema.openAPIV3Schema.items: Required value: must be specified",
            "spec.versions[0].schema.openAPIV3Schema.type: Invalid value: \"array\": must be object at \
         the root",
        ],
    );
}

#[test]
fn every_field_has_a_type() {
    refused_schema(
        json!({"type": "object", "properties": {"a": {}}}),
        &[".properties[a].type: Required value: must not be empty for specified object fields"],
    );
    refused_schema(
        json!({"x-kubernetes-int-or-string": true, "anyOf": [
        {"type": "integer"}, {"type": "string"}]}),
        &[],
    );
    refused_schema(
        json!({"type": "object", "allOf": [{"type": "string"}]}),
        &[".allOf[0].type: Forbidden: must be empty to be structural"],
    );
}

#[test]
fn defaults_have_their_type() {
    refused_schema(
        json!({"type": "integer", "default": "a"}),
        &[".default: Invalid value: \"string\":  in body must be of type integer: \"string\""],
    );
    refused_schema(
        json!({"type": "string", "enum": ["a"], "default": "b"}),
        &[".default: Unsupported value: \"b\": supported values: \"a\""],
    );
}

#[test]
fn maps_in_lists_have_keys() {
    let list = |keys: Value, item: Value| {
        json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": keys, "items": item})
    };
    let item = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    refused_schema(
        list(json!(["a", "b"]), item),
        &[
            ".x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\"]: entries must all be names of \
         item properties",
            ".items.properties[a].default: Required value: this property is in \
         x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
}

#[test]
fn selectable_fields_lead_to_plain_values() {
    let mut one = version(json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}));
    one["selectableFields"] = json!([{"jsonPath": ".spec.a"}, {"jsonPath": ".spec"}, {"jsonPath": ".spec.b"},
            {"jsonPath": "spec"}, {"jsonPath": ".spec.a"}]);
    refused(
        json!([one]),
        &[
            "spec.selectableFields[1].jsonPath: Invalid value: \".spec\": must point to a field of \
         type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "spec.selectableFields[2].jsonPath: Invalid value: \".spec.b\": is an invalid path: does \
         not refer to a valid field",
            "spec.selectableFields[3].jsonPath: Invalid value: \"spec\": is an invalid path: expected \
         [ or . but got: spec",
            "spec.selectableFields[4].jsonPath: Duplicate value: \".spec.a\"",
        ],
    );
}

#[test]
fn groups_of_the_project_need_its_approval() {
    let mut object = definition(json!([version(json!({"type": "object"}))]));
    object["spec"]["group"] = json!("a.k8s.io");
    object["metadata"]["name"] = json!("foos.a.k8s.io");
    check(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        object.clone(),
        &[
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must \
         have approval annotation \"api-approved.kubernetes.io\", see \
         https://github.com/kubernetes/enhancements/pull/1111",
        ],
    );
    object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
    check("apiextensions.k8s.io", "CustomResourceDefinition", object, &[]);
}

#[test]
fn what_is_established_stays() {
    let mut old = definition(json!([version(json!({"type": "object"}))]));
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    new["spec"]["scope"] = json!("Namespaced");
    check_update(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "",
        (&new, &old),
        &["spec.scope: Invalid value: \"Namespaced\": field is immutable"],
    );
}

#[test]
fn what_is_established_keeps_authorities_for_its_webhook() {
    let params = rcgen::CertificateParams::default();
    let authority = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    let served = |bundle: &str| {
        let mut object = definition(json!([version(json!({"type": "object"}))]));
        object["metadata"]["resourceVersion"] = json!("1");
        object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://hooks.example.com", "caBundle": bundle}}});
        object["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        object
    };
    let check = |old: &str, new: &str, why: Option<&str>| {
        let (old, new) = (STANDARD.encode(old), STANDARD.encode(new));
        let expected = why.map(|why| {
            format!(
                "spec.conversion.webhookClientConfig.caBundle: Invalid value: {new:?}: unable to \
                 load root certificates: {why}"
            )
        });
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        let (group, kind) = ("apiextensions.k8s.io", "CustomResourceDefinition");
        check_update(group, kind, "", (&served(&new), &served(&old)), &expected);
    };
    check(&authority, "", None);
    check("", &authority, None);
    check("", "words", Some("unable to parse bytes as PEM block"));
    let key = authority.replace("CERTIFICATE", "KEY");
    check(&authority, &key, Some("no valid certificate authority data seen"));
    let broken = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n";
    let malformed = Some("failed to parse certificate: x509: malformed certificate");
    check(&authority, broken, malformed);
    check("words", "other words", None);
    // What is not served yet says so in a condition.
    let mut early = served(&STANDARD.encode("words"));
    early["status"]["conditions"] = json!([]);
    let (group, kind) = ("apiextensions.k8s.io", "CustomResourceDefinition");
    let mut before = early.clone();
    before["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] = json!("");
    check_update(group, kind, "", (&early, &before), &[]);
}

#[test]
fn what_is_structural_at_a_glance_is_structural() {
    let check = |schema: Value, is_plain: bool| {
        assert_eq!(super::structural::is_plain(&schema), is_plain, "{schema}");
        let mut found = Vec::new();
        super::structural::validate(&Node::root(&schema), &mut found);
        assert!(!is_plain || found.is_empty(), "{schema}: {found:?}");
    };
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    check(json!({"type": "object"}), true);
    let list = json!({"type": "array", "items": {"type": "string", "maxLength": 3}});
    let map = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    check(object(json!({"spec": object(json!({"list": list, "map": map}))})), true);
    check(json!({"type": "object", "additionalProperties": true}), false);
    check(object(json!({"metadata": {"type": "object"}})), false);
    for field in [
        json!({}),
        json!({"type": ""}),
        json!({"type": "array"}),
        json!({"type": "array", "items": {}}),
        json!({"type": "object", "additionalProperties": {}}),
        json!({"type": "object", "anyOf": [{"type": "object"}]}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true}),
        json!({"type": "string", "x-kubernetes-int-or-string": true}),
    ] {
        check(object(json!({ "a": field })), false);
    }
}

#[test]
fn stored_schemas_that_are_not_structural_are_found() {
    let check = |schema: Value| {
        let versions = json!([{"name": "v1", "schema": {"openAPIV3Schema": schema}}]);
        let found = super::structure(&json!({"spec": {"versions": versions}}));
        found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(check(json!({"type": "object"})), Ok(vec![]));
    let path = "spec.versions[0].schema.openAPIV3Schema";
    let missing = format!(
        "{path}.properties[a].type: Required value: must not be empty for specified object fields"
    );
    assert_eq!(check(json!({"type": "object", "properties": {"a": {}}})), Ok(vec![missing]));
    let unreadable = |what: &str| {
        Err(format!("failed to check validation schema for version v1: OpenAPIV3Schema {what}"))
    };
    assert_eq!(
        check(json!({"type": "object", "properties": {"a": {"$ref": "#/b"}}})),
        unreadable("'$ref' is not supported")
    );
    assert_eq!(
        check(json!({"type": "object", "anyOf": [{"definitions": {"a": {}}}]})),
        unreadable("'definitions' is not supported")
    );
    assert_eq!(
        check(json!({"type": "array", "items": [{}]})),
        unreadable("'items' must be a schema, but is an array")
    );
    let kept = super::structure(&json!({"spec": {"preserveUnknownFields": true}})).unwrap();
    let message = "spec.preserveUnknownFields: Invalid value: true: must be false";
    assert_eq!(kept[0].to_string(), message);
}
