//! Owners that an object names twice are named once.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/create.go`, `dedupOwnerReferences`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::context::RequestContext;

/// When duplicates were found, which is part of what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In what the client sent.
    Request,
    /// In what admission, or a patch, has made of it.
    Admission,
}

/// Drops owner references that are there already, and tells the client.
pub(super) fn dedup(ctx: &RequestContext, object: &mut Value, stage: Stage) {
    let duplicates = drop_duplicates(object);
    if duplicates.is_empty() {
        return;
    }
    let when = match stage {
        Stage::Request => "",
        Stage::Admission => " after mutating admission happens",
    };
    ctx.warn(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner \
         references in 1.20+, and may reject such requests as early as 1.24; please fix your \
         requests; duplicate UID(s) observed: {}",
        duplicates.join(", ")
    ));
}

/// The uids of those that were there already, all fields being the same.
fn drop_duplicates(object: &mut Value) -> Vec<String> {
    let metadata = object.get_mut("metadata");
    let list = metadata.and_then(|metadata| metadata.get_mut("ownerReferences"));
    let Some(list) = list.and_then(Value::as_array_mut).filter(|list| list.len() > 1) else {
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Value> = Vec::with_capacity(list.len());
    let mut duplicates = Vec::new();
    for reference in list.drain(..) {
        if seen.insert(reference.to_string()) {
            kept.push(reference);
        } else {
            duplicates.push(reference["uid"].as_str().unwrap_or_default().to_owned());
        }
    }
    *list = kept;
    duplicates
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_references_that_are_the_same_throughout_are_dropped() {
        let (a, b) = (json!({"uid": "a", "name": "x"}), json!({"uid": "a", "name": "y"}));
        let mut object = json!({"metadata": {"ownerReferences": [a, b, a, b, a]}});
        assert_eq!(drop_duplicates(&mut object), ["a", "a", "a"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([a, b]));
        assert!(drop_duplicates(&mut object).is_empty());
    }
}
