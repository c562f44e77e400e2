//! What the user asks for.

use serde_json::{Value, json};

use super::TAINT;
use crate::storage::CLASSES;

/// The `spec` of an object of a collection, by luck; none of kinds that have none.
pub(super) fn spec(collection: &str, name: &str, number: usize, other: usize) -> Value {
    // Labels differ by kind, so that only budgets and services select others' pods.
    let (_, resource) = collection.split_once('/').unwrap_or_default();
    let labels = json!({ "app": format!("{resource}-{name}") });
    let selector = json!({ "matchLabels": labels });
    let template = |restart: &str| {
        json!({ "metadata": { "labels": labels }, "spec": { "restartPolicy": restart,
            "containers": [{ "name": "c", "image": "image-0" }] } })
    };
    // Some may stay for a while on a node that they should leave.
    let patient = |mut template: Value| {
        if other == 2 {
            template["spec"]["tolerations"] = json!([{ "key": TAINT, "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 60 }]);
        }
        template
    };
    let job = || {
        let mut job = json!({ "parallelism": other + 1, "completions": number + 1,
            "template": template("Never") });
        if number >= 3 {
            job["completionMode"] = "Indexed".into();
        }
        job
    };
    let lasting = || {
        let mut job = job();
        if other == 1 {
            job["template"]["spec"]["volumes"] =
                json!([{ "name": "data", "persistentVolumeClaim": { "claimName": name } }]);
        }
        if number % 2 == 1 {
            job["ttlSecondsAfterFinished"] = json!([0, 20, 90][other]);
        }
        job
    };
    let whose = ["deployments", "statefulsets", "daemonsets"][other];
    let policy = ["Allow", "Forbid", "Replace"][other];
    let of_others = json!({ "app": format!("{whose}-{name}") });
    match resource {
        "deployments" => json!({ "replicas": number, "selector": selector,
            "strategy": if other == 0 { json!({ "type": "Recreate" }) } else {
                json!({ "rollingUpdate": { "maxSurge": other, "maxUnavailable": number % 2 } })
            },
            "template": patient(template("Always")) }),
        "replicasets" => {
            let mut template = template("Always");
            if other == 0 {
                template["spec"]["volumes"] = json!([{ "name": "own",
                    "ephemeral": { "volumeClaimTemplate": { "spec": claim(number % 3) } } }]);
            }
            json!({ "replicas": number, "selector": selector, "template": template })
        }
        "replicationcontrollers" => json!({ "replicas": number, "selector": labels,
            "template": template("Always") }),
        "statefulsets" => {
            let mut set = json!({ "replicas": number, "selector": selector, "serviceName": "s",
                "podManagementPolicy": if other == 0 { "Parallel" } else { "OrderedReady" },
                "template": template("Always") });
            if number >= 3 {
                set["updateStrategy"] = json!({ "type": "RollingUpdate",
                    "rollingUpdate": { "maxUnavailable": number - 1 } });
            }
            if number != 3 {
                let policy = |delete: bool| if delete { "Delete" } else { "Retain" };
                set["persistentVolumeClaimRetentionPolicy"] = json!({ "whenScaled": policy(number.is_multiple_of(2)), "whenDeleted": policy(other > 0) });
                set["volumeClaimTemplates"] =
                    json!([{ "metadata": { "name": "data" }, "spec": claim(number % 3) }]);
            }
            set
        }
        "daemonsets" => json!({ "selector": selector, "template": template("Always"),
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": match other {
                0 => json!({ "maxUnavailable": number + 1 }),
                1 => json!({ "maxUnavailable": 0, "maxSurge": 1 }),
                _ => json!({}),
            } } }),
        "jobs" => lasting(),
        "cronjobs" => json!({ "schedule": "* * * * *",
            "concurrencyPolicy": policy,
            "jobTemplate": { "spec": job() } }),
        "poddisruptionbudgets" => json!({ "minAvailable": number / 2,
            "selector": { "matchLabels": of_others } }),
        "horizontalpodautoscalers" => json!({ "minReplicas": 1 + number % 2,
            "maxReplicas": 3 + other,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
                "target": { "type": "AverageValue", "averageValue": "100m" } } }] }),
        "persistentvolumeclaims" => claim(other),
        "widgets" | "configmaps" => Value::Null,
        "services" => json!({ "selector": of_others, "ports": [{ "port": 80 }] }),
        _ => json!({ "hard": { "pods": (5 + number * 3).to_string() } }),
    }
}

/// A claim of one of the classes.
pub(super) fn claim(class: usize) -> Value {
    json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": CLASSES[class],
        "resources": { "requests": { "storage": "1Gi" } } })
}
