//! Debian's registry: an image is pulled from it, with a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::{DockerRegistry, pod_image_to_push};

use crate::harness::{Harness, pod, pod_path};

const IMAGE: &str = "127.0.0.1:5000/team/app:1";

/// A pod of the image that is in the registry alone.
fn pulling(name: &str, policy: &str, secret: Option<&str>) -> Value {
    let mut pod = pod(name, &["wait"]);
    pod["spec"]["containers"][0]["image"] = IMAGE.into();
    pod["spec"]["containers"][0]["imagePullPolicy"] = policy.into();
    if let Some(secret) = secret {
        pod["spec"]["imagePullSecrets"] = json!([{"name": secret}]);
    }
    pod
}

fn waiting(harness: &Harness, name: &str) -> (String, String) {
    let pod = harness.get(&pod_path(name));
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let text = |key: &str| waiting[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

#[test]
fn an_image_is_pulled_with_a_pull_secret_and_refused_without() {
    let harness = Harness::start();
    let host = harness.cluster.host();
    let registry = DockerRegistry::start(host, harness.cluster.scratch()).unwrap();
    registry.push(host, "team/app:1", pod_image_to_push().unwrap()).unwrap();

    harness.create("pods", &pulling("stranger", "IfNotPresent", None));
    harness.until("the registry refuses", || {
        let (reason, message) = waiting(&harness, "stranger");
        (reason == "ImagePullBackOff" && message.contains("no basic auth credentials"))
            .then_some(())
    });
    let auth = STANDARD.encode("user:secret");
    let config = json!({"auths": {"127.0.0.1:5000/team": {"auth": auth}}});
    let data = STANDARD.encode(config.to_string());
    harness.create(
        "secrets",
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull"},
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data},
        }),
    );
    harness.create("pods", &pulling("friend", "IfNotPresent", Some("pull")));
    let friend = harness.ready_pod("friend");
    let id = friend["status"]["containerStatuses"][0]["imageID"].as_str().unwrap();
    assert!(id.starts_with("127.0.0.1:5000/team/app@sha256:"), "{id}");
    harness.until("the pull is told", || {
        let events = harness.get("/api/v1/namespaces/default/events");
        let told = |event: &Value| {
            let text = event["message"].as_str().unwrap_or_default();
            text.starts_with("Successfully pulled image \"127.0.0.1:5000/team/app:1\" in ")
        };
        events["items"].as_array().unwrap().iter().any(told).then_some(())
    });

    // The image is here now, but whoever wants it to be asked for needs the secret.
    harness.create("pods", &pulling("asks", "Always", None));
    harness.until("the registry refuses", || {
        waiting(&harness, "asks").0.starts_with("ImagePull").then_some(())
    });
    harness.create("pods", &pulling("asks-again", "Always", Some("pull")));
    harness.ready_pod("asks-again");

    let listed = image(&harness, &["ls"]).unwrap();
    assert!(listed.contains(IMAGE), "{listed}");
    let error = image(&harness, &["pull", IMAGE]).unwrap_err().to_string();
    assert!(error.contains("pull access denied"), "{error}");
}

/// Runs `ironclad image` on the node.
fn image(harness: &Harness, args: &[&str]) -> anyhow::Result<String> {
    let data_dir = harness.cluster.data_dir().display().to_string();
    let words = [&["image", "--data-dir", &data_dir], args].concat();
    harness.cluster.exec(crate::harness::IRONCLAD, &words)
}

#[test]
fn a_pull_goes_on_when_the_registry_comes_back() {
    let harness = Harness::start();
    let host = harness.cluster.host();
    harness.create("pods", &pulling("early", "IfNotPresent", None));
    harness.until("nobody answers", || {
        let message = waiting(&harness, "early").1;
        message.contains("onnection refused").then_some(())
    });
    // The node's own credentials are for all pods.
    let auth = STANDARD.encode("user:secret");
    let config = json!({"auths": {"127.0.0.1:5000": {"auth": auth}}});
    let path = harness.cluster.data_dir().join("kubelet/config.json");
    std::fs::write(path, config.to_string()).unwrap();
    let registry = DockerRegistry::start(host, harness.cluster.scratch()).unwrap();
    registry.push(host, "team/app:1", pod_image_to_push().unwrap()).unwrap();
    harness.ready_pod("early");
}
