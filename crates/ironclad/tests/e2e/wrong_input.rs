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

#[test]
fn a_server_that_cannot_record_what_it_should_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    let start = |text: &str, flags: &[&str]| {
        std::fs::write(&policy, text).unwrap();
        let mut command = testkit::command(IRONCLAD);
        command.arg("apiserver").arg("--data-dir").arg(directory.path().join("data"));
        command.args(["--bind-address=127.0.0.1", "--secure-port=0", "--audit-log-path=-"]);
        command.arg("--audit-policy-file").arg(&policy).args(flags);
        refused(&command.output().unwrap())
    };
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    let place = format!(": from file {}", policy.display());
    let error = start(head, &[]);
    assert!(
        error.contains("loading audit policy file: loaded illegal policy with 0 rules"),
        "{error}"
    );
    assert!(error.trim_end().ends_with(&place), "{error}");
    let error = start(&format!("{head}rules: [{{level: Everything}}]"), &[]);
    assert!(error.contains("rules[0].level: Unsupported value: \"Everything\""), "{error}");
    let error = start("apiVersion: audit.k8s.io/v1beta1\nkind: Policy", &[]);
    assert!(error.contains("no kind \"Policy\" is registered for version"), "{error}");
    let good = format!("{head}rules: [{{level: None}}]");
    let error = start(&good, &["--audit-log-mode=never"]);
    assert!(error.contains("invalid audit log mode never, allowed modes are"), "{error}");
    let error = start(&good, &["--audit-log-maxage=-1"]);
    assert!(error.contains("--audit-log-maxage -1 can't be a negative number"), "{error}");
    let error = start(&good, &["--audit-webhook-config-file=/nonexistent"]);
    assert!(error.contains("initializing audit webhook: cannot read /nonexistent"), "{error}");
    let error = start(&good, &["--requestheader-uid-headers=X-Uid"]);
    assert!(error.contains("without specifying the standard X-Remote-Uid header"), "{error}");
}
