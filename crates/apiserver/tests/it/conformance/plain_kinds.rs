//! Kinds of which the API server knows nothing in particular.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use meta::WatchEvent;
use serde_json::{Value, json};

use super::{MERGE, STRATEGIC, delete, names, patch, put, read};
use crate::fixture::{Fixture, admin};

/// A kind: where its objects are, and the least there is to one of them.
fn kinds() -> Vec<(&'static str, Value)> {
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "u"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}]}]);
    vec![
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({"spec": {"matchingPrecedence": 9999, "rules": rules,
                "priorityLevelConfiguration": {"name": "global-default"},
                "distinguisherMethod": {"type": "ByUser"}}}),
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2,
                "limitResponse": {"type": "Reject"}}}}),
        ),
        (
            "/api/v1/namespaces/default/podtemplates",
            json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            json!({"revision": 1, "data": {"spec": {"x": [1, {"y": null}]}}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 30}}),
        ),
        ("/apis/storage.k8s.io/v1/csinodes", json!({"spec": {"drivers": []}})),
        ("/apis/scheduling.k8s.io/v1/priorityclasses", json!({"value": 5, "description": "d"})),
        ("/apis/node.k8s.io/v1/runtimeclasses", json!({"handler": "h"})),
        ("/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {"attachRequired": false}})),
        (
            "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            json!({"storageClassName": "s", "capacity": "1Gi"}),
        ),
        ("/apis/storage.k8s.io/v1/storageclasses", json!({"provisioner": "p.io/x"})),
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "8"}}]}}),
        ),
        (
            "/api/v1/namespaces/default/endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": {"attacher": "a.io", "nodeName": "n",
                "source": {"persistentVolumeName": "pv"}}}),
        ),
        ("/apis/resource.k8s.io/v1/deviceclasses", json!({"spec": {}})),
        (
            "/apis/networking.k8s.io/v1/ingressclasses",
            json!({"spec": {"controller": "example.com/c"}}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}],
                "ports": [{"name": "p", "port": 80}]}),
        ),
    ]
    .into_iter()
    .chain(workloads())
    .collect()
}

/// Kinds that controllers make pods of, and what is about those.
fn workloads() -> Vec<(&'static str, Value)> {
    let labels = json!({"app": "w"});
    let containers = json!([{"name": "c", "image": "i"}]);
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
    let run = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    let set = |more: Value| {
        let mut spec = json!({"selector": {"matchLabels": labels}, "template": template});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    };
    vec![
        ("/apis/apps/v1/namespaces/default/deployments", set(json!({"replicas": 2}))),
        ("/apis/apps/v1/namespaces/default/replicasets", set(json!({"replicas": 2}))),
        ("/apis/apps/v1/namespaces/default/daemonsets", set(json!({}))),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            set(json!({"serviceName": "s", "replicas": 2})),
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            json!({"spec": {"replicas": 2, "selector": labels, "template": template}}),
        ),
        ("/apis/batch/v1/namespaces/default/jobs", json!({"spec": {"template": run}})),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"spec": {"schedule": "*/1 * * * ?", "jobTemplate": {"spec": {"template": run}}}}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}}),
        ),
        ("/api/v1/namespaces/default/resourcequotas", json!({"spec": {"hard": {"pods": "5"}}})),
    ]
}

