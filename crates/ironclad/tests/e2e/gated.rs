//! What is off unless its gate is open: the API and the controllers behind it.

use http::Method;
use serde_json::{Value, json};
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, collection};

const GATES: &str = "ClusterTrustBundle=true,GenericWorkload=true,PodCertificateRequest=true,\
                     StorageVersionMigrator=true,DRAResourcePoolStatus=true";
const VERSIONS: &str = "certificates.k8s.io/v1beta1=true,scheduling.k8s.io/v1alpha2=true,\
                        storagemigration.k8s.io/v1beta1=true,resource.k8s.io/v1alpha3=true";

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
    let migrations = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";
    let resource = json!({ "group": "", "resource": "configmaps" });
    let migration = json!({ "metadata": { "name": "m" }, "spec": { "resource": resource } });
    harness.request(Method::POST, migrations, Some(&migration)).unwrap();
    harness.until("all is migrated", || {
        let status = harness.get(&format!("{migrations}/m"))["status"].clone();
        let conditions = status["conditions"].as_array()?.clone();
        let is = |kind: &str| {
            conditions.iter().any(|one| one["type"] == kind && one["status"] == "True")
        };
        assert!(!is("Failed"), "{status}");
        is("Succeeded").then_some(())
    });

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
