//! Volumes, claims and storage classes, and claims for devices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, count, is_true, joined, list, name, text, text_or};
use super::core::tri_state;

pub(super) fn row(resource: &str, o: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let age = || age(o, now);
    Some(match resource {
        "persistentvolumes" => volume(o, now),
        "persistentvolumeclaims" => claim(o, now),
        "storageclasses" => vec![
            name(o),
            json!(text(o, "/provisioner")),
            json!(text_or(o, "/reclaimPolicy", "Delete")),
            json!(text_or(o, "/volumeBindingMode", "<unset>")),
            json!(is_true(o, "/allowVolumeExpansion")),
            age(),
        ],
        "volumeattributesclasses" => vec![name(o), json!(text(o, "/driverName")), age()],
        "volumeattachments" => vec![
            name(o),
            json!(text(o, "/spec/attacher")),
            json!(text(o, "/spec/source/persistentVolumeName")),
            json!(text(o, "/spec/nodeName")),
            json!(is_true(o, "/status/attached")),
            age(),
        ],
        "csinodes" => vec![name(o), json!(count(o, "/spec/drivers")), age()],
        "csidrivers" => driver(o, now),
        "resourceclaims" => vec![name(o), json!(claim_state(o)), age()],
        "resourceslices" => vec![
            name(o),
            json!(text(o, "/spec/nodeName")),
            json!(text(o, "/spec/driver")),
            json!(text(o, "/spec/pool/name")),
            age(),
        ],
        _ => return None,
    })
}

/// Access modes as their initials, in upstream's order, each once.
fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = list(object, pointer);
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let found = known.iter().filter(|(mode, _)| modes.iter().any(|found| found == mode));
    found.map(|(_, initials)| *initials).collect::<Vec<_>>().join(",")
}

fn volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match volume.pointer("/spec/claimRef") {
        Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        None => String::new(),
    };
    let phase = match text(volume, "/metadata/deletionTimestamp") {
        "" => text(volume, "/status/phase"),
        _ => "Terminating",
    };
    vec![
        name(volume),
        json!(text_or(volume, "/spec/capacity/storage", "0")),
        json!(access_modes(volume, "/spec/accessModes")),
        json!(text(volume, "/spec/persistentVolumeReclaimPolicy")),
        json!(phase),
        json!(claim),
        json!(text(volume, "/spec/storageClassName")),
        json!(text_or(volume, "/spec/volumeAttributesClassName", "<unset>")),
        json!(text(volume, "/status/reason")),
        age(volume, now),
        json!(text_or(volume, "/spec/volumeMode", "<unset>")),
    ]
}

fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let phase = match text(claim, "/metadata/deletionTimestamp") {
        "" => text(claim, "/status/phase"),
        _ => "Terminating",
    };
    let bound = !text(claim, "/spec/volumeName").is_empty();
    let capacity = if bound { text_or(claim, "/status/capacity/storage", "0") } else { "" };
    let modes = if bound { access_modes(claim, "/status/accessModes") } else { String::new() };
    let old_class = claim
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get("volume.beta.kubernetes.io/storage-class"))
        .and_then(Value::as_str);
    vec![
        name(claim),
        json!(phase),
        json!(text(claim, "/spec/volumeName")),
        json!(capacity),
        json!(modes),
        json!(old_class.unwrap_or(text(claim, "/spec/storageClassName"))),
        json!(text_or(claim, "/spec/volumeAttributesClassName", "<unset>")),
        age(claim, now),
        json!(text_or(claim, "/spec/volumeMode", "<unset>")),
    ]
}

fn driver(driver: &Value, now: Timestamp) -> Vec<Value> {
    let audiences: Vec<&str> =
        list(driver, "/spec/tokenRequests").iter().map(|token| text(token, "/audience")).collect();
    let tokens = if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
    let modes = joined(driver, "/spec/volumeLifecycleModes", ",");
    let flag = |field: &str| match driver.pointer(field) {
        Some(Value::Bool(on)) => json!(on),
        _ => tri_state(driver, field),
    };
    vec![
        name(driver),
        flag("/spec/attachRequired"),
        flag("/spec/podInfoOnMount"),
        flag("/spec/storageCapacity"),
        json!(tokens),
        flag("/spec/requiresRepublish"),
        json!(if modes.is_empty() { "<none>".to_owned() } else { modes }),
        age(driver, now),
    ]
}

fn claim_state(claim: &Value) -> String {
    let mut states = Vec::new();
    if !text(claim, "/metadata/deletionTimestamp").is_empty() {
        states.push("deleted");
    }
    match claim.pointer("/status/allocation") {
        None if states.is_empty() => states.push("pending"),
        None => {}
        Some(_) => states.push("allocated"),
    }
    if count(claim, "/status/reservedFor") > 0 {
        states.push("reserved");
    }
    states.join(",")
}
