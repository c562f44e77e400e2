//! Resources that are served in more than one version or group and kept in one.

use serde_json::{Map, Value, json};

/// How one served version becomes the stored one and back.
pub(crate) struct Conversion {
    /// Group, version and resource that are stored.
    pub(crate) stored_as: (&'static str, &'static str, &'static str),
    pub(crate) to_storage: fn(&mut Value),
    pub(crate) from_storage: fn(&mut Value),
    /// Field selector keys of this version and what they are called in the stored one.
    pub(crate) fields: &'static [(&'static str, &'static str)],
}

static EVENTS: Conversion = Conversion {
    stored_as: ("", "v1", "events"),
    to_storage: event_to_core,
    from_storage: event_from_core,
    fields: &[
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
    ],
};

static AUTOSCALERS_V1: Conversion = Conversion {
    stored_as: ("autoscaling", "v2", "horizontalpodautoscalers"),
    to_storage: autoscaler_to_v2,
    from_storage: autoscaler_from_v2,
    fields: &[],
};

/// The conversion of a served resource; `None` when it is stored as it is.
pub(crate) fn find(group: &str, version: &str, resource: &str) -> Option<&'static Conversion> {
    match (group, version, resource) {
        ("events.k8s.io", "v1", "events") => Some(&EVENTS),
        ("autoscaling", "v1", "horizontalpodautoscalers") => Some(&AUTOSCALERS_V1),
        _ => None,
    }
}

/// `events.k8s.io/v1` name, core name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn event_to_core(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    rename(map, EVENT_FIELDS.map(|(new, core)| (new, core)));
    map.insert("apiVersion".to_owned(), json!("v1"));
}

fn event_from_core(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    rename(map, EVENT_FIELDS.map(|(new, core)| (core, new)));
    map.insert("apiVersion".to_owned(), json!("events.k8s.io/v1"));
}

fn rename<const N: usize>(map: &mut Map<String, Value>, names: [(&str, &str); N]) {
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What v1 has no field for travels in annotations.
fn autoscaler_to_v2(object: &mut Value) {
    let from_annotation = |object: &mut Value, key: &str| -> Option<Value> {
        let annotations = object.pointer_mut("/metadata/annotations")?.as_object_mut()?;
        serde_json::from_str(annotations.remove(key)?.as_str()?).ok()
    };
    let mut metrics = match from_annotation(object, METRICS) {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    let current = from_annotation(object, CURRENT_METRICS);
    let conditions = from_annotation(object, CONDITIONS);
    let behavior = from_annotation(object, BEHAVIOR);
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            metrics.insert(0, cpu_metric("target", "averageUtilization", target));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(metrics));
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    let mut status = match object.get_mut("status").map(Value::take) {
        Some(Value::Object(status)) => status,
        _ => Map::new(),
    };
    let mut currents = match current {
        Some(Value::Array(currents)) => currents,
        _ => Vec::new(),
    };
    if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
        currents.insert(0, cpu_metric("current", "averageUtilization", percent));
    }
    if !currents.is_empty() {
        status.insert("currentMetrics".to_owned(), Value::Array(currents));
    }
    if let Some(conditions) = conditions {
        status.insert("conditions".to_owned(), conditions);
    }
    put_or_remove(object, "status", Value::Object(status));
    drop_empty_annotations(object);
    object["apiVersion"] = json!("autoscaling/v2");
}

fn autoscaler_from_v2(object: &mut Value) {
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let (cpu, others) = split_cpu(spec.remove("metrics"), "target");
        if let Some(target) = cpu {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
        annotations.extend(others.map(|others| (METRICS, others)));
        annotations.extend(spec.remove("behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let (cpu, others) = split_cpu(status.remove("currentMetrics"), "current");
        if let Some(percent) = cpu {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        annotations.extend(others.map(|others| (CURRENT_METRICS, others)));
        annotations.extend(status.remove("conditions").map(|list| (CONDITIONS, list)));
    }
    for (key, value) in annotations {
        object["metadata"]["annotations"][key] = Value::String(value.to_string());
    }
    object["apiVersion"] = json!("autoscaling/v1");
}

fn cpu_metric(side: &str, field: &str, value: Value) -> Value {
    let mut of = json!({ field: value });
    if side == "target" {
        of["type"] = json!("Utilization");
    }
    json!({ "type": "Resource", "resource": { "name": "cpu", side: of } })
}

/// Takes the plain CPU utilization out of a list of metrics.
fn split_cpu(metrics: Option<Value>, side: &str) -> (Option<Value>, Option<Value>) {
    let Some(Value::Array(mut metrics)) = metrics else { return (None, None) };
    let is_cpu = |metric: &Value| {
        metric["type"] == "Resource"
            && metric["resource"]["name"] == "cpu"
            && metric["resource"][side]["averageUtilization"].is_number()
    };
    let cpu = metrics.iter().position(is_cpu).map(|at| metrics.remove(at));
    let percent = cpu.map(|mut metric| metric["resource"][side]["averageUtilization"].take());
    (percent, Some(Value::Array(metrics)).filter(|rest| rest != &json!([])))
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
    fn events_go_to_core_and_back() {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n",
            "regarding": {"name": "p"}, "reportingController": "c", "deprecatedCount": 2});
        let mut converted = event.clone();
        event_to_core(&mut converted);
        assert_eq!(converted["message"], "n");
        assert_eq!(converted["involvedObject"]["name"], "p");
        event_from_core(&mut converted);
        assert_eq!(converted, event);
    }

    #[test]
    fn autoscalers_go_to_v2_and_back() {
        let v1 = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}});
        let mut converted = v1.clone();
        autoscaler_to_v2(&mut converted);
        assert_eq!(converted["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        autoscaler_from_v2(&mut converted);
        assert_eq!(converted, v1);
    }
}
