//! Requests and limits.

use meta::{Quantity, names};

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::resource::is_extended_resource_name;

/// Requests and limits of a container.
pub(crate) fn requirements(resources: &Node<'_>, out: &mut Findings) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, value) in limits.entries() {
        container_resource_name(name, &value, out);
        resource_quantity(name, &value, out);
        huge_pages(name, &value, out);
    }
    for (name, value) in requests.entries() {
        container_resource_name(name, &value, out);
        resource_quantity(name, &value, out);
        request_fits(name, &value, &requests, &limits, out);
        huge_pages(name, &value, out);
    }
    let mut names = limits.entries().chain(requests.entries()).map(|(name, _)| name);
    let (mut huge, mut plain) = (false, false);
    names.by_ref().for_each(|name| {
        huge |= name.starts_with("hugepages-");
        plain |= matches!(name, "cpu" | "memory");
    });
    if huge && !plain {
        out.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// A request is no more than its limit, or just as much where nothing can be taken back.
pub(crate) fn request_fits(
    name: &str,
    request: &Node<'_>,
    requests: &Node<'_>,
    limits: &Node<'_>,
    out: &mut Findings,
) {
    let limit = limits.value.get(name).and_then(|limit| limit.as_str());
    let limit = limit.and_then(|limit| limit.parse::<Quantity>().ok());
    match (request.text().parse::<Quantity>().ok(), limit) {
        (Some(wanted), Some(limit)) if !overcommits(name) && wanted != limit => {
            let detail = format!("must be equal to {name} limit of {limit}");
            out.push(FieldError::invalid(&requests.path, request.text(), detail));
        }
        (Some(wanted), Some(limit)) if overcommits(name) && wanted > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            out.push(FieldError::invalid(&requests.path, request.text(), detail));
        }
        (Some(_), None) if !overcommits(name) => out.push(FieldError::required(
            &limits.path,
            "Limit must be set for non overcommitable resources",
        )),
        _ => {}
    }
}

/// Whole pages of the size in the name.
fn huge_pages(name: &str, value: &Node<'_>, out: &mut Findings) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let whole = |text: &str| text.parse::<Quantity>().ok().map(|quantity| quantity.value());
    let (Some(size), Some(wanted)) = (whole(size), whole(value.text())) else { return };
    if size > 0 && wanted % size != 0 {
        let detail = format!("{} is not positive integer multiple of {name}", value.text());
        out.push(value.invalid(detail));
    }
}

/// Whether more of a resource may be promised than there is.
pub(crate) fn overcommits(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// The name of a resource: standard, or with a domain.
pub(crate) fn resource_name(name: &str, at: &Node<'_>, out: &mut Findings) {
    let wrong = names::qualified_name(name);
    if !wrong.is_empty() {
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&at.path, name, text)));
    } else if !name.contains('/') && !is_standard(name) {
        let detail = "must be a standard resource type or fully qualified";
        out.push(FieldError::invalid(&at.path, name, detail));
    }
}

/// The name of something a container can ask for.
pub(crate) fn container_resource_name(name: &str, at: &Node<'_>, out: &mut Findings) {
    resource_name(name, at, out);
    if !name.contains('/') {
        let for_containers = matches!(name, "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        if !for_containers {
            let detail = "must be a standard resource for containers";
            out.push(FieldError::invalid(&at.path, name, detail));
        }
    } else if !name.contains("kubernetes.io/") && !is_extended_resource_name(name) {
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
