//! CSIDrivers.

use std::collections::BTreeSet;

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::resource::driver;

/// Shortest and longest life of a token.
const MIN_TOKEN_SECS: i64 = 600;
const MAX_TOKEN_SECS: i64 = 1 << 32;
const MIN_PERIOD_SECS: i64 = 10;

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    driver(&object.get("metadata").get("name"), out);
    validate(object, out);
}

fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    // The paths of some are upstream's own.
    for (field, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.get(field).is_set() {
            out.push(FieldError::required(&spec.path.child(shown), ""));
        }
    }
    spec.get("fsGroupPolicy").one_of(&["File", "None", "ReadWriteOnceWithFSType"], out);
    token_requests(&spec.get("tokenRequests"), out);
    for mode in spec.get("volumeLifecycleModes").items() {
        let mode = mode.under(spec.path.child("volumeLifecycleModes"));
        mode.one_of(&["Persistent", "Ephemeral"], out);
    }
    if !spec.get("seLinuxMount").is_set() {
        out.push(FieldError::required(&spec.path.child("seLinuxMount"), ""));
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.is_set() && period.int() < MIN_PERIOD_SECS {
        out.push(period.invalid("must be greater than or equal to 10 seconds"));
    }
    let in_secrets = spec.get("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && spec.get("tokenRequests").len() == 0 {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        out.push(in_secrets.invalid(detail));
    }
}

/// What of a driver may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    validate(new, out);
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let attached = spec.get("attachRequired").under(spec.path.child("attachedRequired"));
    attached.immutable(&before.get("attachRequired"), out);
    spec.get("volumeLifecycleModes").immutable(&before.get("volumeLifecycleModes"), out);
}

fn token_requests(requests: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if !seen.insert(audience.text()) {
            out.push(FieldError::duplicate(&audience.path, audience.text()));
            continue;
        }
        if !seconds.is_set() {
            continue;
        }
        if seconds.int() < MIN_TOKEN_SECS {
            out.push(seconds.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.int() > MAX_TOKEN_SECS {
            out.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
}
