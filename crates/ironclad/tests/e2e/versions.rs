//! Versions of the API and features that are switched by flags.

use http::Method;
use serde_json::{Value, json};
use testkit::Options;

use crate::harness::{Harness, IRONCLAD};

fn refused(args: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = testkit::command(IRONCLAD);
    command.arg("apiserver").arg("--data-dir").arg(directory.path().join("data")).args(args);
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{args:?}");
    assert!(!directory.path().join("data").exists(), "nothing is made before flags are read");
    String::from_utf8(output.stderr).unwrap()
}

fn versions(harness: &Harness, group: &str) -> Vec<String> {
    let found = harness.get(&format!("/apis/{group}"));
    let versions = found["versions"].as_array().unwrap();
    versions.iter().map(|version| version["version"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn flags_that_mean_nothing_are_refused_in_upstreams_words() {
    let error = refused(&["--feature-gates", "Nonsense=true"]);
    assert!(error.contains("unrecognized feature gate: Nonsense"), "{error}");
    let error = refused(&["--runtime-config", "nonsense/v1=true"]);
    assert!(error.contains("unknown api groups nonsense"), "{error}");
}

#[test]
fn earlier_versions_are_served_on_demand_from_the_same_objects() {
    let flags = [
        "--runtime-config=api/beta=true,apps/v1/controllerrevisions=true",
        "--feature-gates=ClusterTrustBundle=true",
    ];
    let args = flags.map(str::to_owned).to_vec();
    let harness = Harness::with(Options { args, ..Options::new(IRONCLAD) });
    assert_eq!(versions(&harness, "networking.k8s.io"), ["v1", "v1beta1"]);
    assert_eq!(versions(&harness, "coordination.k8s.io"), ["v1"], "its gate is closed");
    let preferred = harness.get("/apis/networking.k8s.io");
    assert_eq!(preferred["preferredVersion"]["version"], "v1");

    let beta = "/apis/networking.k8s.io/v1beta1/servicecidrs";
    let range = json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "ServiceCIDR",
        "metadata": {"name": "more"}, "spec": {"cidrs": ["10.44.0.0/24"]}});
    let made = harness.request(Method::POST, beta, Some(&range)).unwrap();
    assert_eq!(made["apiVersion"], "networking.k8s.io/v1beta1");
    let stable = harness.get("/apis/networking.k8s.io/v1/servicecidrs/more");
    assert_eq!(stable["apiVersion"], "networking.k8s.io/v1");
    assert_eq!(stable["metadata"]["uid"], made["metadata"]["uid"]);
    let list = harness.get(beta);
    assert_eq!(list["kind"], "ServiceCIDRList");
    assert!(
        list["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == "more")
    );

    let document = harness.get("/openapi/v3/apis/networking.k8s.io/v1beta1");
    assert!(document["paths"].get(beta).is_some());
    let schema = &document["components"]["schemas"]["io.k8s.api.networking.v1beta1.ServiceCIDR"];
    assert!(schema["description"].as_str().is_some_and(|text| text.contains("CIDR")), "{schema}");
    let document = harness.get("/openapi/v2");
    assert!(document["paths"].get(beta).is_some());

    let bundles = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
    let bundle = json!({"metadata": {"name": "b"}, "spec": {"trustBundle": "words"}});
    let error = harness.request(Method::POST, bundles, Some(&bundle)).unwrap_err();
    assert!(error.to_string().contains("at least one trust anchor must be provided"), "{error}");
    let metrics = harness.text("/metrics");
    let line = "kubernetes_feature_enabled{name=\"ClusterTrustBundle\",stage=\"BETA\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn versions_that_nobody_asked_for_are_not_there() {
    let flags = "--runtime-config=autoscaling/v1=false,batch/v1/cronjobs=false";
    let args = vec![flags.to_owned()];
    let harness = Harness::with(Options { args, ..Options::new(IRONCLAD) });
    assert_eq!(versions(&harness, "networking.k8s.io"), ["v1"]);
    assert!(!harness.exists("/apis/networking.k8s.io/v1beta1"));
    assert!(!harness.exists("/apis/certificates.k8s.io/v1beta1/clustertrustbundles"));
    assert_eq!(versions(&harness, "autoscaling"), ["v2"]);
    let batch = harness.get("/apis/batch/v1");
    let names: Vec<&Value> =
        batch["resources"].as_array().unwrap().iter().map(|found| &found["name"]).collect();
    assert_eq!(names, ["jobs", "jobs/status"]);
}
