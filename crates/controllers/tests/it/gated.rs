//! What controllers do that run only where a gate is open.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const BUNDLES: &str = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
const GROUPS: &str = "/apis/scheduling.k8s.io/v1alpha2/namespaces/n/podgroups";
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";
const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const MAPS: &str = "/api/v1/namespaces/n/configmaps";

#[tokio::test]
async fn the_authority_is_published_and_former_ones_are_removed() {
    let running = Running::start_on({
        let api = MemoryApi::default();
        let bundle = |name: &str, signer: &str| {
            json!({ "metadata": { "name": name },
                "spec": { "signerName": signer, "trustBundle": "OLD" } })
        };
        let ours = "kubernetes.io/kube-apiserver-serving";
        api.create(BUNDLES, bundle("kubernetes.io:kube-apiserver-serving:former", ours));
        api.create(BUNDLES, bundle("example.com:signer:x", "example.com/signer"));
        api
    });
    let api = &running.api;
    api.eventually("the new one beside another signer's", |api| {
        let bundles = api.list(BUNDLES);
        let of = |bundle: &Value| bundle["spec"]["trustBundle"].clone();
        bundles.len() == 2 && of(&bundles[0]) == "OLD" && of(&bundles[1]) == "PEM"
    })
    .await;
    let name = api.list(BUNDLES)[1]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete(&format!("{BUNDLES}/{name}"));
    api.eventually("it comes back", |api| api.get(&format!("{BUNDLES}/{name}")).is_some()).await;
}

#[tokio::test]
async fn old_requests_of_pods_for_certificates_are_deleted() {
    let requests = "/apis/certificates.k8s.io/v1beta1/namespaces/n/podcertificaterequests";
    // What the API in memory makes was made long ago.
    let api = MemoryApi::default();
    api.create(
        requests,
        json!({ "metadata": { "name": "old" }, "spec": { "maxExpirationSeconds": 3600,
            "nodeName": "n", "nodeUID": "n", "podName": "p", "podUID": "p",
            "serviceAccountName": "s", "serviceAccountUID": "s", "signerName": "a.io/b" } }),
    );
    let running = Running::start_on(api);
    running.api.eventually("it is gone", |api| api.list(requests).is_empty()).await;
}

#[tokio::test]
async fn a_group_of_pods_stays_as_long_as_one_of_them_runs() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let group = |name: &str| {
        json!({ "metadata": { "name": name }, "spec": {
        "schedulingPolicy": { "basic": {} } } })
    };
    ["g", "empty"].into_iter().for_each(|name| drop(api.create(GROUPS, group(name))));
    for (pod, phase) in [("runs", "Running"), ("done", "Succeeded")] {
        let spec = json!({ "schedulingGroup": { "podGroupName": "g" } });
        let pod =
            json!({ "metadata": { "name": pod }, "spec": spec, "status": { "phase": phase } });
        api.create(PODS, pod);
    }
    let is_kept = |api: &MemoryApi, name: &str| {
        api.get(&format!("{GROUPS}/{name}")).is_some_and(|group| {
            group["metadata"]["finalizers"][0] == "scheduling.k8s.io/podgroup-protection"
        })
    };
    api.eventually("both are protected", |api| is_kept(api, "g") && is_kept(api, "empty")).await;
    ["g", "empty"].into_iter().for_each(|name| api.delete(&format!("{GROUPS}/{name}")));
    api.eventually("nobody holds the empty one", |api| {
        api.get(&format!("{GROUPS}/empty")).is_none()
    })
    .await;
    assert!(is_kept(api, "g"));
    api.patch(&format!("{PODS}/runs"), &json!({ "status": { "phase": "Failed" } }));
    api.eventually("it goes with the last", |api| api.get(&format!("{GROUPS}/g")).is_none()).await;
}

fn migrate(api: &MemoryApi, group: &str, resource: &str) {
    let resource = json!({ "group": group, "resource": resource });
    api.create(
        MIGRATIONS,
        json!({ "metadata": { "name": "m" }, "spec": { "resource": resource } }),
    );
}

/// Waits for the condition; status and reason of each.
async fn ends(api: &MemoryApi, kind: &str) -> Value {
    let conditions = |api: &MemoryApi| {
        let status = api.get(&format!("{MIGRATIONS}/m")).unwrap()["status"].clone();
        status["conditions"].as_array().cloned().unwrap_or_default()
    };
    api.eventually(kind, |api| {
        let told = conditions(api);
        told.iter().any(|one| one["type"] == kind) && told[0]["status"] == "False"
    })
    .await;
    let told = conditions(api).into_iter();
    told.map(|one| json!([one["type"], one["status"], one["reason"], one["message"]])).collect()
}

