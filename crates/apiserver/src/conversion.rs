//! Resources that are served in more than one version or group and kept in one.

mod autoscaler;
mod devices;
mod optional;

use serde_json::{Map, Value, json};

/// How one served version becomes the stored one and back.
pub(crate) struct Conversion {
    /// Group, version and resource that are stored.
    pub(crate) stored_as: (&'static str, &'static str, &'static str),
    pub(crate) to_storage: fn(&mut Value),
    pub(crate) from_storage: fn(&mut Value),
    /// Whether upstream validates the two versions as one; if not, each in its own words.
    pub(crate) is_validated_as_stored: bool,
    /// Field selector keys of this version and what they are called in the stored one.
    pub(crate) fields: &'static [(&'static str, &'static str)],
}

static EVENTS: Conversion = Conversion {
    stored_as: ("", "v1", "events"),
    to_storage: event_to_core,
    from_storage: event_from_core,
    is_validated_as_stored: false,
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
    to_storage: autoscaler::to_v2,
    from_storage: autoscaler::from_v2,
    is_validated_as_stored: true,
    fields: &[],
};

/// The conversion of a served resource; `None` when it is stored as it is.
pub(crate) fn find(group: &str, version: &str, resource: &str) -> Option<&'static Conversion> {
    match (group, version, resource) {
        ("events.k8s.io", "v1", "events") => Some(&EVENTS),
        ("autoscaling", "v1", "horizontalpodautoscalers") => Some(&AUTOSCALERS_V1),
        (_, "v1" | "v2", _) => None,
        ("resource.k8s.io", "v1beta1", _) => devices::find(resource),
        _ => optional::find(group, version, resource),
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
}
