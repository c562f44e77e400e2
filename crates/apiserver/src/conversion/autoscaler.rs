//! Autoscalers of v1: what it has no field for travels in annotations.
//!
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go`. Metrics are in the form of v1, where targets
//! and current values stand beside the names; behavior is in the internal form, under Go's names.

use schema::FieldValidation;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const BEHAVIOR_TYPE: &str = "autoscaling/v2.HorizontalPodAutoscalerBehavior";

/// The kinds of metrics: type and field.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn to_v2(object: &mut Value) {
    let metrics = taken(object, METRICS);
    let current = taken(object, CURRENT_METRICS);
    let conditions = taken(object, CONDITIONS);
    let behavior = taken(object, BEHAVIOR).and_then(behavior_to_v2);
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all = Vec::new();
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            all.push(cpu_metric("target", target));
        }
        all.extend(list(metrics).into_iter().map(|metric| metric_to_v2(metric, "target")));
        if !all.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(all));
        }
        spec.extend(behavior.map(|behavior| ("behavior".to_owned(), behavior)));
    }
    let mut status = match object.get_mut("status").map(Value::take) {
        Some(Value::Object(status)) => status,
        _ => Map::new(),
    };
    let percent = status.remove("currentCPUUtilizationPercentage");
    // The annotation has all of them, also that of the CPU.
    let mut currents: Vec<Value> =
        list(current).into_iter().map(|metric| metric_to_v2(metric, "current")).collect();
    if currents.is_empty() {
        currents.extend(percent.map(|percent| cpu_metric("current", percent)));
    }
    if !currents.is_empty() {
        status.insert("currentMetrics".to_owned(), Value::Array(currents));
    }
    status.extend(conditions.map(|conditions| ("conditions".to_owned(), conditions)));
    put_or_remove(object, "status", Value::Object(status));
    drop_empty_annotations(object);
    object["apiVersion"] = json!("autoscaling/v2");
}

pub(super) fn from_v2(object: &mut Value) {
    let mut annotations: Vec<(&str, String)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let (cpu, others): (Vec<Value>, Vec<Value>) = list(spec.remove("metrics"))
            .into_iter()
            .partition(|metric| cpu_percent(metric, "target").is_some());
        if let Some(percent) = cpu.last().and_then(|metric| cpu_percent(metric, "target")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
        }
        if !others.is_empty() {
            let others = others.into_iter().map(|metric| metric_to_v1(metric, "target"));
            annotations.push((METRICS, encoded("autoscaling/v1.MetricSpec", others)));
        }
        if let Some(behavior) = spec.remove("behavior") {
            annotations.push((BEHAVIOR, validation::internal_json(BEHAVIOR_TYPE, &behavior)));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let currents = list(status.remove("currentMetrics"));
        if let Some(percent) =
            currents.iter().rev().find_map(|metric| cpu_percent(metric, "current"))
        {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent.clone());
        }
        if !currents.is_empty() {
            let currents = currents.into_iter().map(|metric| metric_to_v1(metric, "current"));
            annotations.push((CURRENT_METRICS, encoded("autoscaling/v1.MetricStatus", currents)));
        }
        let conditions = list(status.remove("conditions"));
        if !conditions.is_empty() {
            let ty = "autoscaling/v1.HorizontalPodAutoscalerCondition";
            annotations.push((CONDITIONS, encoded(ty, conditions)));
        }
    }
    for (key, text) in annotations {
        object["metadata"]["annotations"][key] = Value::String(text);
    }
    object["apiVersion"] = json!("autoscaling/v1");
}

/// What an annotation says; what is no JSON is lost, as it is upstream.
fn taken(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.pointer_mut("/metadata/annotations")?.as_object_mut()?;
    serde_json::from_str(annotations.remove(key)?.as_str()?).ok()
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// A list of a type, with its members in the order of the type.
fn encoded(ty: &str, items: impl IntoIterator<Item = Value>) -> String {
    let mut out = vec![b'['];
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match schema::registry().type_named(ty) {
            Some(ty) => schema::encode_json(ty, &item, &mut out),
            None => schema::encode_untyped(&item, &mut out),
        }
    }
    out.push(b']');
    String::from_utf8_lossy(&out).into_owned()
}

fn cpu_metric(side: &str, percent: Value) -> Value {
    let mut of = json!({ "averageUtilization": percent });
    if side == "target" {
        of["type"] = json!("Utilization");
    }
    json!({ "type": "Resource", "resource": { "name": "cpu", side: of } })
}

/// The plain CPU utilization, if a metric is about it.
fn cpu_percent<'a>(metric: &'a Value, side: &str) -> Option<&'a Value> {
    let resource = &metric["resource"];
    let is_cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    resource[side].get("averageUtilization").filter(|percent| is_cpu && percent.is_number())
}

/// The v1 names of what a metric says on one side, its target or current value.
fn names(kind: &str, side: &str) -> Vec<(&'static str, String)> {
    let plain = |name: &str| format!("{side}{name}");
    match kind {
        "object" => vec![("value", plain("Value")), ("averageValue", "averageValue".to_owned())],
        "pods" => vec![("averageValue", plain("AverageValue"))],
        "external" => {
            vec![("value", plain("Value")), ("averageValue", plain("AverageValue"))]
        }
        _ => vec![
            ("averageUtilization", plain("AverageUtilization")),
            ("averageValue", plain("AverageValue")),
        ],
    }
}

fn selector_name(kind: &str) -> &'static str {
    if kind == "external" { "metricSelector" } else { "selector" }
}

fn metric_to_v1(mut metric: Value, side: &str) -> Value {
    for (_, kind) in SOURCES {
        let Some(source) = metric.get_mut(kind).and_then(Value::as_object_mut) else { continue };
        let of = source.remove(side).unwrap_or_default();
        for (name, old) in names(kind, side) {
            source.extend(of.get(name).map(|value| (old, value.clone())));
        }
        if let Some(Value::Object(mut id)) = source.remove("metric") {
            source.extend(id.remove("name").map(|name| ("metricName".to_owned(), name)));
            let selector = id.remove("selector");
            source.extend(selector.map(|it| (selector_name(kind).to_owned(), it)));
        }
        let described = source.remove("describedObject");
        source.extend(described.map(|described| ("target".to_owned(), described)));
    }
    metric
}

fn metric_to_v2(mut metric: Value, side: &str) -> Value {
    for (_, kind) in SOURCES {
        let Some(source) = metric.get_mut(kind).and_then(Value::as_object_mut) else { continue };
        if kind == "object" {
            let described = source.remove("target");
            source.extend(described.map(|described| ("describedObject".to_owned(), described)));
        }
        let mut of = Map::new();
        for (name, old) in names(kind, side) {
            of.extend(source.remove(&old).map(|value| (name.to_owned(), value)));
        }
        // Of an object v1 always has a value, which is zero when the average counts.
        if of.contains_key("averageValue") && of.get("value").is_some_and(|value| value == "0") {
            of.remove("value");
        }
        if side == "target" {
            let ty = match kind {
                _ if of.contains_key("averageUtilization") => "Utilization",
                _ if of.contains_key("value") => "Value",
                _ => "AverageValue",
            };
            of.insert("type".to_owned(), json!(ty));
        }
        source.insert(side.to_owned(), Value::Object(of));
        if matches!(kind, "object" | "pods" | "external") {
            let mut id = Map::new();
            id.extend(source.remove("metricName").map(|name| ("name".to_owned(), name)));
            let selector = source.remove(selector_name(kind));
            id.extend(selector.map(|selector| ("selector".to_owned(), selector)));
            source.insert("metric".to_owned(), Value::Object(id));
        }
    }
    metric
}

/// Behavior from Go's names, which begin with a large letter.
fn behavior_to_v2(behavior: Value) -> Option<Value> {
    let ty = schema::registry().type_named(BEHAVIOR_TYPE)?;
    let decoded = schema::decode_value(ty, &with_small_names(behavior), FieldValidation::Ignore);
    decoded.ok().map(|decoded| decoded.value)
}

fn with_small_names(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let small = |name: String| {
                let mut letters = name.chars();
                let first = letters.next().map(|letter| letter.to_ascii_lowercase());
                first.into_iter().chain(letters).collect::<String>()
            };
            map.into_iter().map(|(name, value)| (small(name), with_small_names(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(with_small_names).collect(),
        other => other,
    }
}

fn put_or_remove(object: &mut Value, key: &str, value: Value) {
    let Some(map) = object.as_object_mut() else { return };
    if value.as_object().is_some_and(Map::is_empty) {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), value);
    }
}

fn drop_empty_annotations(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
        metadata.remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_go_to_v2_and_back() {
        let v1 = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}});
        let mut converted = v1.clone();
        to_v2(&mut converted);
        assert_eq!(converted["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        from_v2(&mut converted);
        assert_eq!(converted, v1);
    }

    #[test]
    fn what_v1_has_no_field_for_survives_in_annotations() {
        let target = |ty: &str, field: &str| json!({"type": ty, field: "2"});
        let metrics = json!([
            {"type": "Pods", "pods": {"metric": {"name": "m"},
                "target": target("AverageValue", "averageValue")}},
            {"type": "Object", "object": {"metric": {"name": "m", "selector": {}},
                "describedObject": {"kind": "Service", "name": "s"},
                "target": target("Value", "value")}},
            {"type": "ContainerResource", "containerResource": {"name": "memory",
                "container": "c", "target": target("AverageValue", "averageValue")}},
            {"type": "External", "external": {"metric": {"name": "q"},
                "target": target("Value", "value")}}]);
        let current = json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 5, "averageValue": "1"}}}]);
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "metrics": metrics, "behavior": {"scaleUp": {
                "selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15}]}}},
            "status": {"currentMetrics": current}});
        let mut converted = v2.clone();
        from_v2(&mut converted);
        let annotations = &converted["metadata"]["annotations"];
        assert_eq!(
            annotations[BEHAVIOR],
            "{\"ScaleUp\":{\"StabilizationWindowSeconds\":null,\"SelectPolicy\":\"Max\",\
             \"Policies\":[{\"Type\":\"Pods\",\"Value\":4,\"PeriodSeconds\":15}],\
             \"Tolerance\":null},\"ScaleDown\":null}"
        );
        let metrics = annotations[METRICS].as_str().unwrap();
        assert!(
            metrics.starts_with(
                "[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"m\",\
                 \"targetAverageValue\":\"2\"}},{\"type\":\"Object\",\"object\":{\"target\":"
            ),
            "{metrics}"
        );
        assert_eq!(converted["status"]["currentCPUUtilizationPercentage"], 5);
        to_v2(&mut converted);
        assert_eq!(converted, v2);
    }
}
