//! G11: what quotas count while things come and go, charged by the server and given back by the
//! controller.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use super::{controller, nowhere, workload};
use crate::harness::{Harness, collection};

/// A namespace of its own with a quota in it.
struct Quota<'a> {
    harness: &'a Harness,
    namespace: &'static str,
    name: &'static str,
}

impl<'a> Quota<'a> {
    fn new(harness: &'a Harness, namespace: &'static str, spec: &Value) -> Self {
        let object = json!({ "metadata": { "name": namespace } });
        harness.request(Method::POST, "/api/v1/namespaces", Some(&object)).unwrap();
        // These are counted too, and come after the namespace.
        let quota = Self { harness, namespace, name: "test-quota" };
        for (resource, name) in [("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")]
        {
            harness.becomes(&quota.object(resource, name), "is there", |_| true);
        }
        quota.make(spec);
        quota
    }

    fn make(&self, spec: &Value) {
        let object = json!({ "metadata": { "name": self.name }, "spec": spec });
        self.create("resourcequotas", &object);
    }

    /// A second quota of the same namespace.
    fn beside(&self, name: &'static str, spec: &Value) -> Quota<'a> {
        let other = Quota { harness: self.harness, namespace: self.namespace, name };
        other.make(spec);
        other
    }

    fn at(&self, resource: &str) -> String {
        collection(resource).replace("/default/", &format!("/{}/", self.namespace))
    }

    fn path(&self) -> String {
        self.object("resourcequotas", self.name)
    }

    fn object(&self, resource: &str, name: &str) -> String {
        format!("{}/{name}", self.at(resource))
    }

    fn create(&self, resource: &str, object: &Value) -> Value {
        self.harness.request(Method::POST, &self.at(resource), Some(object)).unwrap()
    }

    fn refuses(&self, resource: &str, object: &Value) {
        let refused = self.harness.request(Method::POST, &self.at(resource), Some(object));
        let error = refused.unwrap_err();
        assert_eq!(error.status().unwrap().code, 403, "{error}");
        assert!(error.to_string().contains("exceeded quota"), "{error}");
    }

    fn delete(&self, resource: &str, name: &str) {
        self.harness.delete_as(&self.object(resource, name), "Background");
    }

    fn used(&self) -> Value {
        self.harness.get(&self.path())["status"]["used"].clone()
    }

    /// Waits until the quota counts this, among others.
    fn counts(&self, expected: &Value) {
        self.harness.becomes(&self.path(), &format!("uses {expected}"), |quota| {
            let used = &quota["status"]["used"];
            let same = |(name, value): (&String, &Value)| used[name] == *value;
            quota["status"]["hard"] == quota["spec"]["hard"]
                && expected.as_object().unwrap().iter().all(same)
        });
    }

    /// Says what is counted at this very moment: admission counts before it answers.
    fn counts_at_once(&self, expected: &Value) {
        let used = self.used();
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(used[name], *value, "{name} of {used}");
        }
    }
}

/// A pod that fits nowhere, with resources.
fn pod(name: &str, resources: &Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "nodeSelector": { "nowhere": "at-all" },
        "terminationGracePeriodSeconds": 0,
        "containers": [{ "name": "c", "image": POD_IMAGE, "resources": resources }] } })
}

