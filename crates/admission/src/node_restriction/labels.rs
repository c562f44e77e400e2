//! The labels that a kubelet may give its node.
//!
//! Upstream: `kubelet/pkg/apis/well_known_labels.go`.

use std::collections::BTreeSet;

use serde_json::Value;

/// Kept for administrators: selecting by them keeps pods from nodes that label themselves.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const OWN: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The labels that differ and are not the kubelet's to change, by name.
pub(super) fn forbidden(new: &Value, old: &Value) -> Vec<String> {
    let keys = |of: &Value| -> BTreeSet<String> {
        of.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let all: BTreeSet<String> = keys(new).union(&keys(old)).cloned().collect();
    all.into_iter().filter(|key| new.get(key) != old.get(key) && is_forbidden(key)).collect()
}

fn is_forbidden(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    if is_within(domain, RESTRICTED) {
        return true;
    }
    let is_clusters = is_within(domain, "kubernetes.io") || is_within(domain, "k8s.io");
    let is_own = OWN.contains(&key) || OWN_DOMAINS.iter().any(|own| is_within(domain, own));
    is_clusters && !is_own
}

fn is_within(domain: &str, parent: &str) -> bool {
    let rest = domain.strip_suffix(parent);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