/// What tests of workloads do with `scale`.
#[tokio::test]
async fn a_scale_is_read_patched_and_updated() {
    let server = Fixture::start().await;
    let scaled = ["deployments", "replicasets", "statefulsets", "replicationcontrollers"];
    for (path, mut object) in workloads() {
        if !scaled.iter().any(|resource| path.ends_with(resource)) {
            continue;
        }
        object["metadata"] = json!({"name": "one"});
        server.create(path, &object).await;
        let scale = format!("{path}/one/scale");
        let mut found = read(&server, &scale).await;
        assert_eq!(found["kind"], "Scale");
        assert_eq!(found["apiVersion"], "autoscaling/v1");
        assert_eq!(found["spec"]["replicas"], 2, "{path}");
        assert_eq!(found["status"]["selector"], "app=w", "{path}");
        found["spec"]["replicas"] = json!(3);
        let answer = put(&server, &scale, &found).await;
        assert_eq!(answer["spec"]["replicas"], 3, "{path}");
        for (content_type, number) in [(MERGE, 4), (STRATEGIC, 5)] {
            let change = json!({"spec": {"replicas": number}});
            patch(&server, &scale, content_type, &change).await;
            assert_eq!(read(&server, &format!("{path}/one")).await["spec"]["replicas"], number);
        }
    }
}

/// What many tests of the suite do with such kinds: everything.
#[tokio::test]
async fn plain_kinds_live_and_are_deleted_by_collection() {
    let server = Fixture::start().await;
    for (path, template) in kinds() {
        let since = read(&server, path).await["metadata"]["resourceVersion"].clone();
        for name in ["one", "two"] {
            let mut object = template.clone();
            object["metadata"] = json!({"name": name, "labels": {"e2e": "yes"}});
            server.create(&format!("{path}?fieldValidation=Strict"), &object).await;
        }
        let one = format!("{path}/one");
        for (content_type, label) in [(MERGE, "merge"), (STRATEGIC, "strategic")] {
            let change = json!({"metadata": {"annotations": {label: "x"}}});
            let patched = patch(&server, &one, content_type, &change).await;
            assert_eq!(patched["metadata"]["annotations"][label], "x", "{path}");
        }
        let mut found = read(&server, &one).await;
        found["metadata"]["annotations"]["put"] = json!("x");
        let replaced = put(&server, &one, &found).await;
        assert_eq!(replaced["metadata"]["annotations"]["put"], "x", "{path}");
        assert_ne!(
            replaced["metadata"]["resourceVersion"], found["metadata"]["resourceVersion"],
            "{path}"
        );
        assert_eq!(
            names(&server, &format!("{path}?labelSelector=e2e%3Dyes")).await,
            ["one", "two"]
        );
        // Jobs and controllers would wait for their dependents to be orphaned.
        let how = "propagationPolicy=Background";
        delete(&server, &format!("{one}?{how}")).await;
        delete(&server, &format!("{path}?labelSelector=e2e%3Dyes&{how}")).await;
        let left = names(&server, &format!("{path}?labelSelector=e2e%3Dyes")).await;
        assert!(left.is_empty(), "{path}: {left:?}");
        is_watched(&server, path, since.as_str().unwrap()).await;
    }
}

/// Makes sure that a watch with a selector tells of every step, in order; there may be more, of
/// whoever else writes such objects.
async fn is_watched(server: &Fixture, path: &str, since: &str) {
    let query = format!("watch=true&labelSelector=e2e%3Dyes&resourceVersion={since}");
    let mut watch = server.handle.watch(&admin(), &format!("{path}?{query}")).await.unwrap();
    let steps = [
        ("ADDED", "one", ""),
        ("ADDED", "two", ""),
        ("MODIFIED", "one", "merge"),
        ("MODIFIED", "one", "strategic"),
        ("MODIFIED", "one", "put"),
        ("DELETED", "one", "put"),
        ("DELETED", "two", ""),
    ];
    for step in steps {
        let is_seen = async {
            loop {
                let event = watch.next().await.unwrap().unwrap();
                let (sort, object) = match &event {
                    WatchEvent::Added(object) => ("ADDED", object),
                    WatchEvent::Modified(object) => ("MODIFIED", object),
                    WatchEvent::Deleted(object) => ("DELETED", object),
                    WatchEvent::Bookmark { .. } => continue,
                };
                let object: Value = serde_json::from_slice(object.json()).unwrap();
                let has =
                    |key: &str| key.is_empty() || object["metadata"]["annotations"][key] == "x";
                if (sort, &object["metadata"]["name"]) == (step.0, &json!(step.1)) && has(step.2) {
                    break;
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(10), is_seen).await;
        told.unwrap_or_else(|_| panic!("{path}: nobody was told of {step:?}"));
    }
}

/// Part of `[sig-node] Node Lifecycle should run through the lifecycle of a node`.
#[tokio::test]
async fn a_node_keeps_the_status_it_is_created_with() {
    let server = Fixture::start().await;
    let node = json!({"metadata": {"name": "fake"}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "m",
            "lastHeartbeatTime": null, "lastTransitionTime": null}]}});
    let created = server.create("/api/v1/nodes", &node).await;
    assert_eq!(created["status"]["conditions"][0]["status"], "True");
    let labelled = json!({"metadata": {"labels": {"l": "1"}}});
    patch(&server, "/api/v1/nodes/fake", STRATEGIC, &labelled).await;
    assert_eq!(names(&server, "/api/v1/nodes?labelSelector=l%3D1").await, ["fake"]);
    delete(&server, "/api/v1/nodes/fake").await;
    let (code, _) = server.admin(Method::GET, "/api/v1/nodes/fake", &Value::Null).await;
    assert_eq!(code, 404);
}

