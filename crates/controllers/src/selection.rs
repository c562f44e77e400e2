//! Reading selectors, keys and owners of typed objects.

use api::Typed;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as wire;
use meta::{LabelSelector, ObjectKey};

/// The server admits only valid selectors; one that is not selects nothing.
pub(crate) fn selector(wire: Option<&wire::LabelSelector>) -> LabelSelector {
    let value = wire.and_then(|selector| selector.to_tree().ok());
    LabelSelector::from_object(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Namespace and name.
pub(crate) fn key_of(meta: &wire::ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// The owner that controls the object.
pub(crate) fn controller_of(meta: &wire::ObjectMeta) -> Option<&wire::OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}
