//! Kinds that are served on demand.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, list, name, text, text_or};

pub(super) fn row(resource: &str, o: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let moment = |pointer: &str| o.pointer(pointer).cloned().unwrap_or_default();
    Some(match resource {
        "leasecandidates" => vec![
            name(o),
            json!(text(o, "/spec/leaseName")),
            json!(text(o, "/spec/binaryVersion")),
            json!(text(o, "/spec/emulationVersion")),
            moment("/spec/pingTime"),
            moment("/spec/renewTime"),
            json!(text(o, "/spec/strategy")),
            age(o, now),
        ],
        "clustertrustbundles" => match text(o, "/spec/signerName") {
            "" => vec![name(o), json!("<none>")],
            signer => vec![name(o), json!(signer)],
        },
        "podcertificaterequests" => vec![
            name(o),
            json!(text(o, "/spec/podName")),
            json!(text(o, "/spec/serviceAccountName")),
            json!(text(o, "/spec/nodeName")),
            json!(text(o, "/spec/signerName")),
            json!(certificate_state(o)),
        ],
        "storageversions" => vec![
            name(o),
            json!(text_or(o, "/status/commonEncodingVersion", "<unset>")),
            json!(storage_versions(o)),
            age(o, now),
        ],
        "storageversionmigrations" => vec![name(o), json!(migrated(o))],
        _ => return None,
    })
}

/// The last of the final conditions that is there.
fn certificate_state(request: &Value) -> &str {
    let conditions = list(request, "/status/conditions");
    let mut kinds = conditions.iter().filter_map(|condition| condition["type"].as_str());
    kinds.rfind(|kind| matches!(*kind, "Issued" | "Denied" | "Failed")).unwrap_or("Pending")
}

/// What each server writes; some of them.
fn storage_versions(object: &Value) -> String {
    const SHOWN: usize = 3;
    let all = list(object, "/status/storageVersions");
    if all.is_empty() {
        return "<unset>".to_owned();
    }
    let one = |of: &Value| format!("{}={}", text(of, "/apiServerID"), text(of, "/encodingVersion"));
    let shown = all.iter().take(SHOWN).map(one).collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// A resource with its group, as upstream prints it.
fn migrated(object: &Value) -> String {
    let part = |field: &str| text(object, field);
    match (part("/spec/resource/resource"), part("/spec/resource/group")) {
        (resource, "") => resource.to_owned(),
        (resource, group) => format!("{resource}.{group}"),
    }
}
