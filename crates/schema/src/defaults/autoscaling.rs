//! `autoscaling`: the horizontal pod autoscaler.

use serde_json::{Map, Value, json};

use super::{Logic, Rule, fill, object};

pub(super) const RULES: &[Rule] = &[
    ("autoscaling/v1.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
    ("autoscaling/v2.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
];

pub(super) const LOGIC: &[Logic] = &[
    ("autoscaling/v1.HorizontalPodAutoscaler", autoscaler_v1),
    ("autoscaling/v2.HorizontalPodAutoscalerSpec", autoscaler_v2),
];

/// Metrics other than the processor's travel in an annotation of the old version.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";

fn autoscaler_v1(autoscaler: &mut Map<String, Value>) {
    let has_metrics = autoscaler
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"))
        .is_some_and(|annotations| annotations.get(METRICS_ANNOTATION).is_some());
    if !has_metrics {
        fill(object(autoscaler, "spec"), "targetCPUUtilizationPercentage", 80);
    }
}

fn autoscaler_v2(spec: &mut Map<String, Value>) {
    let has_metrics = spec.get("metrics").and_then(Value::as_array).is_some_and(|m| !m.is_empty());
    if !has_metrics {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".to_owned(), json!([metric]));
    }
    let Some(Value::Object(behavior)) = spec.get_mut("behavior") else { return };
    let up = object(behavior, "scaleUp");
    fill(up, "stabilizationWindowSeconds", 0);
    fill(up, "selectPolicy", "Max");
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    fill(up, "policies", json!([pods, percent]));
    let down = object(behavior, "scaleDown");
    fill(down, "selectPolicy", "Max");
    fill(down, "policies", json!([percent]));
}
