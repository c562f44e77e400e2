//! Pods that take more than is theirs: they are held to it, and nobody else notices.

use serde_json::{Value, json};
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, pod, pod_path, server};

#[test]
fn a_pod_that_forks_without_end_is_stopped_at_its_limit() {
    let mut options = Options::new(IRONCLAD);
    options.args.extend(["--pod-max-pids=100", "--max-pods=42"].map(str::to_owned));
    options.args.push("--node-cidr-mask-size-ipv4=26".to_owned());
    let harness = Harness::with(options);
    let nodes = harness.get("/api/v1/nodes");
    let node = &nodes["items"][0];
    assert_eq!(node["status"]["capacity"]["pods"], "42");
    assert!(node["spec"]["podCIDR"].as_str().unwrap().ends_with("/26"), "{}", node["spec"]);
    harness.create("pods", &pod("bomb", &["bomb", "wait"]));
    let log = || harness.text(&format!("{}/log", pod_path("bomb")));
    harness.ready_pod("bomb");
    let said = harness.until("it cannot go on", || Some(log()).filter(|log| log.ends_with('\n')));
    // Itself is one of the hundred.
    assert_eq!(said, "99 processes\n");
    harness.create("pods", &server("other"));
    let other = harness.ready_pod("other");
    let address = other["status"]["podIP"].as_str().unwrap();
    assert_eq!(harness.fetch(address, 8080, "/hostname").unwrap(), "other");
    harness.delete(&pod_path("bomb"));
    harness.until("it is gone", || (!harness.exists(&pod_path("bomb"))).then_some(()));
}

/// The reason and message of a pod that has failed.
fn failed(harness: &Harness, name: &str) -> (Value, Value) {
    harness.until(&format!("{name} has failed"), || {
        let status = &harness.get(&pod_path(name))["status"];
        let failed = status["phase"] == "Failed";
        failed.then(|| (status["reason"].clone(), status["message"].clone()))
    })
}

#[test]
fn pods_that_fill_the_disk_are_evicted() {
    let harness = Harness::start();
    let mut volume = pod("volume", &["fill", "/v/file", "3", "wait"]);
    volume["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": { "sizeLimit": "2Mi" } }]);
    let container = &mut volume["spec"]["containers"][0];
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    let limited = |name: &str, limits: &[&str]| {
        let mut limited = pod(name, &["fill", "/file", "3", "wait"]);
        let first = limited["spec"]["containers"][0].clone();
        let containers = limits.iter().enumerate().map(|(at, limit)| {
            let mut container = first.clone();
            container["name"] = json!(format!("c{at}"));
            container["resources"] = json!({ "limits": { "ephemeral-storage": limit } });
            if at > 0 {
                container["args"] = json!(["wait"]);
            }
            container
        });
        limited["spec"]["containers"] = containers.collect();
        limited
    };
    harness.create("pods", &volume);
    harness.create("pods", &limited("whole", &["2Mi"]));
    harness.create("pods", &limited("one", &["2Mi", "8Mi"]));
    harness.create("pods", &limited("modest", &["8Mi"]));
    for (name, message) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". "),
        ("whole", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        ("one", "Container c0 exceeded its local ephemeral storage limit \"2Mi\". "),
    ] {
        assert_eq!(failed(&harness, name), (json!("Evicted"), json!(message)), "{name}");
    }
    harness.ready_pod("modest");
    assert_eq!(harness.get(&pod_path("modest"))["status"]["phase"], "Running");
}
