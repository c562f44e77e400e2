//! What happens at the limits: a full disk, many connections.

use std::net::{SocketAddr, TcpStream};

use http::Method;
use serde_json::json;
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, collection, pod_path, server};

/// More than a fresh cluster's objects need, little enough to be filled in a moment.
const STORE_BYTES: u64 = 16 << 20;

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let options = Options { store_bytes: Some(STORE_BYTES), ..Options::new(IRONCLAD) };
    let mut harness = Harness::with(options);
    harness.create("pods", &server("before"));
    harness.ready_pod("before");
    let payload = "x".repeat(500 << 10);
    let mut written = 0;
    let error = loop {
        let map =
            json!({ "metadata": { "name": format!("m{written}") }, "data": { "x": payload } });
        match harness.request(Method::POST, &collection("configmaps"), Some(&map)) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the disk does not get full");
    };
    assert!(written > 3, "{written}: {error}");
    let status = error.status().unwrap();
    assert_eq!(status.code, 503, "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    let map = |n: usize| format!("{}/m{n}", collection("configmaps"));
    assert!(!harness.exists(&map(written)), "what was refused is not there");
    assert!(harness.exists(&map(written - 1)) && harness.exists(&pod_path("before")));

    // Deleting objects is itself a write: space has to come from elsewhere.
    let store = harness.cluster.store_dir();
    harness.cluster.host().run(move || {
        let (none, flags) = (None::<&str>, nix::mount::MsFlags::MS_REMOUNT);
        nix::mount::mount(none, &store, none, flags, Some("size=64m")).unwrap();
    });
    let small = json!({ "metadata": { "name": "after" } });
    harness.until("writes are taken again", || {
        harness.request(Method::POST, &collection("configmaps"), Some(&small)).ok()
    });
    harness.cluster.kill().unwrap();
    harness.cluster.up().unwrap();
    assert!(harness.exists(&format!("{}/after", collection("configmaps"))));
    assert!((0..written).all(|n| harness.exists(&map(n))), "everything acknowledged is there");
    assert!(!harness.exists(&map(written)));
    harness.ready_pod("before");
}

#[test]
fn a_thousand_idle_connections_do_not_disturb_others() {
    let harness = Harness::start();
    let resident = |harness: &Harness| -> u64 {
        let path = format!("/proc/{}/status", harness.cluster.pid().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = resident(&harness);
    let connections: Vec<TcpStream> = harness.cluster.host().run(|| {
        let to = SocketAddr::from(([127, 0, 0, 1], 6443));
        (0..1000).map(|_| TcpStream::connect(to).unwrap()).collect()
    });
    for n in 0..20 {
        harness.create("configmaps", &json!({ "metadata": { "name": format!("map-{n}") } }));
    }
    harness.create("pods", &server("p"));
    harness.ready_pod("p");
    let grown = resident(&harness).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for 1,000 connections that say nothing");
    drop(connections);
    assert!(harness.exists(&pod_path("p")));
}