/// \[sig-api-machinery\] ResourceQuota should create a ResourceQuota and ensure its status is
/// promptly calculated; … capture the life of a service; of a secret; of a configMap; of a
/// replication controller; of a replica set
#[test]
fn quotas_count_what_comes_and_goes_in_their_namespace() {
    let harness = Harness::start();
    let hard = json!({ "pods": "5", "services": "10", "services.nodeports": "1",
        "services.loadbalancers": "1", "secrets": "10", "configmaps": "10",
        "replicationcontrollers": "10", "resourcequotas": "1", "count/replicasets.apps": "5",
        "persistentvolumeclaims": "10", "requests.storage": "10Gi", "cpu": "1", "memory": "500Mi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi" });
    let quota = Quota::new(&harness, "objects", &json!({ "hard": hard }));
    let nothing = json!({ "pods": "0", "services": "0", "services.nodeports": "0",
        "services.loadbalancers": "0", "secrets": "0", "configmaps": "1",
        "replicationcontrollers": "0", "resourcequotas": "1", "count/replicasets.apps": "0",
        "persistentvolumeclaims": "0", "requests.storage": "0",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "0",
        "gold.storageclass.storage.k8s.io/requests.storage": "0" });
    quota.counts(&nothing);

    let service = |name: &str, kind: &str| json!({ "metadata": { "name": name }, "spec": { "type": kind, "ports": [{ "port": 80 }] } });
    quota.create("services", &service("plain", "ClusterIP"));
    quota.create("services", &service("port", "NodePort"));
    let services = json!({ "services": "2", "services.nodeports": "1",
        "services.loadbalancers": "0" });
    quota.counts_at_once(&services);
    quota.refuses("services", &service("another", "NodePort"));
    // A balancer has a port of the nodes, of which there is none left.
    quota.refuses("services", &service("balancer", "LoadBalancer"));

    let labels = json!({ "app": "w" });
    let none = nowhere(&labels);
    quota.create("replicationcontrollers", &controller("c", &none, 0));
    quota.create("apps/v1/replicasets", &workload("s", &none, &json!({ "replicas": 0 })));
    let secret = json!({ "metadata": { "name": "s" }, "stringData": { "top": "secret" } });
    quota.create("secrets", &secret);
    quota.create("configmaps", &json!({ "metadata": { "name": "m" } }));
    let claim = json!({ "metadata": { "name": "p" }, "spec": { "storageClassName": "gold",
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    quota.create("persistentvolumeclaims", &claim);
    quota.counts_at_once(&json!({ "replicationcontrollers": "1", "count/replicasets.apps": "1",
        "secrets": "1", "configmaps": "2", "persistentvolumeclaims": "1",
        "requests.storage": "1Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/requests.storage": "1Gi" }));

    for (resource, name) in [
        ("services", "plain"),
        ("services", "port"),
        ("replicationcontrollers", "c"),
        ("apps/v1/replicasets", "s"),
        ("secrets", "s"),
        ("configmaps", "m"),
        ("persistentvolumeclaims", "p"),
    ] {
        quota.delete(resource, name);
    }
    quota.counts(&nothing);
}

/// \[sig-api-machinery\] ResourceQuota should create a ResourceQuota and capture the life of a pod
#[test]
fn a_quota_counts_what_a_pod_asks_for_until_the_pod_is_gone() {
    let harness = Harness::start();
    let gpu = "requests.example.com/dongle";
    let hard = json!({ "pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi",
        gpu: "3" });
    let quota = Quota::new(&harness, "pods", &json!({ "hard": hard }));
    let nothing =
        json!({ "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0", gpu: "0" });
    quota.counts(&nothing);
    let asks = |cpu: &str, memory: &str, dongles: &str| {
        json!({ "requests": { "cpu": cpu, "memory": memory, "ephemeral-storage": "30Gi",
            "example.com/dongle": dongles }, "limits": { "example.com/dongle": dongles } })
    };
    quota.create("pods", &pod("p", &asks("500m", "252Mi", "2")));
    let taken = json!({ "pods": "1", "cpu": "500m", "memory": "252Mi",
        "ephemeral-storage": "30Gi", gpu: "2" });
    quota.counts_at_once(&taken);
    quota.refuses("pods", &pod("more", &asks("600m", "100Mi", "0")));
    quota.refuses("pods", &pod("more", &asks("10m", "10Mi", "2")));
    // What a pod asks for stays, and so does what is counted.
    let path = quota.object("pods", "p");
    let larger = json!({ "spec": { "containers": [{ "name": "c",
        "resources": { "requests": { "cpu": "100m" } } }] } });
    let kind = "application/strategic-merge-patch+json";
    let refused = harness.send(Method::PATCH, &path, kind, Some(&larger)).unwrap_err();
    assert_eq!(refused.status().unwrap().code, 422, "{refused}");
    harness.patch(&path, &json!({ "metadata": { "labels": { "a": "b" } } }));
    quota.counts(&taken);
    quota.delete("pods", "p");
    quota.counts(&nothing);
}

/// \[sig-api-machinery\] ResourceQuota should verify ResourceQuota with terminating scopes; … with
/// best effort scope
#[test]
fn quotas_count_pods_of_their_scope_alone() {
    let harness = Harness::start();
    let hard = json!({ "pods": "5", "requests.cpu": "1", "requests.memory": "500Mi",
        "limits.cpu": "1", "limits.memory": "500Mi" });
    let of = |scope: &str| json!({ "hard": hard, "scopes": [scope] });
    let ends = Quota::new(&harness, "terminating", &of("Terminating"));
    let lasts = ends.beside("not-terminating", &of("NotTerminating"));
    let none = json!({ "pods": "0", "requests.cpu": "0", "limits.memory": "0" });
    let one = json!({ "pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi",
        "limits.cpu": "1", "limits.memory": "400Mi" });
    let resources = json!({ "requests": { "cpu": "500m", "memory": "200Mi" },
        "limits": { "cpu": "1", "memory": "400Mi" } });
    let both = |first: &Value, second: &Value, name: &str| {
        ends.counts(first);
        lasts.counts(second);
        if name != "none" {
            ends.delete("pods", name);
            ends.counts(&none);
            lasts.counts(&none);
        }
    };
    both(&none, &none, "none");
    ends.create("pods", &pod("long", &resources));
    both(&none, &one, "long");
    let mut short = pod("short", &resources);
    short["spec"]["activeDeadlineSeconds"] = 3600.into();
    ends.create("pods", &short);
    both(&one, &none, "short");

    let of = |scope: &str| json!({ "hard": { "pods": "5" }, "scopes": [scope] });
    let best = Quota::new(&harness, "best-effort", &of("BestEffort"));
    let more = best.beside("not-best-effort", &of("NotBestEffort"));
    for (name, resources, counted) in
        [("asks-nothing", json!({}), ["1", "0"]), ("asks", resources, ["0", "1"])]
    {
        best.create("pods", &pod(name, &resources));
        best.counts(&json!({ "pods": counted[0] }));
        more.counts(&json!({ "pods": counted[1] }));
        best.delete("pods", name);
        best.counts(&json!({ "pods": "0" }));
        more.counts(&json!({ "pods": "0" }));
    }
}

/// \[sig-api-machinery\] ResourceQuota should be able to update and delete ResourceQuota; should
/// manage the lifecycle of a ResourceQuota; should apply changes to a resourcequota status
#[test]
fn the_status_of_a_quota_says_what_its_spec_does_whoever_writes_it() {
    let harness = Harness::start();
    let hard = |cpu: &str, memory: &str| json!({ "cpu": cpu, "memory": memory });
    let quota = Quota::new(&harness, "status", &json!({ "hard": hard("500m", "500Mi") }));
    let path = quota.path();
    quota.counts(&json!({ "cpu": "0", "memory": "0" }));
    let is = |what: &str, cpu: &str, memory: &str| {
        harness.becomes(&path, what, |quota| quota["status"]["hard"] == hard(cpu, memory))
    };
    let quotas = quota.at("resourcequotas");
    let since = harness.now(&quotas);
    let status = format!("{path}/status");
    let written = harness.update(&status, |quota| {
        quota["status"]["hard"] = hard("1", "1Gi");
    });
    assert_eq!(written["status"]["hard"], hard("1", "1Gi"));
    is("says its own limits again", "500m", "500Mi");
    harness.patch(&path, &json!({ "spec": { "hard": hard("2", "750Mi") } }));
    is("follows its spec", "2", "750Mi");
    let patched = json!({ "status": { "hard": hard("1", "1Gi") } });
    assert_eq!(harness.patch(&status, &patched)["status"]["hard"], hard("1", "1Gi"));
    is("says its own limits again", "2", "750Mi");
    assert_eq!(harness.get(&status)["spec"]["hard"], hard("2", "750Mi"), "no part of the status");
    let seen = harness.seen(&quotas, "", &since);
    let limits: Vec<_> = seen.iter().map(|(_, quota)| &quota["status"]["hard"]["cpu"]).collect();
    let distinct = limits.iter().fold(Vec::new(), |mut list, limit| {
        if list.last() != Some(limit) {
            list.push(*limit);
        }
        list
    });
    assert_eq!(distinct, ["1", "500m", "2", "1", "2"], "a watch sees all of it");

    harness.update(&path, |quota| quota["spec"]["hard"] = hard("1", "500Mi"));
    is("follows an update", "1", "500Mi");
    harness.patch(&path, &json!({ "metadata": { "labels": { "e2e": "quota" } } }));
    let everywhere = "/api/v1/resourcequotas?labelSelector=e2e=quota";
    assert_eq!(harness.items(everywhere).len(), 1);
    harness.delete(&format!("{quotas}?labelSelector=e2e=quota"));
    harness.goes(&path);
    assert!(harness.items(everywhere).is_empty());
}
