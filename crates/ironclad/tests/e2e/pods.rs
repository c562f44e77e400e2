//! Pods, as users run them.

use serde_json::json;

use crate::harness::{Harness, pod, pod_path, server};

#[test]
fn a_pod_runs_with_its_own_address_and_writes_a_log() {
    let harness = Harness::start();
    harness.create("pods", &server("web"));
    let web = harness.ready_pod("web");
    let address = web["status"]["podIP"].as_str().unwrap();
    assert!(address.starts_with("10.42.0."), "{address}");
    assert_eq!(web["status"]["phase"], "Running");
    assert_eq!(web["status"]["qosClass"], "BestEffort");
    assert_eq!(harness.fetch(address, 8080, "/hostname").unwrap(), "web");

    let text = harness.until("the log has a line", || {
        let text = harness.text(&format!("{}/log", pod_path("web")));
        text.contains("asked for /hostname").then_some(text)
    });
    assert!(text.starts_with("serving on port 8080\n"), "{text}");

    harness.delete(&pod_path("web"));
    harness.until("the pod is gone", || (!harness.exists(&pod_path("web"))).then_some(()));
}

#[test]
fn pods_that_end_have_succeeded_or_failed() {
    let harness = Harness::start();
    for (name, args, phase) in
        [("good", ["print", "done"], "Succeeded"), ("bad", ["fail", "3"], "Failed")]
    {
        let mut ending = pod(name, &args);
        ending["spec"]["restartPolicy"] = json!("Never");
        harness.create("pods", &ending);
        let ended = harness.until(&format!("{name} has ended"), || {
            let pod = harness.get(&pod_path(name));
            let phase = pod["status"]["phase"].as_str()?.to_owned();
            matches!(phase.as_str(), "Succeeded" | "Failed").then_some(pod)
        });
        assert_eq!(ended["status"]["phase"], phase);
        let state = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(state["exitCode"], if name == "good" { 0 } else { 3 });
        assert_eq!(state["reason"], if name == "good" { "Completed" } else { "Error" });
    }
}

#[test]
fn configuration_reaches_a_pod_by_environment_and_by_file() {
    let harness = Harness::start();
    harness.create(
        "configmaps",
        &json!({ "metadata": { "name": "config" }, "data": { "key": "of-the-map" } }),
    );
    harness.create(
        "secrets",
        &json!({ "metadata": { "name": "secret" }, "stringData": { "key": "of-the-secret" } }),
    );
    let mut configured = server("configured");
    configured["spec"]["volumes"] = json!([
        { "name": "map", "configMap": { "name": "config" } },
        { "name": "secret", "secret": { "secretName": "secret" } },
        { "name": "scratch", "emptyDir": {} },
        { "name": "down", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
    ]);
    let container = &mut configured["spec"]["containers"][0];
    container["env"] = json!([
        { "name": "PLAIN", "value": "plain" },
        { "name": "EXPANDED", "value": "$(PLAIN)-expanded" },
        { "name": "FROM_MAP",
          "valueFrom": { "configMapKeyRef": { "name": "config", "key": "key" } } },
        { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
    ]);
    container["volumeMounts"] = json!([
        { "name": "map", "mountPath": "/etc/map" },
        { "name": "secret", "mountPath": "/etc/secret", "readOnly": true },
        { "name": "scratch", "mountPath": "/scratch" },
        { "name": "down", "mountPath": "/etc/down" },
    ]);
    harness.create("pods", &configured);
    let address = harness.ready_pod("configured")["status"]["podIP"].as_str().unwrap().to_owned();
    for (path, expected) in [
        ("/env?EXPANDED", "plain-expanded"),
        ("/env?FROM_MAP", "of-the-map"),
        ("/env?NODE", "node-1"),
        ("/file?/etc/map/key", "of-the-map"),
        ("/file?/etc/secret/key", "of-the-secret"),
        ("/file?/etc/down/labels", "app=\"configured\""),
    ] {
        assert_eq!(harness.fetch(&address, 8080, path).unwrap(), expected, "{path}");
    }
    let token = "/file?/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    assert_eq!(harness.fetch(&address, 8080, token).unwrap(), "default");
}

#[test]
fn a_container_that_ends_is_started_again() {
    let harness = Harness::start();
    harness.create("pods", &server("phoenix"));
    let address = harness.ready_pod("phoenix")["status"]["podIP"].as_str().unwrap().to_owned();
    // The process ends before it answers.
    harness.fetch(&address, 8080, "/exit?7").ok();
    let again = harness.until("the container was restarted", || {
        let pod = harness.get(&pod_path("phoenix"));
        let status = pod["status"]["containerStatuses"][0].clone();
        (status["restartCount"] == 1 && status["ready"] == true).then_some(status)
    });
    assert_eq!(again["lastState"]["terminated"]["exitCode"], 7);
    assert!(harness.fetch(&address, 8080, "/hostname").is_ok(), "the address stays");
}

#[test]
fn an_image_that_is_not_there_is_said_to_be_missing() {
    let harness = Harness::start();
    let mut pod = pod("missing", &[]);
    pod["spec"]["containers"][0]["image"] = json!("no-such-image:1");
    harness.create("pods", &pod);
    let waiting = harness.until("the pod waits for its image", || {
        let pod = harness.get(&pod_path("missing"));
        let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        matches!(waiting["reason"].as_str()?, "ErrImagePull" | "ImagePullBackOff")
            .then_some(waiting)
    });
    assert!(waiting["message"].as_str().unwrap().contains("no-such-image"), "{waiting}");
}
