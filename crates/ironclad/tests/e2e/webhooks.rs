//! Admission webhooks that are pods behind a service: what upstream's suite demands of them. The
//! API server is on the node's network, not on that of the pods.

use http::Method;
use serde_json::{Value, json};

use crate::extension::{CONFIG_MAPS, Extended, config_map, hook, rule, with};
use crate::harness::{pod, server};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// `[sig-api-machinery] AdmissionWebhook should be able to deny pod and configmap creation`, `should
/// honor timeout`, `should unconditionally reject operations on fail closed webhook`, `should not be
/// able to mutate or prevent deletion of webhook configuration objects`.
#[test]
fn webhooks_refuse_and_time_out() {
    let extended = Extended::start();
    let (harness, of) = (&extended.harness, |path: &str| extended.client(path));
    let all = ["CREATE", "UPDATE", "DELETE"];
    extended
        .register("validating", &[hook("maps", &of("/config-maps"), &rule("configmaps", &all))]);
    let bad = config_map("bad", &json!({"webhook-e2e-test": "webhook-disallow"}));
    let why = "admission webhook \"maps.example.com\" denied the request: the configmap contains \
               unwanted key and value";
    assert!(extended.refused("configmaps", &bad).contains(why));
    harness.create("configmaps", &config_map("good", &json!({})));
    for method in [Method::PUT, Method::PATCH] {
        let changed = with(bad.clone(), "metadata", json!({"name": "good"}));
        let path = format!("{CONFIG_MAPS}/good");
        let refused = harness.request(method, &path, Some(&changed)).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    extended.unregister("validating");

    let (maps, slow) = (rule("configmaps", &["CREATE"]), of("/allow-late"));
    let slow = with(hook("slow", &slow, &maps), "timeoutSeconds", json!(1));
    let slow = with(slow, "objectSelector", json!({"matchLabels": {"slow": "yes"}}));
    extended.register("validating", &[slow]);
    let refused = extended.refused("configmaps", &slowly("x"));
    let url = "https://extension.default.svc:8443/allow-late?timeout=1s";
    assert!(
        refused.contains(&format!(
            "failed calling webhook \"slow.example.com\": failed to call webhook: Post {url:?}: \
             context deadline exceeded"
        )),
        "{refused}"
    );
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/hooks");
    let patch = |field: &str, value: Value| {
        let mut hooks = harness.get(&path);
        hooks["webhooks"][0][field] = value;
        harness.request(Method::PUT, &path, Some(&hooks)).unwrap();
    };
    patch("failurePolicy", json!("Ignore"));
    harness.create("configmaps", &slowly("ignored"));
    patch("timeoutSeconds", json!(10));
    harness.create("configmaps", &slowly("waited-for"));
    // One that nobody vouches for fails closed, with the server's own error.
    patch("failurePolicy", json!("Fail"));
    let mut unknown = of("/allow");
    unknown.as_object_mut().unwrap().remove("caBundle");
    patch("clientConfig", unknown);
    let refused = harness.request(Method::POST, CONFIG_MAPS, Some(&slowly("y")));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("failed calling webhook \"slow.example.com\""), "{refused}");
    assert!(refused.contains("certificate signed by unknown authority"), "{refused}");
    extended.unregister("validating");

    // Nobody is asked about the configurations themselves.
    let configurations = rule("*", &["*"]);
    let configurations =
        with(configurations[0].clone(), "apiGroups", json!(["admissionregistration.k8s.io"]));
    let deny = hook("deny", &of("/deny"), &json!([configurations]));
    extended.register("validating", std::slice::from_ref(&deny));
    extended.register("mutating", std::slice::from_ref(&deny));
    patch("timeoutSeconds", json!(3));
    assert_eq!(harness.get(&path)["webhooks"][0]["timeoutSeconds"], 3);
    extended.unregister("validating");
    extended.unregister("mutating");
}

/// What the slow webhook is asked about.
fn slowly(name: &str) -> Value {
    with(config_map(name, &json!({})), "metadata", json!({"name": name, "labels": {"slow": "yes"}}))
}