/// Part of `[sig-instrumentation] Events API should ensure that an event can be fetched, patched,
/// deleted, and listed`: one event, seen from both groups.
#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let server = Fixture::start().await;
    let event = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "r", "action": "a",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "note": "n",
        "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:05.000006Z"},
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "c",
        "reportingInstance": "i"});
    server.create("/apis/events.k8s.io/v1/namespaces/default/events", &event).await;
    let core = read(&server, "/api/v1/namespaces/default/events/e").await;
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("n"), &json!("p")));
    assert_eq!(core["reportingComponent"], "c");
    assert_eq!(core["series"], event["series"]);
    let mut found = read(&server, "/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    found["series"]["count"] = json!(100);
    let path = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    let mut replaced = put(&server, path, &found).await;
    for object in [&mut found, &mut replaced] {
        object["metadata"] = json!({});
    }
    assert_eq!(replaced, found);
}

/// Kinds whose status tests of the suite read, patch and update apart: a path, an object and a
/// condition or whatever else its status has.
fn with_status() -> Vec<(&'static str, Value, Value)> {
    let condition = |kind: &str| {
        json!({"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    };
    let budget = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/tmp/x"}}});
    vec![
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({"spec": {"priorityLevelConfiguration": {"name": "global-default"}}}),
            condition("Tested"),
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}}),
            condition("Tested"),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": {"attacher": "a.io", "nodeName": "n",
                "source": {"persistentVolumeName": "pv"}}}),
            json!({"attached": true}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
            json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}),
        ),
        (
            "/apis/networking.k8s.io/v1/servicecidrs",
            json!({"spec": {"cidrs": ["10.77.0.0/24"]}}),
            condition("Tested"),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            budget,
            json!({"disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 1,
                "expectedPods": 1}),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            claim,
            json!({"conditions": [{"type": "Resizing", "status": "True", "reason": "R",
                "message": "m", "lastProbeTime": null,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        ),
        (
            "/api/v1/persistentvolumes",
            volume,
            json!({"phase": "Available", "message": "m", "reason": "R"}),
        ),
    ]
    .into_iter()
    .chain(workloads_with_status())
    .collect()
}

fn workloads_with_status() -> Vec<(&'static str, Value, Value)> {
    let condition = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E",
        "message": "Set from e2e test"}]);
    let status = |path: &str| {
        let kind = path.rsplit('/').next().unwrap();
        Some(match kind {
            "deployments"
            | "replicasets"
            | "replicationcontrollers"
            | "statefulsets"
            | "daemonsets"
            | "jobs" => json!({"conditions": condition}),
            "cronjobs" => json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}),
            "resourcequotas" => json!({"hard": {"pods": "5"}, "used": {"pods": "1"}}),
            _ => return None,
        })
    };
    let told = workloads().into_iter().map(|(path, object)| (path, object, status(path)));
    told.filter_map(|(path, object, status)| Some((path, object, status?))).collect()
}

