//! Operators written for Kubernetes: one with the crate `kube`, one with Python's `kopf`.

mod baskets;
mod hooks;

use std::process::{Child, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::harness::Harness;

const CRATES: &str = "/apis/drinks.example.com/v1/namespaces/default/crates";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Objects of the operator in Python.
const FEW: usize = 20;

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

fn start_kopf(harness: &Harness) -> Running {
    let mut command = testkit::command("python3");
    command.args(["-m", "kopf", "run", "--standalone", "--namespace", "default"]);
    command.arg(format!("{}/tests/real/clients/operator.py", env!("CARGO_MANIFEST_DIR")));
    command.env("PYTHONPATH", testkit::real_clients().join("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("KUBECONFIG", harness.cluster.kubeconfig());
    command.env("HOME", harness.cluster.scratch());
    let log = std::fs::File::create(harness.cluster.scratch().join("kopf.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Running(harness.cluster.host().run(move || command.spawn()).unwrap())
}

fn define_crates(harness: &Harness) {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"bottles": {"type": "integer"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crates.drinks.example.com"},
        "spec": {"group": "drinks.example.com", "scope": "Namespaced",
            "names": {"plural": "crates", "singular": "crate", "kind": "Crate"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    harness.request(Method::POST, path, Some(&definition)).unwrap();
    harness.until("crates are served", || harness.exists(CRATES).then_some(()));
}

fn fill(harness: &Harness, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let object = json!({"apiVersion": "drinks.example.com/v1", "kind": "Crate",
            "metadata": {"name": format!("c{n}")}, "spec": {"bottles": n}});
        harness.request(Method::POST, CRATES, Some(&object)).unwrap();
    }
}

fn until_filled(harness: &Harness, count: usize) {
    let is_filled = |item: &Value| {
        item["status"]["fill"]["bottles"] == item["spec"]["bottles"]
            && !item["metadata"]["finalizers"].is_null()
    };
    harness.until("every crate is filled", || {
        let list = harness.get(CRATES);
        let items = list["items"].as_array()?;
        (items.len() == count && items.iter().all(is_filled)).then_some(())
    });
}

#[test]
fn an_operator_in_python_survives_the_api_server() {
    let mut harness = Harness::start();
    define_crates(&harness);
    let _operator = start_kopf(&harness);
    fill(&harness, 0..FEW);
    until_filled(&harness, FEW);

    harness.cluster.kill().unwrap();
    crate::harness::pause_for(Duration::from_secs(1));
    harness.cluster.up().unwrap();
    fill(&harness, FEW..FEW + 3);
    until_filled(&harness, FEW + 3);
    let map = harness.get(&format!("{MAPS}/crate-c{FEW}"));
    assert_eq!(map["data"]["bottles"], FEW.to_string());
    assert_eq!(map["metadata"]["ownerReferences"][0]["kind"], "Crate");

    // The finalizer lets the operator have its say, and the garbage collector does the rest.
    harness.request(Method::DELETE, &format!("{CRATES}/c0"), None).unwrap();
    harness.until("the crate is gone", || (!harness.exists(&format!("{CRATES}/c0"))).then_some(()));
    let own = format!("{MAPS}/crate-c0");
    harness.until("its map is gone", || (!harness.exists(&own)).then_some(()));
}
