//! Who an object is: names, and the metadata that is the server's.

use meta::Status;
use rand::RngExt;
use serde_json::{Value, json};

use super::{Update, text};
use crate::context::RequestContext;
use crate::errors;
use crate::resources::Storage;
use crate::strategy::{keep_old, remove};

/// Upstream's alphabet and length of generated names.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX: usize = 5;
const NAME_BASE: usize = 63 - NAME_SUFFIX;

pub(super) fn metadata_differs(a: &Value, b: &Value, field: &str) -> bool {
    a["metadata"].get(field) != b["metadata"].get(field)
}

/// Resources whose updates must name the version they were made from.
pub(super) fn allows_unconditional(resource: &meta::GroupResource) -> bool {
    !matches!(
        (resource.group.as_str(), resource.resource.as_str()),
        ("policy", "poddisruptionbudgets")
            | ("admissionregistration.k8s.io" | "apiextensions.k8s.io", _)
            | ("apiregistration.k8s.io" | "coordination.k8s.io", _)
            | ("node.k8s.io", "runtimeclasses")
            | ("certificates.k8s.io", "clustertrustbundles" | "podcertificaterequests")
            | ("internal.apiserver.k8s.io" | "storagemigration.k8s.io", _)
            | ("storage.k8s.io", "csidrivers" | "csinodes" | "csistoragecapacities")
            | ("storage.k8s.io", "volumeattachments")
    )
}

pub(super) fn set_new_metadata(
    ctx: &RequestContext,
    storage: &Storage,
    object: &mut Value,
) -> Result<(), Status> {
    let namespace = &ctx.info.namespace;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let own = text(object, "/metadata/namespace");
    if storage.is_namespaced {
        if !own.is_empty() && own != *namespace {
            return Err(errors::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            ));
        }
        object["metadata"]["namespace"] = json!(namespace);
    } else {
        remove(&mut object["metadata"], "namespace");
    }
    let metadata = &mut object["metadata"];
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        remove(metadata, field);
    }
    let base = metadata["generateName"].as_str().unwrap_or_default().to_owned();
    if metadata["name"].as_str().unwrap_or_default().is_empty() && !base.is_empty() {
        metadata["name"] = json!(generated_name(&base));
    }
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(meta::time::rfc3339(ctx.server.clock.now()));
    Ok(())
}

/// A base and a random suffix.
fn generated_name(base: &str) -> String {
    let mut rng = rand::rng();
    let mut name: String = base.chars().take(NAME_BASE).collect();
    for _ in 0..NAME_SUFFIX {
        let at = rng.random_range(0..NAME_ALPHABET.len());
        name.push(char::from(NAME_ALPHABET[at]));
    }
    name
}

/// The name must be that of the path, or absent.
pub(super) fn check_name(object: &Value, update: &Update<'_>) -> Result<(), Status> {
    let name = text(object, "/metadata/name");
    if !name.is_empty() && name != update.name {
        return Err(errors::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            update.name
        )));
    }
    Ok(())
}

/// Name and namespace must be those of the path, or absent.
pub(super) fn check_url(
    object: &Value,
    update: &Update<'_>,
    storage: &Storage,
) -> Result<(), Status> {
    check_name(object, update)?;
    let namespace = text(object, "/metadata/namespace");
    if !namespace.is_empty() && namespace != update.namespace && storage.is_namespaced {
        return Err(errors::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

pub(super) fn check_uid(
    new: &Value,
    old: &Value,
    resource: &meta::GroupResource,
    update: &Update<'_>,
    storage: &Storage,
) -> Result<(), Status> {
    let (wanted, found) = (text(new, "/metadata/uid"), text(old, "/metadata/uid"));
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let key = storage.store_key(update.namespace, update.name);
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}",
        String::from_utf8_lossy(&key)
    );
    Err(errors::conflict(resource, update.name, &why))
}

/// What clients leave out stays; what they change is for validation to refuse.
pub(super) fn keep_system_metadata(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = &mut new["metadata"];
    for field in IMMUTABLE {
        if metadata.get(field).is_none() {
            keep_old(metadata, old, field);
        }
    }
    for field in ["creationTimestamp", "generation", "selfLink"] {
        keep_old(metadata, old, field);
    }
}

/// When nothing but the times of managers would change, nothing does.
pub(super) fn keep_times(new: &mut Value, old: &Value) {
    let (times, before) = (apply::managed_fields(new), apply::managed_fields(old));
    let is_other_time = times != before && apply::is_same_but_for_times(times, before);
    if is_other_time && is_same_but_managed_fields(new, old) {
        keep_old(&mut new["metadata"], &old["metadata"], "managedFields");
    }
}

fn is_same_but_managed_fields(a: &Value, b: &Value) -> bool {
    let but = |a: &Value, b: &Value, left_out: &[&str]| {
        let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
        let kept = |key: &&String| !left_out.contains(&key.as_str());
        a.keys().chain(b.keys()).filter(kept).all(|key| a.get(key) == b.get(key))
    };
    but(a, b, &["metadata"])
        && but(&a["metadata"], &b["metadata"], &["managedFields", "resourceVersion"])
}

/// Metadata that only the server sets.
pub(super) const IMMUTABLE: [&str; 4] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