#[tokio::test]
async fn every_object_of_a_resource_is_written() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let map = |name: &str| api.create(MAPS, json!({ "metadata": { "name": name } }));
    ["a", "b"].into_iter().for_each(|name| drop(map(name)));
    migrate(api, "", "configmaps");
    let told = ends(api, "Succeeded").await;
    let expected = json!([
        ["Running", "False", "MigrationCompleted", "Migration completed"],
        ["Succeeded", "True", "StorageVersionMigrationSucceeded", ""]
    ]);
    assert_eq!(told, expected);
    let applied = |name: &str| api.get(&format!("{MAPS}/{name}")).unwrap()["kind"].clone();
    assert_eq!((applied("a"), applied("b")), (json!("ConfigMap"), json!("ConfigMap")));
    let status = &api.get(&format!("{MIGRATIONS}/m")).unwrap()["status"];
    assert!(status["resourceVersion"].is_string());
}

#[tokio::test]
async fn a_migration_that_cannot_be_has_failed() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    migrate(api, "example.io", "gadgets");
    let told = ends(api, "Failed").await;
    let failed = json!([
        ["Running", "False", "MigrationCompleted", "Migration completed"],
        ["Failed", "True", "StorageVersionMigrationFailed", "resource does not exist in discovery"]
    ]);
    assert_eq!(told, failed);
    api.delete(&format!("{MIGRATIONS}/m"));
    let version = json!({ "groupVersion": "example.io/v1", "version": "v1" });
    let group = json!({ "name": "example.io", "versions": [version], "preferredVersion": version });
    api.answers("/apis", json!({ "groups": [group] }));
    let gadgets = json!({ "name": "gadgets", "kind": "Gadget", "namespaced": true,
        "singularName": "", "verbs": ["get", "list", "update"] });
    let list = json!({ "groupVersion": "example.io/v1", "resources": [gadgets] });
    api.answers("/apis/example.io/v1", list);
    migrate(api, "example.io", "gadgets");
    let told = ends(api, "Failed").await;
    let text = "resource \"example.io/v1, Resource=gadgets\" does not support discovery \
                operations: [update patch list]";
    assert_eq!(told[1][3], text);
    api.delete(&format!("{MIGRATIONS}/m"));
    api.create(MAPS, json!({ "metadata": { "name": "a" } }));
    // What may pass is tried again, other failures are told.
    api.refuse(Method::PATCH, "/configmaps/a");
    migrate(api, "", "configmaps");
    let status = || api.get(&format!("{MIGRATIONS}/m")).unwrap()["status"].clone();
    api.eventually("it has begun", |_| status()["resourceVersion"].is_string()).await;
    api.refuse_nothing();
    ends(api, "Succeeded").await;
    api.delete(&format!("{MIGRATIONS}/m"));
    api.forbid(Method::PATCH, "/configmaps/a");
    migrate(api, "", "configmaps");
    let told = ends(api, "Failed").await;
    assert_eq!(told[1][3], "migration encountered unhandled error: not today");
}

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.io";

#[tokio::test]
async fn a_definition_says_that_its_objects_are_migrated() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let (collection, _) = DEFINITION.rsplit_once('/').unwrap();
    let versions = json!([{ "name": "v1", "served": true, "storage": true },
        { "name": "v1alpha1", "served": true, "storage": false }]);
    api.create(
        collection,
        json!({ "metadata": { "name": "widgets.example.io" },
            "spec": { "versions": versions }, "status": { "storedVersions": ["v1alpha1", "v1"] } }),
    );
    let resource = json!({ "group": "example.io", "resource": "widgets" });
    for name in ["first", "second"] {
        let metadata = json!({ "name": name });
        api.create(MIGRATIONS, json!({ "metadata": metadata, "spec": { "resource": resource } }));
    }
    let told = || {
        let mut told = Vec::new();
        for definition in api.history(DEFINITION) {
            let conditions = definition["status"]["conditions"].as_array().cloned();
            let mut conditions = conditions.unwrap_or_default().into_iter();
            let Some(found) = conditions.find(|one| one["type"] == "StorageMigrating") else {
                continue;
            };
            assert_eq!(found["observedGeneration"], definition["metadata"]["generation"]);
            let said = json!([found["status"], found["reason"], found["message"]]);
            if told.last() != Some(&said) {
                told.push(said);
            }
        }
        told
    };
    let begun =
        |name: &str| json!(["True", "MigrationRunning", format!("Migration {name} is running")]);
    let ended = json!([
        "False",
        "MigrationSucceeded",
        "The migration has succeeded and the stored versions have been updated"
    ]);
    let expected = [begun("first"), ended.clone(), begun("second"), ended];
    api.eventually("one after the other has run", |_| told().len() >= expected.len()).await;
    assert_eq!(told(), expected);
    assert_eq!(api.get(DEFINITION).unwrap()["status"]["storedVersions"], json!(["v1"]));
}