/// `… should apply changes to … status` of many a kind.
#[tokio::test]
async fn a_status_is_read_patched_and_updated_apart() {
    let server = Fixture::start().await;
    for (path, mut object, state) in with_status() {
        object["metadata"] = json!({"name": "one"});
        // What is told with the object is no status.
        object["status"] = state.clone();
        server.create(path, &object).await;
        let status = format!("{path}/one/status");
        let before = read(&server, &status).await;
        let fields = state.as_object().unwrap();
        // Whoever follows flow schemas adds a condition of his own; times are added, too.
        let is_part = |found: &Value, item: &Value| match item.as_object() {
            Some(fields) => fields.iter().all(|(name, value)| found[name] == *value),
            None => found == item,
        };
        let holds = |found: &Value, value: &Value| match (found.as_array(), value.as_array()) {
            (Some(found), Some(items)) => {
                items.iter().all(|item| found.iter().any(|found| is_part(found, item)))
            }
            _ => found == value,
        };
        let has =
            |found: &Value| fields.iter().all(|(name, value)| holds(&found["status"][name], value));
        assert!(!has(&before), "{path}: {before}");
        let patched = patch(&server, &status, MERGE, &json!({"status": state})).await;
        assert!(has(&patched), "{path}: {patched}");
        let spec = patched["spec"].clone();
        let replaced = loop {
            let mut found = read(&server, &status).await;
            found["metadata"]["annotations"] = json!({"put": "x"});
            found["spec"] = json!({});
            let (code, answer) = server.admin(Method::PUT, &status, &found).await;
            if code != http::StatusCode::CONFLICT {
                assert!(code.is_success(), "{path}: {answer}");
                break answer;
            }
        };
        assert!(has(&replaced), "{path}: {replaced}");
        assert_eq!(replaced["spec"], spec, "{path}");
        assert_eq!(replaced["metadata"]["annotations"]["put"], "x", "{path}");
    }
}

/// The kinds that live in namespaces are listed for all of them at once.
#[tokio::test]
async fn namespaced_kinds_are_listed_across_namespaces() {
    let server = Fixture::start().await;
    for namespace in ["one", "two"] {
        server.create("/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await;
    }
    let namespaced = kinds().into_iter().filter(|(path, _)| path.contains("/namespaces/default/"));
    for (path, template) in namespaced {
        for namespace in ["one", "two"] {
            let mut object = template.clone();
            object["metadata"] = json!({"name": namespace, "labels": {"e2e": "all"}});
            server.create(&path.replace("default", namespace), &object).await;
        }
        let all = path.replace("/namespaces/default", "");
        let found = names(&server, &format!("{all}?labelSelector=e2e%3Dall")).await;
        assert_eq!(found, ["one", "two"], "{all}");
    }
}

/// `[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API`.
#[tokio::test]
async fn a_pod_keeps_its_inline_volumes() {
    let server = Fixture::start().await;
    let account = json!({"metadata": {"name": "default"}});
    server.create("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let volumes = json!([
        {"name": "v", "csi": {"driver": "d.example", "fsType": "ext4",
            "volumeAttributes": {"a": "b"}, "nodePublishSecretRef": {"name": "s"}}}]);
    let pod = json!({"metadata": {"name": "inline"}, "spec": {"volumes": volumes,
        "containers": [{"name": "c", "image": "i",
            "volumeMounts": [{"name": "v", "mountPath": "/m"}]}]}});
    let made = server.create("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made["spec"]["volumes"][0], volumes[0]);
    delete(&server, "/api/v1/namespaces/default/pods/inline?gracePeriodSeconds=0").await;
}
