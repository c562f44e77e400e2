//! Tests written from the descriptions of upstream's conformance tests, named at each.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod, pod_path, server};

fn ended(harness: &Harness, name: &str) -> Value {
    harness.until(&format!("{name} has ended"), || {
        let pod = harness.get(&pod_path(name));
        matches!(pod["status"]["phase"].as_str()?, "Succeeded" | "Failed").then_some(pod)
    })
}

fn once(name: &str, args: &[&str]) -> Value {
    let mut pod = pod(name, args);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

/// \[sig-node\] Pods should get a host IP
#[test]
fn a_pod_gets_a_host_ip() {
    let harness = Harness::start();
    harness.create("pods", &server("p"));
    let status = harness.ready_pod("p")["status"].clone();
    assert_eq!(status["hostIP"], "192.168.77.2");
    assert_eq!(status["hostIPs"], json!([{ "ip": "192.168.77.2" }]));
}

/// \[sig-node\] Containers should use the image defaults if command and args are blank;
/// \[sig-node\] Kubelet when scheduling a busybox command in a pod should print the output to logs
#[test]
fn command_and_arguments_come_from_the_image_or_the_pod() {
    let harness = Harness::start();
    let mut defaults = once("defaults", &[]);
    defaults["spec"]["containers"][0].as_object_mut().unwrap().remove("args");
    harness.create("pods", &defaults);
    harness.create("pods", &once("arguments", &["print", "of the pod"]));
    let mut command = once("command", &[]);
    command["spec"]["containers"][0]["command"] = json!(["/testkit-pod", "print", "both"]);
    harness.create("pods", &command);
    for (name, expected) in
        [("defaults", "usage: testkit-pod"), ("arguments", "of the pod"), ("command", "both")]
    {
        ended(&harness, name);
        let log = harness.text(&format!("{}/log", pod_path(name)));
        assert!(log.starts_with(expected), "{name}: {log}");
    }
}

/// \[sig-storage\] ConfigMap should be consumable from pods in volume
#[test]
fn a_config_map_is_read_from_a_volume() {
    let harness = Harness::start();
    let map = json!({ "metadata": { "name": "map" }, "data": { "data-1": "value-1" } });
    harness.create("configmaps", &map);
    let mut reading = once("reading", &["cat", "/etc/configmap-volume/data-1"]);
    reading["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "map" } }]);
    reading["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "v", "mountPath": "/etc/configmap-volume", "readOnly": true }]);
    let mut looking = reading.clone();
    looking["metadata"]["name"] = json!("looking");
    looking["spec"]["containers"][0]["args"] = json!(["stat", "/etc/configmap-volume/data-1"]);
    harness.create("pods", &reading);
    harness.create("pods", &looking);
    for (name, expected) in [("reading", "value-1\n"), ("looking", "644 0:0 ")] {
        assert_eq!(ended(&harness, name)["status"]["phase"], "Succeeded");
        let log = harness.text(&format!("{}/log", pod_path(name)));
        assert!(log.starts_with(expected), "{log}");
    }
}

/// \[sig-storage\] EmptyDir volumes should support (root,0644,default)
#[test]
fn a_file_in_an_empty_directory_has_its_mode_and_content() {
    let harness = Harness::start();
    let mut pod = once("p", &["stat", "/test-volume/test-file"]);
    let mount = json!([{ "name": "v", "mountPath": "/test-volume" }]);
    let container = |name: &str, args: &[&str]| json!({ "name": name, "image": POD_IMAGE, "args": args, "volumeMounts": mount });
    pod["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": { "medium": "" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = mount.clone();
    pod["spec"]["initContainers"] = json!([
        container("directory", &["stat", "/test-volume"]),
        container(
            "creating",
            &["create", "/test-volume/test-file", "0644", "mount-tester new file"]
        ),
        container("content", &["cat", "/test-volume/test-file"]),
    ]);
    harness.create("pods", &pod);
    assert_eq!(ended(&harness, "p")["status"]["phase"], "Succeeded");
    let log =
        |container: &str| harness.text(&format!("{}/log?container={container}", pod_path("p")));
    assert!(log("directory").starts_with("777 0:0 "), "{}", log("directory"));
    assert!(!log("directory").contains("tmpfs"), "the default medium is the node's disk");
    assert_eq!(log("content"), "mount-tester new file\n");
    assert!(log("c").starts_with("644 0:0 "), "{}", log("c"));
}

/// \[sig-node\] Pods should support remote command execution over websockets
#[test]
fn a_command_runs_over_a_websocket() {
    let harness = Harness::start();
    harness.create("pods", &server("p"));
    harness.ready_pod("p");
    let command = ["/testkit-pod", "print", "remote", "execution", "test"];
    let words: Vec<String> = command.iter().map(|word| format!("command={word}")).collect();
    let path = format!("{}/exec?stderr=1&stdout=1&container=c&{}", pod_path("p"), words.join("&"));
    let messages = harness.websocket(&path, "v4.channel.k8s.io");
    let on = |channel: u8| -> String {
        let of_channel = messages.iter().filter(|message| message.first() == Some(&channel));
        of_channel.map(|message| String::from_utf8_lossy(&message[1..]).into_owned()).collect()
    };
    assert_eq!(on(1), "remote execution test\n");
    assert_eq!(on(2), "");
    let status: Value = serde_json::from_str(&on(3)).unwrap();
    assert_eq!(status["status"], "Success");
}

/// \[sig-network\] Networking Granular Checks: Pods should function for intra-pod communication:
/// http
#[test]
fn pods_reach_each_other_by_address() {
    let harness = Harness::start();
    for name in ["one", "two"] {
        harness.create("pods", &server(name));
    }
    let address =
        |name: &str| harness.ready_pod(name)["status"]["podIP"].as_str().unwrap().to_owned();
    let (one, two) = (address("one"), address("two"));
    for (from, to, name) in [(&one, &two, "two"), (&two, &one, "one"), (&one, &one, "one")] {
        let path = format!("/fetch?{to}:8080/hostname");
        harness.until(&format!("{from} reaches {to}"), || {
            harness.fetch(from, 8080, &path).ok().filter(|answer| answer == name)
        });
    }
}

/// The containers of a pod see the same files.
#[test]
fn containers_of_a_pod_share_an_empty_directory() {
    let harness = Harness::start();
    let mut sharing = once("sharing", &["cat", "/shared/file"]);
    let mount = json!([{ "name": "shared", "mountPath": "/shared" }]);
    sharing["spec"]["volumes"] = json!([{ "name": "shared", "emptyDir": {} }]);
    sharing["spec"]["containers"][0]["volumeMounts"] = mount.clone();
    sharing["spec"]["initContainers"] = json!([{
        "name": "first", "image": POD_IMAGE, "args": ["write", "/shared/file", "from the first"],
        "volumeMounts": mount,
    }]);
    harness.create("pods", &sharing);
    assert_eq!(ended(&harness, "sharing")["status"]["phase"], "Succeeded");
    assert_eq!(harness.text(&format!("{}/log", pod_path("sharing"))), "from the first\n");
}

/// \[sig-node\] Container Runtime blackbox test on terminated container should report termination
/// message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set
#[test]
fn the_termination_message_is_the_files() {
    let harness = Harness::start();
    let mut writing = once("writing", &["write", "/dev/termination-log", "OK"]);
    writing["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    harness.create("pods", &writing);
    let pod = ended(&harness, "writing");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"], "OK");
}

/// \[sig-node\] Probing container should be restarted with a exec "cat /tmp/health" liveness probe
#[test]
fn a_container_whose_liveness_probe_fails_is_restarted() {
    let harness = Harness::start();
    let mut ill = server("ill");
    ill["spec"]["containers"][0]["livenessProbe"] = json!({
        "exec": { "command": ["/testkit-pod", "check", "/tmp/health"] },
        "periodSeconds": 1, "failureThreshold": 1,
    });
    harness.create("pods", &ill);
    harness.until("the container was restarted", || {
        let pod = harness.get(&pod_path("ill"));
        (pod["status"]["containerStatuses"][0]["restartCount"].as_u64()? > 0).then_some(())
    });
    let events = harness.get(&collection("events"));
    let reasons: Vec<&str> =
        events["items"].as_array().unwrap().iter().filter_map(|e| e["reason"].as_str()).collect();
    assert!(reasons.contains(&"Unhealthy") && reasons.contains(&"Killing"), "{reasons:?}");
}

/// \[sig-apps\] ReplicaSet should serve a basic image on each replica with a public image
#[test]
fn every_replica_answers_through_the_api_servers_proxy() {
    let harness = Harness::start();
    let set = json!({
        "metadata": { "name": "set" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "set" } },
            "template": {
                "metadata": { "labels": { "app": "set" } },
                "spec": { "containers": [
                    { "name": "c", "image": POD_IMAGE, "args": ["serve", "8080"] }] },
            },
        },
    });
    harness.create("apps/v1/replicasets", &set);
    for pod in harness.ready_pods("app=set", 2) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let answer = harness.text(&format!("{}:8080/proxy/hostname", pod_path(name)));
        assert_eq!(answer, name);
    }
}

/// \[sig-network\] Proxy version v1 should proxy through a service and a pod, and A set of valid
/// responses are returned for both pod and service Proxy: every way of naming the target, every verb,
/// and as many at once as the suite sends.
#[test]
fn every_verb_reaches_pods_and_services_through_the_proxies() {
    const AT_ONCE: usize = 16;
    const TIMES: usize = 20;
    let harness = Harness::start();
    harness.create("pods", &server("web"));
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" },
                  "ports": [{ "name": "named", "port": 80, "targetPort": 8080 }] },
    });
    harness.create("services", &service);
    harness.ready_pod("web");
    let targets = [
        "pods/web:8080",
        "pods/http:web:8080",
        "services/web:80",
        "services/web:named",
        "services/http:web:named",
        "services/http:web:80",
    ];
    let path = |target: &str| format!("/api/v1/namespaces/default/{target}/proxy/echo/a/b?c=d");
    for target in targets {
        harness.until("the endpoints are known", || {
            harness.bytes(Method::GET, &path(target), None).ok()
        });
        for method in ["GET", "DELETE", "OPTIONS", "PATCH", "POST", "PUT"] {
            let named = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = harness.bytes(named, &path(target), None).unwrap();
            let expected = format!("{method} /echo/a/b?c=d");
            assert_eq!(String::from_utf8_lossy(&answer), expected, "{target}");
        }
        let nothing = harness.bytes(Method::HEAD, &path(target), None).unwrap();
        assert!(nothing.is_empty(), "{target}");
    }
    std::thread::scope(|scope| {
        for at in 0..AT_ONCE {
            let (harness, path) = (&harness, path(targets[at % targets.len()]));
            scope.spawn(move || {
                for _ in 0..TIMES {
                    let answer = harness.bytes(Method::GET, &path, None).unwrap();
                    assert_eq!(String::from_utf8_lossy(&answer), "GET /echo/a/b?c=d");
                }
            });
        }
    });
}

