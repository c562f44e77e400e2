//! Mounts below the volumes of containers: who sees those of whom, and who may write to them.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::harness::{Harness, pod, pod_path, server};

/// Mounts a file system in memory on the node, with a file in it.
fn on_node(harness: &Harness, directory: &Path) {
    let directory = directory.to_owned();
    harness.cluster.host().run(move || {
        let none: Option<&str> = None;
        std::fs::create_dir_all(&directory).unwrap();
        mount(Some("tmpfs"), &directory, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::write(directory.join("file"), "of the node").unwrap();
    });
}

/// A directory of the node below which mounts are told to whoever wants to know.
fn shared(harness: &Harness, path: PathBuf) -> PathBuf {
    let directory = path.clone();
    harness.cluster.host().run(move || {
        let none: Option<&str> = None;
        std::fs::create_dir_all(&directory).unwrap();
        mount(Some(&directory), &directory, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, &directory, none, MsFlags::MS_SHARED, none).unwrap();
    });
    path
}

fn on(mut pod: Value, directory: &Path, mount: Value) -> Value {
    pod["spec"]["volumes"] = json!([{ "name": "v", "hostPath": { "path": directory } }]);
    let container = &mut pod["spec"]["containers"][0];
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    for (key, value) in mount.as_object().unwrap() {
        container["volumeMounts"][0][key] = value.clone();
    }
    pod
}

#[test]
fn mounts_are_told_as_far_as_a_container_wants() {
    let harness = Harness::start();
    let scratch = tempfile::tempdir().unwrap();
    let directory = shared(&harness, scratch.path().join("shared"));
    for (name, propagation) in [("none", "None"), ("in", "HostToContainer")] {
        let mount = json!({ "mountPropagation": propagation });
        harness.create("pods", &on(server(name), &directory, mount));
    }
    let read = |name: &str, path: &str| {
        let pod = harness.ready_pod(name);
        let address = pod["status"]["podIP"].as_str().unwrap();
        harness.fetch(address, 8080, &format!("/file?{path}")).unwrap()
    };
    let missing = "No such file";
    assert!(read("none", "/v/late/file").contains(missing));
    assert!(read("in", "/v/late/file").contains(missing));
    on_node(&harness, &directory.join("late"));
    assert_eq!(read("in", "/v/late/file"), "of the node");
    assert!(read("none", "/v/late/file").contains(missing));

    std::fs::create_dir(directory.join("out")).unwrap();
    let mounting = ["mount", "/v/out", "write", "/v/out/file", "of the pod"];
    let mut out = pod("out", &mounting);
    out["spec"]["restartPolicy"] = json!("Never");
    out["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    let both = json!({ "mountPropagation": "Bidirectional" });
    harness.create("pods", &on(out, &directory, both));
    harness.until("it has ended", || {
        (harness.get(&pod_path("out"))["status"]["phase"] == "Succeeded").then_some(())
    });
    assert_eq!(read("in", "/v/out/file"), "of the pod");
    let file = directory.join("out/file");
    let on_node = harness.cluster.host().run(move || std::fs::read_to_string(file));
    assert_eq!(on_node.unwrap(), "of the pod");
    assert!(read("none", "/v/out/file").contains(missing));
}

#[test]
fn what_is_mounted_below_is_read_only_too_when_it_has_to() {
    let harness = Harness::start();
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("volume");
    std::fs::create_dir(&directory).unwrap();
    on_node(&harness, &directory.join("below"));
    for (name, recursive, code) in [("plain", "Disabled", 0), ("whole", "Enabled", 1)] {
        let mut writer = pod(name, &["write", "/v/below/new", "text"]);
        writer["spec"]["restartPolicy"] = json!("Never");
        let mount = json!({ "readOnly": true, "recursiveReadOnly": recursive });
        harness.create("pods", &on(writer, &directory, mount));
        let status = harness.until(&format!("{name} has ended"), || {
            let pod = harness.get(&pod_path(name));
            let status = pod["status"]["containerStatuses"][0].clone();
            status["state"]["terminated"].is_object().then_some(status)
        });
        assert_eq!(status["state"]["terminated"]["exitCode"], code, "{name}");
        let told = &status["volumeMounts"][0];
        assert_eq!(told["recursiveReadOnly"], recursive, "{name}");
        let log = harness.text(&format!("{}/log", pod_path(name)));
        assert_eq!(log.contains("Read-only file system"), code == 1, "{name}: {log}");
    }
}
