//! Pods that take more than is theirs: they are held to it, and nobody else notices.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, pause_for, pod, pod_path, server};

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

/// Exchanges a directory and a link, without end.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapping {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, flags).unwrap();
                // The others need the processor, too.
                pause_for(Duration::from_micros(200));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// What is part of a volume is a link to somewhere else at every other moment.
#[test]
fn a_part_of_a_volume_never_leads_out_of_it() {
    let harness = Harness::start();
    let directory = tempfile::tempdir().unwrap();
    let (volume, outside) = (directory.path().join("volume"), directory.path().join("outside"));
    for (directory, file) in [(volume.join("part"), "inside"), (outside.clone(), "secret")] {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("file"), file).unwrap();
    }
    std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
    let _swapping = Swapping::start(volume.join("part"), volume.join("link"));
    let names: Vec<_> = (0..24).map(|number| format!("p{number}")).collect();
    for name in &names {
        let mut reader = pod(name, &["cat", "/v/file"]);
        let spec = &mut reader["spec"];
        spec["restartPolicy"] = json!("Never");
        spec["volumes"] = json!([{ "name": "v", "hostPath": { "path": volume } }]);
        spec["containers"][0]["volumeMounts"] =
            json!([{ "name": "v", "mountPath": "/v", "subPath": "part" }]);
        harness.create("pods", &reader);
    }
    // Others are told that their part cannot be used, and try again.
    let read = harness.until("some have read", || {
        let ended = names.iter().filter(|name| {
            matches!(
                harness.get(&pod_path(name))["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            )
        });
        let logs: Vec<_> =
            ended.map(|name| harness.text(&format!("{}/log", pod_path(name)))).collect();
        (logs.len() >= 6).then_some(logs)
    });
    assert!(read.iter().all(|text| text.trim() == "inside"), "{read:?}");
}