/// \[sig-storage\] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a
/// PVC: what is deleted goes once nobody uses it.
#[test]
fn volumes_and_claims_go_when_nobody_uses_them() {
    let harness = Harness::start();
    let node = harness.get("/api/v1/nodes")["items"][0]["metadata"]["name"].clone();
    let claim = json!({ "metadata": { "name": "c" }, "spec": { "accessModes": ["ReadWriteOnce"],
        "storageClassName": "none", "resources": { "requests": { "storage": "1Mi" } } } });
    harness.create("persistentvolumeclaims", &claim);
    let user = json!({ "metadata": { "name": "user" }, "spec": { "nodeName": node,
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": ["wait"] }],
        "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] } });
    harness.create("pods", &user);
    let claims = format!("{}/c", collection("persistentvolumeclaims"));
    harness.delete(&claims);
    let held = harness.get(&claims);
    assert_eq!(held["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    harness.delete(&format!("{}?gracePeriodSeconds=0", pod_path("user")));
    harness.until("the claim is gone", || (!harness.exists(&claims)).then_some(()));

    let volume = json!({ "metadata": { "name": "v" }, "spec": { "capacity": { "storage": "1Mi" },
        "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/tmp/x" } } });
    let volumes = "/api/v1/persistentvolumes";
    harness.request(Method::POST, volumes, Some(&volume)).unwrap();
    harness.delete(&format!("{volumes}/v"));
    let path = format!("{volumes}/v");
    harness.until("the volume is gone", || (!harness.exists(&path)).then_some(()));
}

/// \[sig-apps\] Job should create pods for an Indexed job with completion indexes and specified
/// hostname
#[test]
fn an_indexed_job_has_a_pod_for_every_index() {
    let harness = Harness::start();
    let job = json!({
        "metadata": { "name": "indexed" },
        "spec": {
            "completions": 2, "parallelism": 2, "completionMode": "Indexed",
            "template": { "spec": {
                "restartPolicy": "Never",
                "containers": [{ "name": "c", "image": POD_IMAGE, "args": ["print", "done"] }],
            } },
        },
    });
    harness.create("batch/v1/jobs", &job);
    let status = harness.until("the job is complete", || {
        let job = harness.get(&format!("{}/indexed", collection("batch/v1/jobs")));
        let conditions = job["status"]["conditions"].as_array()?.clone();
        let is_complete = |c: &Value| c["type"] == "Complete" && c["status"] == "True";
        conditions.iter().any(is_complete).then(|| job["status"].clone())
    });
    assert_eq!(status["succeeded"], 2);
    assert_eq!(status["completedIndexes"], "0,1");
    let pods = harness.get(&format!("{}?labelSelector=job-name=indexed", collection("pods")));
    let mut indexes: Vec<String> = Vec::new();
    for pod in pods["items"].as_array().unwrap() {
        let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        let index = index.as_str().unwrap().to_owned();
        assert_eq!(pod["spec"]["hostname"], format!("indexed-{index}"));
        indexes.push(index);
    }
    indexes.sort();
    assert_eq!(indexes, ["0", "1"]);
}
