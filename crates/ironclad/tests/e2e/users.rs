//! Pods whose users are not the node's: `hostUsers: false`.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Harness, collection, pod, pod_path, server};

/// The same with users of its own.
fn with_users(mut pod: Value) -> Value {
    pod["spec"]["hostUsers"] = json!(false);
    pod
}

/// A file, as the server in a pod reads it.
fn file(harness: &Harness, pod: &str, path: &str) -> String {
    let address = harness.ready_pod(pod)["status"]["podIP"].as_str().unwrap().to_owned();
    harness.fetch(&address, 8080, &format!("/file?{path}")).unwrap()
}

/// Who the pod's root is on the node.
fn root(harness: &Harness, pod: &str) -> u32 {
    let map = file(harness, pod, "/proc/self/uid_map");
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!((words.len(), words[0], words[2]), (3, "0", "65536"), "{map}");
    assert_eq!(file(harness, pod, "/proc/self/gid_map"), map);
    words[1].parse().unwrap()
}

#[test]
fn pods_have_ranges_of_users_to_themselves_also_after_a_crash() {
    let mut harness = Harness::start();
    let node = harness.get("/api/v1/nodes/node-1");
    assert_eq!(node["status"]["runtimeHandlers"][0]["features"]["userNamespaces"], true);
    for name in ["a", "b"] {
        harness.create("pods", &with_users(server(name)));
    }
    let (a, b) = (root(&harness, "a"), root(&harness, "b"));
    assert!(a >= 65536 && b >= 65536 && a.abs_diff(b) >= 65536, "{a} {b}");
    harness.cluster.kill().unwrap();
    harness.cluster.up().unwrap();
    harness.create("pods", &with_users(server("c")));
    let c = root(&harness, "c");
    assert!(a.abs_diff(c) >= 65536 && b.abs_diff(c) >= 65536, "{a} {b} {c}");
    // A container that is run again is who it was.
    let address = harness.ready_pod("a")["status"]["podIP"].as_str().unwrap().to_owned();
    harness.fetch(&address, 8080, "/exit?1").ok();
    harness.until("it was restarted", || {
        let pod = harness.get(&pod_path("a"));
        let status = &pod["status"]["containerStatuses"][0];
        (status["restartCount"] == 1 && status["ready"] == true).then_some(())
    });
    assert_eq!(root(&harness, "a"), a);
    for name in ["a", "b", "c"] {
        harness.delete(&pod_path(name));
    }
    harness.until("they are gone", || {
        let left = harness.get(&collection("pods"))["items"].as_array().unwrap().len();
        (left == 0).then_some(())
    });
}

#[test]
fn files_of_volumes_have_the_owners_that_they_have() {
    let harness = Harness::start();
    let shared = harness.cluster.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(1000), Some(2000)).unwrap();
    let data = json!({ "metadata": { "name": "data" }, "data": { "key": "dmFsdWU=" } });
    harness.create("configmaps", &data);
    harness.create("secrets", &data);
    let mut stat = with_users(pod("stat", &["stat", "/secret/key"]));
    stat["spec"]["restartPolicy"] = json!("Never");
    stat["spec"]["securityContext"] = json!({ "fsGroup": 3000 });
    stat["spec"]["volumes"] = json!([
        { "name": "secret", "secret": { "secretName": "data", "defaultMode": 0o400 } },
        { "name": "map", "configMap": { "name": "data" } },
        { "name": "disk", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory" } },
        { "name": "host", "hostPath": { "path": shared } },
    ]);
    let first = stat["spec"]["containers"][0].clone();
    let paths = ["/secret/key", "/key", "/disk", "/memory", "/host", "/", "/etc/hosts"];
    let container = |(at, path): (usize, &&str)| {
        let mut container = first.clone();
        container["name"] = json!(format!("c{at}"));
        container["args"] = json!(["stat", path]);
        container["volumeMounts"] = json!([
            { "name": "secret", "mountPath": "/secret" },
            { "name": "map", "mountPath": "/key", "subPath": "key" },
            { "name": "disk", "mountPath": "/disk" },
            { "name": "memory", "mountPath": "/memory" },
            { "name": "host", "mountPath": "/host" },
        ]);
        container
    };
    stat["spec"]["containers"] = paths.iter().enumerate().map(container).collect();
    harness.create("pods", &stat);
    harness.until("it has ended", || {
        (harness.get(&pod_path("stat"))["status"]["phase"] == "Succeeded").then_some(())
    });
    let said = |at: usize| {
        let log = harness.text(&format!("{}/log?container=c{at}", pod_path("stat")));
        // Without the kind of file system.
        log.rsplit_once(' ').unwrap().0.to_owned()
    };
    let told: Vec<String> = (0..paths.len()).map(said).collect();
    let expected =
        ["440 0:3000", "644 0:3000", "2777 0:3000", "2777 0:3000", "755 1000:2000", "755 0:0"];
    assert_eq!(told[..6], expected);
    assert!(told[6].ends_with(" 0:0"), "{told:?}");
}

#[test]
fn proc_may_be_shown_whole_to_pods_with_users_of_their_own() {
    let harness = Harness::start();
    harness.create("pods", &with_users(server("masked")));
    let mut whole = with_users(server("whole"));
    whole["spec"]["containers"][0]["securityContext"] = json!({ "procMount": "Unmasked" });
    harness.create("pods", &whole);
    assert_eq!(file(&harness, "masked", "/proc/interrupts"), "");
    assert_ne!(file(&harness, "whole", "/proc/interrupts"), "");
    for (field, value) in [("hostNetwork", true), ("hostPID", true), ("hostIPC", true)] {
        let mut refused = with_users(server("refused"));
        refused["spec"][field] = json!(value);
        let error = harness.request(Method::POST, &collection("pods"), Some(&refused));
        assert_eq!(error.unwrap_err().status().unwrap().code, 422, "{field}");
    }
    whole["metadata"]["name"] = json!("refused");
    whole["spec"]["hostUsers"] = json!(true);
    let error = harness.request(Method::POST, &collection("pods"), Some(&whole));
    assert_eq!(error.unwrap_err().status().unwrap().code, 422);
}
