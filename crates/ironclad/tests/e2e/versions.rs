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

/// Group and version, resource, whether it is namespaced, and the least that is an object of it.
fn on_demand() -> Vec<(&'static str, &'static str, bool, Value)> {
    let taint = json!({"key": "example.com/t", "effect": "NoExecute"});
    let rule = json!({"spec": {"deviceSelector": {"driver": "d.example"}, "taint": taint}});
    let requests = json!([{"name": "r", "deviceClassName": "c"}]);
    let gang = json!({"gang": {"minCount": 2}});
    vec![
        ("resource.k8s.io/v1beta1", "deviceclasses", false, json!({"spec": {}})),
        (
            "resource.k8s.io/v1beta1",
            "resourceclaims",
            true,
            json!({"spec": {"devices": {"requests": requests}}}),
        ),
        (
            "resource.k8s.io/v1beta1",
            "resourceclaimtemplates",
            true,
            json!({"spec": {"spec": {"devices": {"requests": requests}}}}),
        ),
        (
            "resource.k8s.io/v1beta1",
            "resourceslices",
            false,
            json!({"spec": {"driver": "d.example", "nodeName": "n", "devices": [
                {"name": "a", "basic": {}}],
                "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        ),
        ("resource.k8s.io/v1beta2", "devicetaintrules", false, rule.clone()),
        ("resource.k8s.io/v1alpha3", "devicetaintrules", false, rule),
        (
            "resource.k8s.io/v1alpha3",
            "resourcepoolstatusrequests",
            false,
            json!({"spec": {"driver": "d.example"}}),
        ),
        (
            "scheduling.k8s.io/v1alpha2",
            "workloads",
            true,
            json!({"spec": {"podGroupTemplates": [{"name": "t", "schedulingPolicy": gang}]}}),
        ),
        (
            "scheduling.k8s.io/v1alpha2",
            "podgroups",
            true,
            json!({"spec": {"schedulingPolicy": gang}}),
        ),
        ("internal.apiserver.k8s.io/v1alpha1", "storageversions", false, json!({"spec": {}})),
        (
            "storagemigration.k8s.io/v1beta1",
            "storageversionmigrations",
            false,
            json!({"spec": {"resource": {"resource": "configmaps"}}}),
        ),
        (
            "coordination.k8s.io/v1beta1",
            "leasecandidates",
            true,
            json!({"spec": {"leaseName": "l", "binaryVersion": "1.36.0",
                "emulationVersion": "1.36.0", "strategy": "OldestEmulationVersion"}}),
        ),
    ]
}

#[test]
fn with_everything_switched_on_every_kind_is_there() {
    let flags = ["--runtime-config=api/all=true", "--feature-gates=AllAlpha=true,AllBeta=true"];
    let args = flags.map(str::to_owned).to_vec();
    let harness = Harness::with(Options { args, ..Options::new(IRONCLAD) });
    for (at, (version, resource, is_namespaced, mut object)) in on_demand().into_iter().enumerate()
    {
        let namespace = if is_namespaced { "/namespaces/default" } else { "" };
        let path = format!("/apis/{version}{namespace}/{resource}");
        let name = format!("example.o{at}");
        object["metadata"] = json!({"name": name});
        let made = harness.request(Method::POST, &path, Some(&object));
        let made = made.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(made["apiVersion"], version, "{made}");
        let found = harness.get(&format!("{path}/{name}"));
        assert_eq!(found["metadata"]["uid"], made["metadata"]["uid"]);
        assert_eq!(found["spec"], made["spec"], "{path}");
        let document = harness.get(&format!("/openapi/v3/apis/{version}"));
        let kind = made["kind"].as_str().unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.keys().any(|key| key.ends_with(&format!(".{kind}"))), "{path}");
        let discovered = harness.get(&format!("/apis/{version}"));
        let names = discovered["resources"].as_array().unwrap();
        assert!(names.iter().any(|found| found["name"] == resource), "{path}");
        harness.request(Method::DELETE, &format!("{path}/{name}"), None).unwrap();
    }
    the_server_says_in_which_versions_it_stores(&harness);
}

/// And what servers said that are gone is taken away.
fn the_server_says_in_which_versions_it_stores(harness: &Harness) {
    let leases = harness.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases");
    let mut leases = leases["items"].as_array().unwrap().iter();
    let label = "apiserver.kubernetes.io/identity";
    let own = leases.find(|lease| lease["metadata"]["labels"][label] == "kube-apiserver");
    let own = own.unwrap()["metadata"]["name"].as_str().unwrap();
    let path =
        "/apis/internal.apiserver.k8s.io/v1alpha1/storageversions/networking.k8s.io.servicecidrs";
    let said = || {
        let request = harness.request(Method::GET, path, None).ok()?;
        let said = request["status"]["storageVersions"].as_array()?.clone();
        (said.len() == 1 && said[0]["apiServerID"] == own).then_some(said[0].clone())
    };
    let first = harness.until("the server says it", said);
    assert_eq!(first["encodingVersion"], "networking.k8s.io/v1");
    let served = json!(["networking.k8s.io/v1", "networking.k8s.io/v1beta1"]);
    assert_eq!(first["servedVersions"], served);
    let mut version = harness.get(path);
    let mut of_another = first.clone();
    of_another["apiServerID"] = "apiserver-gone".into();
    version["status"]["storageVersions"] = json!([first, of_another]);
    harness.request(Method::PUT, &format!("{path}/status"), Some(&version)).unwrap();
    harness.until("the other is taken out", said);
}

#[test]
fn a_claim_of_an_earlier_version_is_kept_and_validated_as_the_newest() {
    let args = vec!["--runtime-config=resource.k8s.io/v1beta1=true".to_owned()];
    let harness = Harness::with(Options { args, ..Options::new(IRONCLAD) });
    let beta = "/apis/resource.k8s.io/v1beta1/namespaces/default/resourceclaims";
    let claim = |class: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
            {"name": "r", "deviceClassName": class}]}}})
    };
    let error = harness.request(Method::POST, beta, Some(&claim("Wrong"))).unwrap_err();
    let expected = "spec.devices.requests[0].exactly.deviceClassName: Invalid value: \"Wrong\"";
    assert!(error.to_string().contains(expected), "{error}");
    let made = harness.request(Method::POST, beta, Some(&claim("right"))).unwrap();
    let request = &made["spec"]["devices"]["requests"][0];
    assert_eq!(
        *request,
        json!({"name": "r", "deviceClassName": "right", "allocationMode": "ExactCount", "count": 1})
    );
    let stable = harness.get("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/c");
    let request = &stable["spec"]["devices"]["requests"][0];
    assert_eq!(request["exactly"]["deviceClassName"], "right", "{stable}");
}