const VERSIONS: &str = "/apis/internal.apiserver.k8s.io/v1alpha1/storageversions";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

#[tokio::test]
async fn what_a_server_said_of_its_versions_goes_with_its_lease() {
    let api = MemoryApi::default();
    let lease = |name: &str, component: &str| {
        let labels = json!({ "apiserver.kubernetes.io/identity": component });
        api.create(LEASES, json!({ "metadata": { "name": name, "labels": labels } }));
    };
    lease("apiserver-a", "kube-apiserver");
    lease("apiserver-b", "kube-apiserver");
    lease("apiserver-c", "somebody-else");
    let version = |name: &str, servers: &[(&str, &str)]| {
        let server = |(id, version): &(&str, &str)| json!({ "apiServerID": id, "encodingVersion": version, "decodableVersions": [version] });
        let said: Vec<_> = servers.iter().map(server).collect();
        api.create(
            VERSIONS,
            json!({ "metadata": { "name": name }, "spec": {},
                "status": { "storageVersions": said } }),
        );
    };
    let (a, b) = (("apiserver-a", "v1"), ("apiserver-b", "v2"));
    version("apps.deployments", &[a, b]);
    version("example.io.widgets", &[b]);
    version("core.pods", &[a, ("apiserver-c", "v1")]);
    let running = Running::start_on(api);
    let api = &running.api;
    let servers = |api: &MemoryApi, name: &str| {
        let version = api.get(&format!("{VERSIONS}/{name}"))?;
        let said = version["status"]["storageVersions"].as_array().unwrap().clone();
        Some(said.iter().map(|one| one["apiServerID"].clone()).collect::<Vec<_>>())
    };
    api.eventually("who is no server is taken out", |api| {
        servers(api, "core.pods").unwrap() == ["apiserver-a"]
    })
    .await;
    assert_eq!(servers(api, "apps.deployments").unwrap().len(), 2);
    api.delete(&format!("{LEASES}/apiserver-b"));
    api.eventually("the other goes with its lease", |api| {
        servers(api, "apps.deployments").unwrap() == ["apiserver-a"]
            && servers(api, "example.io.widgets").is_none()
    })
    .await;
    let status = &api.get(&format!("{VERSIONS}/apps.deployments")).unwrap()["status"];
    assert_eq!(status["commonEncodingVersion"], "v1");
    assert_eq!(status["conditions"][0]["reason"], "CommonEncodingVersionSet");
}

const REQUESTS: &str = "/apis/resource.k8s.io/v1alpha3/resourcepoolstatusrequests";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

