//! What is left after a crash, a stop and a reset.

use std::path::Path;

use serde_json::json;

use crate::harness::{Harness, collection, pod_path, server};

/// Process ids of everything in the cluster's cgroups.
fn processes(harness: &Harness) -> Vec<String> {
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let mut roots = vec![root.to_path_buf(), root.join("pids")];
    for root in &mut roots {
        collect(&root.join(&harness.cluster.cgroup()[1..]), &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn collect(cgroup: &Path, found: &mut Vec<String>) {
    let procs = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(procs.lines().map(str::to_owned));
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
        }
    }
}

#[test]
fn after_a_kill_the_same_processes_run_and_nothing_acknowledged_is_lost() {
    let mut harness = Harness::start();
    harness.create("pods", &server("web"));
    let before = harness.ready_pod("web");
    let running = processes(&harness);
    assert!(!running.is_empty());
    for n in 0..20 {
        let map = json!({ "metadata": { "name": format!("map-{n}") } });
        harness.create("configmaps", &map);
    }
    harness.cluster.kill().unwrap();
    assert_eq!(processes(&harness), running, "pods do not need the server");
    harness.cluster.up().unwrap();
    for n in 0..20 {
        assert!(harness.exists(&format!("{}/map-{n}", collection("configmaps"))));
    }
    let after = harness.ready_pod("web");
    assert_eq!(processes(&harness), running);
    let container = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0].clone();
    assert_eq!(container(&before)["containerID"], container(&after)["containerID"]);
    assert_eq!(container(&after)["restartCount"], 0);
    // The adopted pod is still cared for.
    harness.delete(&pod_path("web"));
    harness.until("the pod is gone", || (!harness.exists(&pod_path("web"))).then_some(()));
    harness.until("its processes are gone", || processes(&harness).is_empty().then_some(()));
}

#[test]
fn a_reset_leaves_nothing_behind() {
    let mut harness = Harness::start();
    harness.create("pods", &server("web"));
    harness.ready_pod("web");
    let devices = |harness: &Harness| {
        harness.cluster.host().run(|| {
            let links = netlink::Connection::open().unwrap().links().unwrap();
            let mut names: Vec<String> = links.into_iter().map(|link| link.name).collect();
            names.sort();
            names
        })
    };
    assert!(devices(&harness).len() > 2);
    harness.cluster.reset().unwrap();
    assert_eq!(devices(&harness), ["eth0", "lo"]);
    assert!(processes(&harness).is_empty());
    assert!(!harness.cluster.data_dir().exists());
    let tables =
        harness.cluster.host().run(|| netlink::nft::table_names(netlink::nft::Family::Ip).unwrap());
    assert_eq!(tables, Vec::<String>::new());
    let data_dir = harness.cluster.data_dir().display().to_string();
    let mounts = harness
        .cluster
        .host()
        .run(|| std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap());
    assert!(!mounts.contains(&data_dir), "{mounts}");
}
