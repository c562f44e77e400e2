//! `resource.k8s.io/v1beta1`: requests and devices have another shape than in `v1`.
//!
//! What a request wants stands in the request itself, and what a device is, in its `basic`.
//!
//! Upstream: `pkg/apis/resource/v1beta1/conversion.go`.

use serde_json::{Map, Value};

use super::Conversion;
use super::optional::label;

const GROUP: &str = "resource.k8s.io";
const STORED: &str = "resource.k8s.io/v1";
const SERVED: &str = "resource.k8s.io/v1beta1";

/// What a request of `v1` has in `exactly`.
const WANTED: [&str; 7] = [
    "deviceClassName",
    "selectors",
    "allocationMode",
    "count",
    "adminAccess",
    "tolerations",
    "capacity",
];

const fn conversion(
    resource: &'static str,
    to_storage: fn(&mut Value),
    from_storage: fn(&mut Value),
) -> Conversion {
    Conversion {
        stored_as: (GROUP, "v1", resource),
        to_storage,
        from_storage,
        is_validated_as_stored: true,
        fields: &[],
    }
}

static CLASSES: Conversion =
    conversion("deviceclasses", |object| label(object, STORED), |object| label(object, SERVED));
static CLAIMS: Conversion = conversion(
    "resourceclaims",
    |object| {
        label(object, STORED);
        each(object, "/spec/devices/requests", gather_request);
    },
    |object| {
        label(object, SERVED);
        each(object, "/spec/devices/requests", spread_request);
    },
);
static TEMPLATES: Conversion = conversion(
    "resourceclaimtemplates",
    |object| {
        label(object, STORED);
        each(object, "/spec/spec/devices/requests", gather_request);
    },
    |object| {
        label(object, SERVED);
        each(object, "/spec/spec/devices/requests", spread_request);
    },
);
static SLICES: Conversion = conversion(
    "resourceslices",
    |object| {
        label(object, STORED);
        each(object, "/spec/devices", spread_device);
    },
    |object| {
        label(object, SERVED);
        each(object, "/spec/devices", gather_device);
    },
);

pub(super) fn find(resource: &str) -> Option<&'static Conversion> {
    match resource {
        "deviceclasses" => Some(&CLASSES),
        "resourceclaims" => Some(&CLAIMS),
        "resourceclaimtemplates" => Some(&TEMPLATES),
        "resourceslices" => Some(&SLICES),
        _ => None,
    }
}

fn each(object: &mut Value, pointer: &str, change: fn(&mut Map<String, Value>)) {
    let items = object.pointer_mut(pointer).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut).for_each(change);
}

fn gather_request(request: &mut Map<String, Value>) {
    let taken = WANTED.iter().filter_map(|field| request.remove_entry(*field));
    let exactly: Map<String, Value> = taken.collect();
    if !exactly.is_empty() {
        request.insert("exactly".to_owned(), Value::Object(exactly));
    }
}

fn spread_request(request: &mut Map<String, Value>) {
    if let Some(Value::Object(exactly)) = request.remove("exactly") {
        request.extend(exactly);
    }
}

/// A device always has a `basic`, be it empty.
fn gather_device(device: &mut Map<String, Value>) {
    let name = device.remove_entry("name");
    let basic = std::mem::take(device);
    device.extend(name);
    device.insert("basic".to_owned(), Value::Object(basic));
}

fn spread_device(device: &mut Map<String, Value>) {
    if let Some(Value::Object(basic)) = device.remove("basic") {
        device.extend(basic);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(conversion: &Conversion, beta: Value, stable: &Value) {
        let mut object = beta.clone();
        (conversion.to_storage)(&mut object);
        assert_eq!(object, *stable);
        (conversion.from_storage)(&mut object);
        assert_eq!(object, beta);
    }

    #[test]
    fn requests_want_in_themselves_or_in_a_part() {
        let of = |version: &str, requests: Value| {
            json!({"apiVersion": version, "kind": "ResourceClaim",
                "spec": {"devices": {"requests": requests}}})
        };
        let first = json!([{"name": "s", "deviceClassName": "c"}]);
        check(
            &CLAIMS,
            of(
                SERVED,
                json!([{"name": "a", "deviceClassName": "c", "allocationMode": "All"},
                    {"name": "b", "firstAvailable": first}]),
            ),
            &of(
                STORED,
                json!([{"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "All"}},
                    {"name": "b", "firstAvailable": first}]),
            ),
        );
    }

    #[test]
    fn devices_are_basic_even_when_they_are_nothing_else() {
        let of = |version: &str, devices: Value| json!({"apiVersion": version, "kind": "ResourceSlice", "spec": {"devices": devices}});
        let attributes = json!({"a": {"int": 1}});
        check(
            &SLICES,
            of(
                SERVED,
                json!([{"name": "d", "basic": {"attributes": attributes}},
                {"name": "e", "basic": {}}]),
            ),
            &of(STORED, json!([{"name": "d", "attributes": attributes}, {"name": "e"}])),
        );
    }
}