#[tokio::test]
async fn who_asks_how_many_devices_pools_have_is_told_when_they_are_there() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let slice = |name: &str, slices: i32| {
        let pool = json!({ "name": "p", "generation": 1, "resourceSliceCount": slices });
        api.create(
            SLICES,
            json!({ "metadata": { "name": name }, "spec": { "driver": "d.io", "pool": pool,
                "nodeName": "n", "devices": [{ "name": "one" }, { "name": "two" }] } }),
        );
    };
    let taken = json!({ "request": "r", "driver": "d.io", "pool": "p", "device": "one" });
    api.create(
        "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims",
        json!({ "metadata": { "name": "c" }, "spec": {},
            "status": { "allocation": { "devices": { "results": [taken] } } } }),
    );
    slice("a", 2);
    let ask = || {
        api.create(REQUESTS, json!({ "metadata": { "name": "r" }, "spec": { "driver": "d.io" } }));
        // What the API in memory makes was made long ago: without an answer it would be gone.
        let in_future = json!({ "metadata": { "creationTimestamp": "2126-01-01T00:00:00Z" } });
        api.patch(&format!("{REQUESTS}/r"), &in_future);
    };
    ask();
    slice("b", 2);
    api.eventually("it is answered", |api| {
        api.get(&format!("{REQUESTS}/r")).is_some_and(|request| request["status"].is_object())
    })
    .await;
    let status = &api.get(&format!("{REQUESTS}/r")).unwrap()["status"];
    let pool = &status["pools"][0];
    assert_eq!((&pool["totalDevices"], &pool["allocatedDevices"]), (&json!(4), &json!(1)));
    let condition = &status["conditions"][0];
    assert_eq!(condition["reason"], "CalculationComplete");
    assert_eq!(condition["message"], "Calculated status for 1 pools");
    let of = |rest: &str| format!("resourcepoolstatusrequest_controller_{rest}");
    let driver = [("driver_name", "d.io")];
    assert_eq!(running.metric(&of("requests_processed_total"), &driver), 1.0);
    assert_eq!(running.metric(&of("request_processing_duration_seconds"), &driver), 1.0);
    let long_ago = json!([{ "type": "Complete", "status": "True", "reason": "x", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
    api.patch(&format!("{REQUESTS}/r"), &json!({ "status": { "conditions": long_ago } }));
    api.eventually("it goes", |api| api.get(&format!("{REQUESTS}/r")).is_none()).await;
    // An answer that cannot be written is counted.
    api.refuse(Method::PUT, "/resourcepoolstatusrequests/");
    ask();
    let errors = of("request_processing_errors_total");
    api.eventually("it is counted", |_| running.metric(&errors, &driver) >= 1.0).await;
}

fn labelled(api: &MemoryApi, name: &str, levels: &[&str]) {
    let container = |level: &&str| {
        json!({ "name": "c", "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
            "securityContext": { "seLinuxOptions": { "level": level } } })
    };
    let containers: Vec<_> = levels.iter().map(container).collect();
    let volume = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    api.create(
        PODS,
        json!({ "metadata": { "name": name }, "spec": { "containers": containers,
            "volumes": [volume] } }),
    );
}

#[tokio::test]
async fn pods_that_would_label_one_volume_differently_are_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    labelled(api, "a", &["s0:c1"]);
    labelled(api, "b", &["s0:c2"]);
    labelled(api, "d", &["s0:c3", "s0:c4"]);
    let text = "Volume \"v\" is mounted twice with different SELinux labels inside this pod";
    api.tells("MultipleSELinuxLabels", text).await;
    api.create(
        "/api/v1/persistentvolumes",
        json!({ "metadata": { "name": "v" }, "spec": { "accessModes": ["ReadWriteMany"],
            "capacity": { "storage": "1Gi" },
            "csi": { "driver": "csi.example.com", "volumeHandle": "h" } } }),
    );
    api.create(
        "/api/v1/namespaces/n/persistentvolumeclaims",
        json!({ "metadata": { "name": "c" }, "spec": { "accessModes": ["ReadWriteMany"],
            "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } } } }),
    );
    api.eventually("the claim is bound", |api| {
        let claim = api.get("/api/v1/namespaces/n/persistentvolumeclaims/c").unwrap();
        claim["status"]["phase"] == "Bound"
    })
    .await;
    let conflicts = "selinux_warning_controller_selinux_volume_conflict";
    // Nobody has said yet that volumes of the driver can be mounted with labels.
    assert_eq!(running.metric(conflicts, &[]), 0.0);
    api.create(
        "/apis/storage.k8s.io/v1/csidrivers",
        json!({ "metadata": { "name": "csi.example.com" }, "spec": { "seLinuxMount": true } }),
    );
    for (mine, theirs, other) in [("c1", "c2", "b"), ("c2", "c1", "a")] {
        let text = format!(
            "SELinuxLabel \":::s0:{mine}\" conflicts with pod {other} that uses the same volume as \
             this pod with SELinuxLabel \":::s0:{theirs}\". If both pods land on the same node, \
             only one of them may access the volume."
        );
        api.tells("SELinuxLabelConflict", &text).await;
    }
    let label = [("property", "SELinuxLabel"), ("pod1_name", "a"), ("pod2_value", ":::s0:c2")];
    api.eventually("it is listed", |_| running.metric(conflicts, &label) == 1.0).await;
    assert_eq!(running.metric(conflicts, &[]), 2.0);
    api.patch(&format!("{PODS}/a"), &json!({ "status": { "phase": "Succeeded" } }));
    api.eventually("one has ended", |_| running.metric(conflicts, &[]) == 0.0).await;
}

#[tokio::test]
async fn a_claim_says_since_when_no_pod_refers_to_it() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let path = format!("{CLAIMS}/c");
    let resizing = json!({ "type": "Resizing", "status": "True" });
    let claim = |name: &str| {
        json!({ "metadata": { "name": name }, "spec": { "storageClassName": "" },
            "status": { "conditions": [resizing] } })
    };
    api.create(CLAIMS, claim("c"));
    let says = async |name: &str, status: &str, reason: &str, message: &str| {
        let expected = json!(["Unused", status, reason, message]);
        let path = format!("{CLAIMS}/{name}");
        api.eventually(&format!("{expected}"), |api| {
            let conditions = &api.get(&path).unwrap()["status"]["conditions"];
            let of = |field: &str| conditions[1][field].clone();
            let told = json!([of("type"), of("status"), of("reason"), of("message")]);
            conditions[0] == resizing && told == expected && of("lastTransitionTime").is_string()
        })
        .await;
    };
    let used = "A pod is currently referencing this PVC";
    let unused = "No pods are currently referencing this PVC";
    says("c", "True", "NoPodsUsingPVC", unused).await;
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    let pod = json!({ "metadata": { "name": "p" },
        "spec": { "containers": [], "volumes": [mounted] } });
    api.create(PODS, pod.clone());
    says("c", "False", "PodUsingPVC", used).await;
    api.patch(&format!("{PODS}/p"), &json!({ "status": { "phase": "Succeeded" } }));
    says("c", "True", "NoPodsUsingPVC", unused).await;
    api.delete(&format!("{PODS}/p"));
    api.create(PODS, pod);
    says("c", "False", "PodUsingPVC", used).await;
    // A claim that goes says nothing more.
    api.delete(&path);
    let before = api.get(&path).unwrap()["status"].clone();
    api.delete(&format!("{PODS}/p"));
    api.eventually("it is gone", |api| api.get(&path).is_none()).await;
    assert_eq!(api.history(&path).last().unwrap()["status"], before);

    // Its name alone makes no claim one of a pod's own.
    api.create(CLAIMS, claim("q-e"));
    let own = json!({ "name": "e", "ephemeral": {} });
    api.create(
        PODS,
        json!({ "metadata": { "name": "q" }, "spec": { "containers": [], "volumes": [own] } }),
    );
    says("q-e", "True", "NoPodsUsingPVC", unused).await;
    let template = json!({ "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "" } });
    let own = json!({ "name": "e", "ephemeral": { "volumeClaimTemplate": template } });
    api.create(
        PODS,
        json!({ "metadata": { "name": "r" }, "spec": { "containers": [], "volumes": [own] } }),
    );
    api.eventually("its own is used", |api| {
        let claim = api.get(&format!("{CLAIMS}/r-e")).unwrap_or_default();
        claim["status"]["conditions"][0]["reason"] == "PodUsingPVC"
    })
    .await;
}

#[tokio::test]
async fn without_the_gate_the_condition_stays_as_it_was() {
    let running = Running::start_ungated(MemoryApi::default());
    let api = &running.api;
    namespace(api);
    let condition = json!({ "type": "Unused", "status": "True" });
    let old = json!({ "metadata": { "name": "old" }, "spec": { "storageClassName": "" },
        "status": { "conditions": [condition] } });
    let new = json!({ "metadata": { "name": "new" }, "spec": { "storageClassName": "" } });
    for claim in [old, new] {
        api.create(CLAIMS, claim);
    }
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "old" } });
    api.create(
        PODS,
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [], "volumes": [mounted] } }),
    );
    for name in ["old", "new"] {
        let path = format!("{CLAIMS}/{name}");
        let is_seen = |claim: Value| {
            claim["metadata"]["finalizers"][0] == "kubernetes.io/pvc-protection"
                && claim["status"]["phase"] == "Pending"
        };
        api.eventually("it is seen", |api| is_seen(api.get(&path).unwrap())).await;
    }
    let conditions =
        |name: &str| api.get(&format!("{CLAIMS}/{name}")).unwrap()["status"]["conditions"].clone();
    assert_eq!(conditions("old"), json!([condition]));
    assert_eq!(conditions("new"), Value::Null);
}
