//! `apps`: workloads.

use serde_json::{Map, Value, json};

use super::{Logic, Rule, fill, object, text};

pub(super) const RULES: &[Rule] = &[
    ("apps/v1.DeploymentSpec", "replicas", "1"),
    ("apps/v1.DeploymentSpec", "revisionHistoryLimit", "10"),
    ("apps/v1.DeploymentSpec", "progressDeadlineSeconds", "600"),
    ("apps/v1.ReplicaSetSpec", "replicas", "1"),
    ("apps/v1.DaemonSetSpec", "revisionHistoryLimit", "10"),
    ("apps/v1.StatefulSetSpec", "podManagementPolicy", "\"OrderedReady\""),
    ("apps/v1.StatefulSetSpec", "replicas", "1"),
    ("apps/v1.StatefulSetSpec", "revisionHistoryLimit", "10"),
    ("apps/v1.StatefulSetSpec", "persistentVolumeClaimRetentionPolicy", "{}"),
    ("apps/v1.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenDeleted", "\"Retain\""),
    ("apps/v1.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenScaled", "\"Retain\""),
];

pub(super) const LOGIC: &[Logic] = &[
    ("apps/v1.DeploymentStrategy", deployment_strategy),
    ("apps/v1.DaemonSetUpdateStrategy", daemon_set_strategy),
    ("apps/v1.StatefulSetUpdateStrategy", stateful_set_strategy),
    ("apps/v1.StatefulSetSpec", claim_templates),
];

fn deployment_strategy(strategy: &mut Map<String, Value>) {
    fill(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    }
}

fn daemon_set_strategy(strategy: &mut Map<String, Value>) {
    fill(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", 1);
        fill(rolling, "maxSurge", 0);
    }
}

fn stateful_set_strategy(strategy: &mut Map<String, Value>) {
    if text(strategy, "type").is_empty() {
        strategy.insert("type".to_owned(), json!("RollingUpdate"));
        fill(strategy, "rollingUpdate", json!({}));
    }
    let is_rolling = text(strategy, "type") == "RollingUpdate";
    if let (true, Some(Value::Object(rolling))) = (is_rolling, strategy.get_mut("rollingUpdate")) {
        fill(rolling, "partition", 0);
    }
}

/// Upstream puts the kind into claim templates when it converts.
fn claim_templates(spec: &mut Map<String, Value>) {
    let templates = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten().filter_map(Value::as_object_mut) {
        template.insert("apiVersion".to_owned(), json!("v1"));
        template.insert("kind".to_owned(), json!("PersistentVolumeClaim"));
    }
}
