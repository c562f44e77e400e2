//! Kinds that are served on demand.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, name, text};

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
        _ => return None,
    })
}
