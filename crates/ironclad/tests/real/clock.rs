//! The wall clock jumps, as it does after a suspend or when a time service corrects it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, collection, is_ready, pod_path, server};

/// The library of Debian's package faketime, below the directory of the machine's architecture.
fn library() -> PathBuf {
    let mut directories = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let found = directories.find_map(|directory| {
        let path = directory.path().join("faketime/libfaketimeMT.so.1");
        path.exists().then_some(path)
    });
    found.unwrap()
}

fn seconds(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

/// When the node's lease was renewed, as the server says.
fn renewed(harness: &Harness) -> i64 {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1";
    seconds(&harness.get(leases)["spec"]["renewTime"])
}

#[test]
fn pods_and_the_node_survive_a_clock_that_jumps() {
    let scratch = tempfile::tempdir().unwrap();
    let offset = scratch.path().join("offset");
    // Replaced at once: the program reads it whenever it asks for the time.
    let set = |text: &str| {
        let next = scratch.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &offset).unwrap();
    };
    set("+0");
    let variable = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
    let env = vec![
        variable("LD_PRELOAD", &library()),
        variable("FAKETIME_TIMESTAMP_FILE", &offset),
        variable("FAKETIME_NO_CACHE", Path::new("1")),
        variable("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
    ];
    let harness = Harness::with(Options { env, ..Options::new(IRONCLAD) });
    harness.create("pods", &server("before"));
    let before = harness.ready_pod("before");
    for (jump, name) in [("+6h", "forward"), ("-3h", "back")] {
        let at = renewed(&harness);
        set(jump);
        harness.until("the lease follows the clock", || {
            (renewed(&harness).abs_diff(at) > Duration::from_secs(3600).as_secs()).then_some(())
        });
        harness.create("pods", &server(name));
        harness.ready_pod(name);
        let map = json!({ "metadata": { "name": name } });
        harness.create("configmaps", &map);
        assert!(is_ready(&harness.get("/api/v1/nodes/node-1")), "after {jump}");
        let node = harness.get("/api/v1/nodes/node-1");
        assert!(node["spec"]["taints"].is_null(), "after {jump}: {}", node["spec"]["taints"]);
        let pod = harness.get(&pod_path("before"));
        assert_eq!(pod["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        assert!(is_ready(&pod), "after {jump}");
        assert!(harness.exists(&format!("{}/{name}", collection("configmaps"))));
        harness.delete(&pod_path(name));
        harness.until("a pod ends", || (!harness.exists(&pod_path(name))).then_some(()));
    }
}
