//! Resources of a pod as a whole, and the claims of its containers to devices.

use std::collections::{BTreeMap, BTreeSet};

use meta::Quantity;

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::resources::{request_fits, resource_quantity};

/// The claims of a pod: each names a claim or a template of one.
pub(crate) fn claims(claims: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.text().is_empty() {
            out.push(FieldError::required(&name.path, ""));
        } else if seen.insert(name.text()) {
            name.label(out);
        } else {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        let (own, template) =
            (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        let detail = match (own.is_set(), template.is_set()) {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            }
            _ => "",
        };
        if !detail.is_empty() {
            out.push(claim.invalid(detail).shown_as("core/v1.PodResourceClaim"));
        }
        for reference in [own, template] {
            if reference.is_set() {
                reference.subdomain(out);
            }
        }
    }
}

/// The claims that a container uses must be the pod's.
pub(crate) fn container_claims(used: &Node<'_>, known: &BTreeSet<String>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for claim in used.items() {
        let (name, request) = (claim.get("name"), claim.get("request"));
        if name.text().is_empty() {
            out.push(FieldError::required(&name.path, ""));
            continue;
        }
        let key = if request.text().is_empty() {
            name.text().to_owned()
        } else {
            format!("{}/{}", name.text(), request.text())
        };
        if !seen.insert(key.clone()) {
            out.push(FieldError::duplicate(&claim.path, key));
        }
        if !known.contains(name.text()) {
            let text = "must be one of the names in pod.spec.resourceClaims";
            let detail = if known.is_empty() {
                format!("{text} which is empty")
            } else {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                format!("{text}: {}", names.join(", "))
            };
            out.push(FieldError::not_found(&claim.path, name.text()).with_detail(detail));
        }
        if !request.text().is_empty() {
            request.label(out);
        }
    }
}

/// Resources that the containers of a pod share.
pub(crate) fn of_pod(spec: &Node<'_>, out: &mut Findings) {
    let resources = spec.get("resources");
    if !resources.is_set() {
        return;
    }
    if spec.get("os").get("name").text() == "windows" {
        out.push(resources.forbidden("may not be set for a windows pod"));
    }
    if resources.get("claims").is_set() {
        let detail = "claims may not be set for Resources at pod-level";
        out.push(resources.get("claims").forbidden(detail));
    }
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for list in [&limits, &requests] {
        for (name, value) in list.entries() {
            if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
                let known = ["memory", "cpu", "hugepages-"];
                out.push(FieldError::not_supported(&value.path, name, &known));
            }
            resource_quantity(name, &value, out);
            if std::ptr::eq(list, &requests) {
                request_fits(name, &value, &requests, &limits, out);
            }
        }
    }
    let whole = |list: &Node<'_>, name: &str| -> Option<Quantity> {
        list.value.get(name)?.as_str()?.parse().ok()
    };
    for (name, total) in totals(spec, "requests") {
        if whole(&requests, &name).is_some_and(|of_pod| of_pod < total) {
            let path = requests.path.key(&name);
            let value = requests.value[name.as_str()].clone();
            let detail =
                format!("must be greater than or equal to aggregate container requests of {total}");
            out.push(FieldError::invalid(&path, value, detail));
        }
    }
    for (name, total) in totals(spec, "limits") {
        let Some(of_pod) = whole(&limits, &name) else { continue };
        if name.starts_with("hugepages-") && of_pod < total {
            let path = limits.path.key(&name);
            let detail =
                format!("must be greater than or equal to aggregate container limits of {total}");
            out.push(FieldError::invalid(&path, limits.value[name.as_str()].clone(), detail));
        }
    }
    container_limits(spec, &limits, out);
}

/// No container may have more than the pod.
fn container_limits(spec: &Node<'_>, limits: &Node<'_>, out: &mut Findings) {
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items() {
            for (name, value) in container.get("resources").get("limits").entries() {
                let of_pod = limits.value.get(name).and_then(|limit| limit.as_str());
                let of_pod = of_pod.and_then(|limit| limit.parse::<Quantity>().ok());
                let own = value.text().parse::<Quantity>().ok();
                if let (Some(own), Some(of_pod)) = (own, of_pod)
                    && own > of_pod
                {
                    let path = container.path.child("resources.limits").key(name);
                    let detail = format!("must be less than or equal to pod limits of {of_pod}");
                    out.push(FieldError::invalid(&path, value.text(), detail));
                }
            }
        }
    }
}

/// What the containers take together: those that run to the end before the others count by the
/// greatest.
fn totals(spec: &Node<'_>, side: &'static str) -> BTreeMap<String, Quantity> {
    let mut sums: BTreeMap<String, Quantity> = BTreeMap::new();
    let amounts = |container: &Node<'_>| -> Vec<(String, Quantity)> {
        let list = container.get("resources").get(side);
        let parsed = |(name, value): (&str, Node<'_>)| {
            Some((name.to_owned(), value.text().parse::<Quantity>().ok()?))
        };
        list.entries().filter_map(parsed).collect()
    };
    let add = |sums: &mut BTreeMap<String, Quantity>, name: String, quantity: Quantity| {
        let sum = sums.remove(&name).unwrap_or_default();
        sums.insert(name, sum + quantity);
    };
    for container in spec.get("containers").items() {
        amounts(&container).into_iter().for_each(|(name, own)| add(&mut sums, name, own));
    }
    let mut beside: BTreeMap<String, Quantity> = BTreeMap::new();
    let mut first: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in spec.get("initContainers").items() {
        for (name, own) in amounts(&container) {
            if container.get("restartPolicy").text() == "Always" {
                add(&mut beside, name.clone(), own);
                add(&mut sums, name, own);
            } else {
                let needed = own + beside.get(&name).copied().unwrap_or_default();
                let most = first.get(&name).copied().unwrap_or_default().max(needed);
                first.insert(name, most);
            }
        }
    }
    for (name, most) in first {
        let sum = sums.get(&name).copied().unwrap_or_default();
        sums.insert(name, sum.max(most));
    }
    sums
}
