//! What becomes of pods when their machine was started anew: no process, mount, device or cgroup of
//! before is there, only what is on disk.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Harness, is_ready, pause_for, pod, pod_path, server};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Shims of sandboxes below a directory.
fn shims(directory: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter_map(|process| {
        let words = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let ours =
            words.split('\0').nth(2).is_some_and(|path| Path::new(path).starts_with(directory));
        let number = process.file_name().to_string_lossy().parse().ok()?;
        ours.then(|| Pid::from_raw(number))
    });
    found.collect()
}

fn reboot(harness: &mut Harness) {
    harness.cluster.kill().unwrap();
    let directory = harness.cluster.data_dir();
    for shim in shims(&directory) {
        kill(shim, Signal::SIGKILL).unwrap();
    }
    while !shims(&directory).is_empty() {
        pause_for(std::time::Duration::from_millis(10));
    }
    testkit::remove_cgroup(harness.cluster.cgroup());
    let boot_id = harness.cluster.scratch().join("boot_id");
    std::fs::write(&boot_id, "11111111-2222-3333-4444-555555555555\n").unwrap();
    harness.cluster.host().run(move || {
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = mounts.lines().map(|line| line.split(' ').nth(4).unwrap());
        for point in points.map(PathBuf::from).filter(|point| point.starts_with(&directory)) {
            umount2(&point, MntFlags::MNT_DETACH).unwrap();
        }
        let mut links = netlink::Connection::open().unwrap();
        links.delete_link("ironclad0").unwrap();
        let none = None::<&str>;
        mount(Some(&boot_id), BOOT_ID, none, MsFlags::MS_BIND, none).unwrap();
    });
    harness.cluster.up().unwrap();
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

#[test]
fn pods_come_back_by_their_restart_policy() {
    let mut harness = Harness::start();
    let mut always = server("always");
    always["spec"]["volumes"] = json!([
        { "name": "disk", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory" } },
    ]);
    always["spec"]["containers"][0]["volumeMounts"] = json!([
        { "name": "disk", "mountPath": "/disk" }, { "name": "memory", "mountPath": "/memory" },
    ]);
    harness.create("pods", &always);
    for (name, args) in [("done", ["print", "x"].as_slice()), ("never", &["serve", "8080"])] {
        let mut never = pod(name, args);
        never["spec"]["restartPolicy"] = json!("Never");
        harness.create("pods", &never);
    }
    let before = harness.ready_pod("always");
    harness.ready_pod("never");
    let phase = |harness: &Harness, name: &str, phase: &str| {
        harness.until(&format!("{name} is {phase}"), || {
            let pod = harness.get(&pod_path(name));
            (pod["status"]["phase"] == phase).then_some(pod)
        })
    };
    phase(&harness, "done", "Succeeded");

    reboot(&mut harness);
    let after = harness.until("the pod runs again", || {
        let pod = harness.get(&pod_path("always"));
        (container(&pod)["restartCount"] == 1 && is_ready(&pod)).then_some(pod)
    });
    assert_ne!(container(&before)["containerID"], container(&after)["containerID"]);
    let last = &container(&after)["lastState"]["terminated"];
    assert_eq!((last["exitCode"].clone(), last["reason"].clone()), (json!(255), json!("Unknown")));
    let address = after["status"]["podIP"].as_str().unwrap();
    assert_eq!(harness.fetch(address, 8080, "/hostname").unwrap(), "always");
    let mounts = harness.fetch(address, 8080, "/file?/proc/self/mounts").unwrap();
    assert!(mounts.lines().any(|line| line.starts_with("tmpfs /memory ")), "{mounts}");
    let ended = phase(&harness, "never", "Failed");
    let state = &container(&ended)["state"]["terminated"];
    assert_eq!(
        (state["exitCode"].clone(), container(&ended)["restartCount"].clone()),
        (json!(255), json!(0))
    );
    let done = phase(&harness, "done", "Succeeded");
    assert_eq!(container(&done)["state"]["terminated"]["exitCode"], 0);
    harness.until("the reboot is told", || {
        let events = harness.get("/api/v1/events");
        let text = "Node node-1 has been rebooted, boot id: 11111111-2222-3333-4444-555555555555";
        let mut events = events["items"].as_array().unwrap().iter();
        events.any(|event| event["reason"] == "Rebooted" && event["message"] == text).then_some(())
    });
    let node = harness.get("/api/v1/nodes/node-1");
    assert_eq!(node["status"]["nodeInfo"]["bootID"], "11111111-2222-3333-4444-555555555555");
}
