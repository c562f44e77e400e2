//! Wrong input gets one clear sentence and changes nothing.

use std::process::Output;

use http::Method;
use serde_json::json;

use crate::harness::{Harness, IRONCLAD, collection, server};

fn ironclad(harness: &Harness, args: &[&str]) -> Output {
    let mut command = testkit::command(IRONCLAD);
    command.args(args).env("HOME", harness.cluster.scratch());
    harness.cluster.host().run(move || command.output()).unwrap()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn a_second_cluster_is_refused_with_the_remedy() {
    let harness = Harness::start();
    let data_dir = harness.cluster.data_dir().display().to_string();
    let pid = harness.cluster.pid().unwrap().to_string();
    let error = refused(&ironclad(&harness, &["up", "--data-dir", &data_dir]));
    assert!(error.contains(&pid) && error.contains("--data-dir"), "{error}");
    let other = harness.cluster.scratch().join("other").display().to_string();
    let error = refused(&ironclad(&harness, &["up", "--data-dir", &other]));
    assert!(
        error.contains("port 6443 is already in use") && error.contains("--secure-port"),
        "{error}"
    );
    assert!(harness.exists("/api/v1/namespaces/default"), "the first one is not disturbed");
}

#[test]
fn wrong_objects_and_archives_are_refused() {
    let harness = Harness::start();
    let mut nameless = server("x");
    nameless["spec"]["containers"][0].as_object_mut().unwrap().remove("name");
    let error = harness.request(Method::POST, &collection("pods"), Some(&nameless)).unwrap_err();
    assert_eq!(error.to_string(), "Pod \"x\" is invalid: spec.containers[0].name: Required value");
    let large = json!({ "metadata": { "name": "large" }, "data": { "x": "y".repeat(4 << 20) } });
    let error = harness.request(Method::POST, &collection("configmaps"), Some(&large)).unwrap_err();
    assert_eq!(error.status().unwrap().code, 413, "{error}");
    assert!(!harness.exists(&format!("{}/large", collection("configmaps"))));

    let archive = harness.cluster.scratch().join("nonsense.tar");
    std::fs::write(&archive, "nonsense").unwrap();
    let data_dir = harness.cluster.data_dir().display().to_string();
    let archive = archive.display().to_string();
    let error =
        refused(&ironclad(&harness, &["image", "import", "--data-dir", &data_dir, &archive]));
    assert!(error.contains("nonsense.tar"), "{error}");
    let error = refused(&ironclad(&harness, &["image", "rm", "--data-dir", &data_dir, "absent:1"]));
    assert!(error.contains("absent:1"), "{error}");
}
