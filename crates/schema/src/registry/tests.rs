//! That everything is served that can be, and nothing else.

use std::collections::BTreeSet;

use super::*;

/// Versions that have tables for the sake of the codecs, and that upstream has stopped serving; a
/// star stands for all of their kinds.
const RETIRED: [(&str, &str, &str); 31] = [
    ("admissionregistration.k8s.io", "v1alpha1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "v1alpha1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "v1beta1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "v1beta1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "v1beta1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "v1beta1", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "v1beta1", "*"),
    ("apiregistration.k8s.io", "v1beta1", "*"),
    ("apps", "v1beta1", "*"),
    ("apps", "v1beta2", "*"),
    ("authentication.k8s.io", "v1alpha1", "*"),
    ("authentication.k8s.io", "v1beta1", "*"),
    ("authorization.k8s.io", "v1beta1", "*"),
    ("batch", "v1beta1", "*"),
    ("certificates.k8s.io", "v1beta1", "CertificateSigningRequest"),
    ("coordination.k8s.io", "v1beta1", "Lease"),
    ("discovery.k8s.io", "v1beta1", "*"),
    ("events.k8s.io", "v1beta1", "*"),
    ("extensions", "v1beta1", "*"),
    ("flowcontrol.apiserver.k8s.io", "v1beta1", "*"),
    ("flowcontrol.apiserver.k8s.io", "v1beta2", "*"),
    ("flowcontrol.apiserver.k8s.io", "v1beta3", "*"),
    ("networking.k8s.io", "v1beta1", "Ingress"),
    ("networking.k8s.io", "v1beta1", "IngressClass"),
    ("node.k8s.io", "v1alpha1", "*"),
    ("node.k8s.io", "v1beta1", "*"),
    ("policy", "v1beta1", "*"),
    ("rbac.authorization.k8s.io", "v1alpha1", "*"),
    ("rbac.authorization.k8s.io", "v1beta1", "*"),
    ("scheduling.k8s.io", "v1beta1", "*"),
    ("storage.k8s.io", "v1alpha1", "*"),
];

/// Kinds that are no resource's: told in discovery, sent to webhooks, kept by nobody any more, or
/// other servers'.
const ELSEWHERE: [(&str, &str, &str); 8] = [
    ("", "v1", "PodStatusResult"),
    ("", "v1", "RangeAllocation"),
    ("apidiscovery.k8s.io", "*", "*"),
    ("imagepolicy.k8s.io", "*", "*"),
    ("meta.k8s.io", "*", "*"),
    ("metrics.k8s.io", "*", "*"),
    ("storage.k8s.io", "v1beta1", "*"),
    ("autoscaling", "v1", "Scale"),
];

fn is_listed(list: &[(&str, &str, &str)], (group, version, kind): (&str, &str, &str)) -> bool {
    let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
    list.iter().any(|(g, v, k)| *g == group && fits(v, version) && fits(k, kind))
}

#[test]
fn every_kind_with_metadata_is_served_once_all_is_switched_on() {
    let config = RuntimeConfig::parse(&["api/all=true"], |_| true).unwrap();
    let all = Registry::load(&config);
    let served: Vec<&Resource> = all
        .groups()
        .iter()
        .flat_map(|group| &group.versions)
        .flat_map(|version| &version.resources)
        .collect();
    let mut kinds: BTreeSet<(&str, &str, &str)> =
        served.iter().map(|r| (&*r.group, &*r.version, &*r.kind)).collect();
    for sub in served.iter().flat_map(|resource| &resource.subresources) {
        kinds.insert((&*sub.group, &*sub.version, &*sub.kind));
    }
    let is_object = |block: &Block| {
        let mut lines = block.text.lines().skip(1);
        lines.next().is_some_and(|line| line.starts_with("kind\to?\t0\t"))
            && lines.any(|line| line.starts_with("metadata\t") && line.contains("v1.ObjectMeta"))
    };
    let mut missing = Vec::new();
    for block in all.blocks.iter().filter(|block| is_object(block)) {
        let columns: Vec<&str> = block.text.lines().next().unwrap().split('\t').collect();
        let kind = columns[1].rsplit('.').next().unwrap();
        let kind = (columns[2], columns[3], kind);
        if !kinds.contains(&kind) && !is_listed(&RETIRED, kind) && !is_listed(&ELSEWHERE, kind) {
            missing.push(kind);
        }
    }
    assert_eq!(missing, []);
    for kind in &kinds {
        assert!(!is_listed(&RETIRED, *kind), "{kind:?} is served and listed as retired");
    }
}

#[test]
fn a_gate_keeps_its_resources_closed() {
    let config = RuntimeConfig::parse(&["api/all=true"], |_| false).unwrap();
    let closed = Registry::load(&config);
    let names = |group: &str, version: &str| -> Vec<String> {
        let group = closed.groups().iter().find(|found| found.name == group);
        let versions = group.into_iter().flat_map(|group| &group.versions);
        let of = versions.filter(|found| found.version == version);
        of.flat_map(|found| &found.resources).map(|resource| resource.name.to_string()).collect()
    };
    assert_eq!(names("scheduling.k8s.io", "v1alpha2"), [""; 0]);
    assert_eq!(names("resource.k8s.io", "v1beta1").len(), 4);
    assert!(!names("resource.k8s.io", "v1beta2").contains(&"devicetaintrules".to_owned()));
    assert!(closed.groups().iter().all(|group| group.name != "storagemigration.k8s.io"));
}

#[test]
fn what_is_kept_in_another_version_is_known_when_only_one_is_served() {
    let config = RuntimeConfig::parse(&["resource.k8s.io/v1alpha3=true"], |_| true).unwrap();
    let registry = Registry::load(&config);
    let kept = registry.resource("resource.k8s.io", "v1beta2", "devicetaintrules");
    assert!(kept.is_some_and(|resource| resource.subresource("status").is_some()));
}