/// `[sig-api-machinery] AdmissionWebhook should mutate configmap`, `should mutate pod and apply
/// defaults after mutation`, `should be able to deny attaching pod`, `should reject mutating webhook
/// configurations with invalid match conditions`, `should mutate everything except 'skip-me'
/// configmaps`.
#[test]
fn webhooks_change_what_is_written_and_refuse_connections() {
    let extended = Extended::start();
    let (harness, of) = (&extended.harness, |path: &str| extended.client(path));
    let create = ["CREATE"];
    let skip = json!([{"name": "skip", "expression": "object.metadata.name != 'skip-me'"}]);
    let stages = ["stage-1", "stage-2"].map(|stage| {
        let hook = hook(stage, &of(&format!("/{stage}")), &rule("configmaps", &create));
        with(hook, "matchConditions", skip.clone())
    });
    let [first, second] = stages;
    let init = hook("init", &of("/init-container"), &rule("pods", &create));
    let selected = json!({"matchLabels": {"init": "yes"}});
    extended.register("mutating", &[first, second, with(init, "objectSelector", selected)]);
    let created = harness.create("configmaps", &config_map("a", &json!({"mutation-start": "yes"})));
    let expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes",
        "mutation-stage-2": "yes"});
    assert_eq!(created["data"], expected);
    let skipped =
        harness.create("configmaps", &config_map("skip-me", &json!({"mutation-start": "yes"})));
    assert_eq!(skipped["data"], json!({"mutation-start": "yes"}));
    let mut marked = pod("changed", &["wait"]);
    marked["metadata"]["labels"]["init"] = json!("yes");
    let changed = harness.create("pods", &marked);
    let init = &changed["spec"]["initContainers"][0];
    assert_eq!(init["name"], "webhook-added-init-container");
    assert_eq!(init["terminationMessagePolicy"], "File");
    harness.ready_pod("changed");
    extended.unregister("mutating");

    let mut broken = hook("broken", &of("/allow"), &rule("pods", &create));
    broken["matchConditions"] = json!([{"name": "a", "expression": "... [] bad expression"}]);
    let body = json!({"metadata": {"name": "broken"}, "webhooks": [broken]});
    let path = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations");
    let refused = harness.request(Method::POST, &path, Some(&body)).unwrap_err().to_string();
    assert!(refused.contains("compilation failed"), "{refused}");

    harness.create("pods", &server("to-be-attached-pod"));
    harness.ready_pod("to-be-attached-pod");
    let connections = ["attach", "exec"].map(|what| {
        let rules = rule(&format!("pods/{what}"), &["CONNECT"]);
        hook(what, &of(&format!("/{what}")), &rules)
    });
    extended.register("validating", &connections);
    for (what, protocol) in [
        ("attach", "websocket"),
        ("attach", "SPDY/3.1"),
        ("exec", "websocket"),
        ("exec", "SPDY/3.1"),
    ] {
        let (code, answer) = upgrade(&extended, what, protocol);
        assert_eq!(code, 400, "{protocol}: {answer}");
        let verb = if what == "attach" { "attaching to" } else { "executing in" };
        let why = format!("{verb} pod 'to-be-attached-pod' is not allowed");
        assert!(answer["message"].as_str().unwrap().contains(&why), "{answer}");
        assert_eq!(answer["kind"], "Status");
    }
}

/// What a request for another protocol is answered with, when it is refused.
fn upgrade(extended: &Extended, what: &str, protocol: &str) -> (u16, Value) {
    let path = format!(
        "/api/v1/namespaces/default/pods/to-be-attached-pod/{what}?stdin=true&stdout=true&command=x"
    );
    let (head, body) = extended.harness.upgrade(&path, protocol);
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(&body).unwrap_or_default())
}

/// Custom resources: refused, changed and pruned, and a webhook that asks the server back.
#[test]
fn webhooks_are_asked_about_custom_resources() {
    let extended = Extended::start();
    let (harness, of) = (&extended.harness, |path: &str| extended.client(path));
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let data = json!({"type": "object", "properties": {
        "mutation-start": {"type": "string"}, "mutation-stage-1": {"type": "string"},
        "webhook-e2e-test": {"type": "string"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"data": data}}});
    let version = |name: &str, is_stored: bool| {
        json!({"name": name, "served": true,
        "storage": is_stored, "schema": schema})
    };
    let definition = json!({"metadata": {"name": "foos.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
        "versions": [version("v1", true), version("v2", false)]}});
    harness.request(Method::POST, definitions, Some(&definition)).unwrap();
    let foo = |name: &str, data: &Value| {
        json!({"apiVersion": "example.com/v1", "kind": "Foo",
        "metadata": {"name": name}, "data": data})
    };
    harness.until("the custom resource is served", || {
        extended.post("example.com/v1/foos", &foo("marker", &json!({}))).ok()
    });
    // The webhook asks for the other version, and gets what it adds pruned.
    let of_v2 = json!([{"apiGroups": ["example.com"], "apiVersions": ["v2"],
        "resources": ["foos"], "operations": ["CREATE"]}]);
    extended.register(
        "mutating",
        &[hook("stage", &of("/stage-1"), &of_v2), hook("unknown", &of("/unknown-field"), &of_v2)],
    );
    let made = harness.create("example.com/v1/foos", &foo("a", &json!({"mutation-start": "yes"})));
    assert_eq!(made["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes"}));
    let all = ["CREATE", "UPDATE", "DELETE"];
    extended.register(
        "validating",
        &[
            hook("foos", &of("/config-maps"), &rule("foos", &all)),
            with(
                hook("definitions", &of("/deny"), &rule("customresourcedefinitions", &["CREATE"])),
                "objectSelector",
                json!({"matchLabels": {"webhook-e2e-test": "webhook-disallow"}}),
            ),
        ],
    );
    let bad = foo("bad", &json!({"webhook-e2e-test": "webhook-disallow"}));
    let refused = extended.refused("example.com/v1/foos", &bad);
    assert!(refused.contains("the configmap contains unwanted key and value"), "{refused}");
    let mut denied = definition.clone();
    denied["metadata"] = json!({"name": "foos.example.com",
        "labels": {"webhook-e2e-test": "webhook-disallow"}});
    let refused = harness.request(Method::POST, definitions, Some(&denied)).unwrap_err();
    assert!(refused.to_string().contains("this webhook denies all requests"), "{refused}");
    extended.unregister("validating");
    // A webhook that asks the server in the midst of its request holds nobody up.
    let back = of("/call-back/10.43.0.1");
    extended.register("validating", &[hook("back", &back, &rule("foos", &["CREATE"]))]);
    harness.create("example.com/v1/foos", &foo("b", &json!({})));
    assert!(extended.log().contains("/call-back/10.43.0.1"));
}
