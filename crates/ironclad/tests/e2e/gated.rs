//! What is off unless its gate is open: the API and the controllers behind it.

use http::Method;
use serde_json::{Value, json};
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, collection};

const GATES: &str = "ClusterTrustBundle=true,GenericWorkload=true,PodCertificateRequest=true,\
                     StorageVersionMigrator=true,DRAResourcePoolStatus=true";
const VERSIONS: &str = "certificates.k8s.io/v1beta1=true,scheduling.k8s.io/v1alpha2=true,\
                        storagemigration.k8s.io/v1beta1=true,resource.k8s.io/v1alpha3=true";
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";

#[test]
fn controllers_behind_gates_have_the_rights_that_they_need() {
    let mut options = Options::new(IRONCLAD);
    options.args.push(format!("--feature-gates={GATES}"));
    options.args.push(format!("--runtime-config={VERSIONS}"));
    let harness = Harness::with(options);
    let bundles = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
    harness.until("the authority is published", || {
        let list = harness.get(bundles);
        let bundle = list["items"].get(0)?.clone();
        let pem = bundle["spec"]["trustBundle"].as_str()?.to_owned();
        pem.starts_with("-----BEGIN CERTIFICATE-----").then_some(())
    });

    harness.create("configmaps", &json!({ "metadata": { "name": "a" } }));
    migrate(&harness, "", "configmaps");
    let moved = json!({ "spec": { "resource": { "group": "a.b" } } });
    let refused = harness.request(Method::PATCH, &format!("{MIGRATIONS}/configmaps"), Some(&moved));
    let text = "spec: Invalid value: {\"Resource\":{\"group\":\"a.b\",\"resource\":\"configmaps\"}}: \
                field is immutable";
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(text), "{refused}");
    migrate_custom_resources(&harness);

    let groups = collection("scheduling.k8s.io/v1alpha2/podgroups");
    let group = json!({ "metadata": { "name": "g" },
        "spec": { "schedulingPolicy": { "basic": {} } } });
    harness.request(Method::POST, &groups, Some(&group)).unwrap();
    let path = format!("{groups}/g");
    harness.until("the group is protected", || {
        let group: Value = harness.get(&path);
        let finalizers = group["metadata"]["finalizers"].as_array()?.clone();
        finalizers.iter().any(|one| one == "scheduling.k8s.io/podgroup-protection").then_some(())
    });
    harness.delete(&path);
    harness.until("it goes: no pod is of it", || (!harness.exists(&path)).then_some(()));

    let slice = json!({ "metadata": { "name": "s" }, "spec": { "driver": "d.example.com",
        "nodeName": "n", "devices": [{ "name": "one" }, { "name": "two" }],
        "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 } } });
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    harness.request(Method::POST, slices, Some(&slice)).unwrap();
    let requests = "/apis/resource.k8s.io/v1alpha3/resourcepoolstatusrequests";
    let request = json!({ "metadata": { "name": "r" }, "spec": { "driver": "d.example.com" } });
    harness.request(Method::POST, requests, Some(&request)).unwrap();
    let pool = harness.until("the request is answered", || {
        let status = harness.get(&format!("{requests}/r"))["status"].clone();
        let condition = &status["conditions"][0];
        let is_answered = condition["reason"] == "CalculationComplete" && status["poolCount"] == 1;
        is_answered.then(|| status["pools"][0].clone())
    });
    assert_eq!(pool["availableDevices"], 2, "{pool}");
}

/// Migrates the objects of a resource, and waits for the end.
fn migrate(harness: &Harness, group: &str, resource: &str) {
    let spec = json!({ "resource": { "group": group, "resource": resource } });
    let migration = json!({ "metadata": { "name": resource }, "spec": spec });
    harness.request(Method::POST, MIGRATIONS, Some(&migration)).unwrap();
    harness.until("all is migrated, and it does not run any more", || {
        let status = harness.get(&format!("{MIGRATIONS}/{resource}"))["status"].clone();
        let conditions = status["conditions"].as_array()?.clone();
        let is = |kind: &str, value: &str| {
            conditions.iter().any(|one| one["type"] == kind && one["status"] == value)
        };
        assert!(!is("Failed", "True"), "{status}");
        (is("Succeeded", "True") && is("Running", "False")).then_some(())
    });
}

/// Their definition says so, and which versions are stored no more.
fn migrate_custom_resources(harness: &Harness) {
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let version = |name: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema":
            { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } })
    };
    let names = json!({ "plural": "widgets", "singular": "widget", "kind": "Widget",
        "listKind": "WidgetList" });
    let definition = json!({ "metadata": { "name": "widgets.example.com" }, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": names,
        "versions": [version("v1", true), version("v2", false)] } });
    harness.request(Method::POST, definitions, Some(&definition)).unwrap();
    let widget = json!({ "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": { "name": "w" } });
    harness.until("they are served", || {
        let path = collection("example.com/v1/widgets");
        harness.request(Method::POST, &path, Some(&widget)).ok()
    });
    let path = format!("{definitions}/widgets.example.com");
    let change = json!({ "spec": { "versions": [version("v1", false), version("v2", true)] } });
    harness.request(Method::PATCH, &path, Some(&change)).unwrap();
    assert_eq!(harness.get(&path)["status"]["storedVersions"], json!(["v1", "v2"]));
    migrate(harness, "example.com", "widgets");
    let status = harness.get(&path)["status"].clone();
    assert_eq!(status["storedVersions"], json!(["v2"]));
    let mut conditions = status["conditions"].as_array().unwrap().iter();
    let migrating = conditions.find(|one| one["type"] == "StorageMigrating").unwrap();
    assert_eq!(
        (&migrating["status"], &migrating["reason"]),
        (&json!("False"), &json!("MigrationSucceeded"))
    );
}
