//! The clients of other languages, from their package registries.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Harness, server};

/// Where `cargo xtask test --real` installs the clients.
fn clients(directory: &str) -> PathBuf {
    let directory = testkit::real_clients().join(directory);
    assert!(directory.exists(), "run cargo xtask test --real, which installs the clients");
    directory
}

fn script(name: &str) -> String {
    format!("{}/tests/real/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a client's script against a pod that serves, and gives what it printed last.
fn run(harness: &Harness, program: &str, environment: (&str, PathBuf), name: &str) -> Value {
    harness.create("pods", &server("web"));
    harness.ready_pod("web");
    let mut command = testkit::command(program);
    command.arg(script(name)).arg(harness.cluster.kubeconfig()).arg("web");
    command.env(environment.0, environment.1);
    let output = harness.cluster.host().run(move || command.output()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

#[test]
fn the_python_client_works() {
    let harness = Harness::start();
    let seen = run(&harness, "python3", ("PYTHONPATH", clients("python")), "client.py");
    assert!(seen["version"].as_str().unwrap().starts_with("v1.36."), "{seen}");
    assert_eq!(
        seen["events"],
        json!([
            ["ADDED", { "a": "1" }],
            ["MODIFIED", { "a": "1", "b": "2" }],
            ["DELETED", { "a": "1", "b": "2" }],
        ])
    );
    assert_eq!(seen["conflict"], json!([409, "Conflict"]));
    assert_eq!(seen["strategy"], json!(["RollingUpdate", "25%"]));
    // Upstream leaves out a zero.
    assert_eq!(seen["scale"], json!([null, "app=python"]));
    assert_eq!(seen["exec"], "from python\n");
    assert!(seen["log"].as_str().unwrap().contains("serving on port 8080"), "{seen}");
}

#[test]
fn the_javascript_client_works() {
    let harness = Harness::start();
    let modules = clients("javascript").join("node_modules");
    let seen = run(&harness, "node", ("NODE_PATH", modules), "client.mjs");
    assert!(seen["version"].as_str().unwrap().starts_with("v1.36."), "{seen}");
    assert_eq!(
        seen["events"],
        json!([
            ["ADDED", { "a": "1" }],
            ["MODIFIED", { "a": "1", "b": "2" }],
            ["DELETED", { "a": "1", "b": "2" }],
        ])
    );
    assert_eq!(seen["exists"], json!([409, "AlreadyExists"]));
    assert_eq!(seen["status"], "Success");
    assert_eq!(seen["exec"], json!(["from javascript\n", ""]));
}
