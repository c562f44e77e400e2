use super::*;
use serde_json::json;

fn findings(group: &str, kind: &str, mut object: Value) -> Vec<String> {
    let gvk = GroupVersionKind::new(group, "v1", kind);
    schema::apply_defaults(&gvk, &mut object);
    validate_create(&gvk, &object).iter().map(ToString::to_string).collect()
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

#[test]
fn a_plain_pod_is_valid() {
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    assert_eq!(findings("", "Pod", pod(spec)), [""; 0]);
}

#[test]
fn a_pod_needs_containers_with_names_and_images() {
    assert_eq!(findings("", "Pod", pod(json!({}))), ["spec.containers: Required value"]);
    assert_eq!(
        findings(
            "",
            "Pod",
            pod(
                json!({"containers": [{}, {"name": "a", "image": "i"}, {"name": "a", "image": "i"}]})
            )
        ),
        [
            "spec.containers[0].name: Required value",
            "spec.containers[0].image: Required value",
            "spec.containers[2].name: Duplicate value: \"a\"",
        ]
    );
}

#[test]
fn mounts_must_name_volumes() {
    let mount = json!({"name": "v", "mountPath": "/a"});
    let spec = json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [mount]}]});
    assert_eq!(
        findings("", "Pod", pod(spec)),
        ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
    );
}

#[test]
fn names_are_checked_by_kind() {
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "n"}});
    assert!(findings("", "ConfigMap", named("a.b")).is_empty());
    assert_eq!(
        findings("", "ConfigMap", json!({"metadata": {"namespace": "n"}})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    let namespace = findings("", "Namespace", json!({"metadata": {"name": "a.b"}}));
    assert_eq!(namespace, ["metadata.name: Invalid value: \"a.b\": must not contain dots"]);
}

#[test]
fn a_deployment_must_select_its_template() {
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"a": "x"}}, "template": template}});
    assert_eq!(
        findings("apps", "Deployment", object),
        ["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match \
          template `labels`"]
    );
}

#[test]
fn only_the_image_of_a_pod_may_change() {
    let gvk = GroupVersionKind::new("", "v1", "Pod");
    let mut old = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    schema::apply_defaults(&gvk, &mut old);
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("other");
    assert_eq!(validate_update(&gvk, "", &new, &old), []);
    new["spec"]["nodeName"] = json!("n");
    let findings = validate_update(&gvk, "", &new, &old);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].to_string().starts_with("spec: Forbidden: pod updates may not change"));
}

#[test]
fn immutable_config_stays() {
    let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
    let with = |value: &str, fixed: bool| json!({"metadata": {"name": "a"}, "data": {"k": value}, "immutable": fixed});
    assert_eq!(validate_update(&gvk, "", &with("1", true), &with("1", true)), []);
    let findings = validate_update(&gvk, "", &with("2", true), &with("1", true));
    assert_eq!(
        findings[0].to_string(),
        "data: Forbidden: field is immutable when `immutable` is set"
    );
}
