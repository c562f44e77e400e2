//! Requests and limits.

use meta::{Quantity, names};

use crate::FieldError;
use crate::node::{Findings, Node};

/// Requests and limits of a container.
pub(crate) fn requirements(resources: &Node<'_>, out: &mut Findings) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let quantity = |node: &Node<'_>| node.text().parse::<Quantity>().ok();
    let (mut huge, mut plain) = (false, false);
    for list in [&limits, &requests] {
        for (name, value) in list.entries() {
            container_resource_name(name, &value, out);
            resource_quantity(name, &value, out);
            huge |= name.starts_with("hugepages-");
            plain |= matches!(name, "cpu" | "memory");
            if std::ptr::eq(list, &limits) {
                continue;
            }
            let limit = limits.value.get(name).and_then(|limit| limit.as_str());
            let limit = limit.and_then(|limit| limit.parse::<Quantity>().ok());
            match (quantity(&value), limit) {
                (Some(request), Some(limit)) if !overcommits(name) && request != limit => {
                    let detail = format!("must be equal to {name} limit of {limit}");
                    out.push(FieldError::invalid(&requests.path, value.text(), detail));
                }
                (Some(request), Some(limit)) if overcommits(name) && request > limit => {
                    let detail = format!("must be less than or equal to {name} limit of {limit}");
                    out.push(FieldError::invalid(&requests.path, value.text(), detail));
                }
                (Some(_), None) if !overcommits(name) => out.push(FieldError::required(
                    &limits.path,
                    "Limit must be set for non overcommitable resources",
                )),
                _ => {}
            }
        }
    }
    if huge && !plain {
        out.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// Whether more of a resource may be promised than there is.
fn overcommits(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// The name of something a container can ask for.
pub(crate) fn container_resource_name(name: &str, at: &Node<'_>, out: &mut Findings) {
    let wrong = names::qualified_name(name);
    if !wrong.is_empty() {
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&at.path, name, text)));
        return;
    }
    let for_containers =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') {
        if !is_standard(name) {
            let detail = "must be a standard resource type or fully qualified";
            out.push(FieldError::invalid(&at.path, name, detail));
        }
        if !for_containers {
            let detail = "must be a standard resource for containers";
            out.push(FieldError::invalid(&at.path, name, detail));
        }
    } else if !name.contains("kubernetes.io/") && name.starts_with("requests.") {
        let detail = "doesn't follow extended resource name standard";
        out.push(FieldError::invalid(&at.path, name, detail));
    }
}

/// Names of resources that need no prefix.
pub(crate) fn is_standard(name: &str) -> bool {
    const NAMES: [&str; 20] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "requests.storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// A quantity must not be negative, and whole where parts make no sense.
pub(crate) fn resource_quantity(name: &str, value: &Node<'_>, out: &mut Findings) {
    let Ok(quantity) = value.text().parse::<Quantity>() else { return };
    if quantity.signum() < 0 {
        out.push(value.invalid("must be greater than or equal to 0"));
    }
    let whole = matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended(name)
        || name.starts_with("hugepages-");
    if whole && !quantity.is_whole() {
        out.push(value.invalid("must be an integer"));
    }
}
