//! Pods and pod templates.

use meta::names;
use serde_json::Value;

use crate::FieldError;
use crate::container::{self, Surroundings};
use crate::metadata::labels;
use crate::node::{Findings, Node};
use crate::{address, ephemeral, pod_resources, pod_security, resources, scheduling, volume};

/// Whether a spec stands in a pod or in a template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Template,
}

pub(crate) fn create(pod: &Node<'_>, out: &mut Findings) {
    changed(pod, out);
    let pod_spec = pod.get("spec");
    if !pod_spec.get("nodeName").text().is_empty() && pod_spec.get("schedulingGates").len() > 0 {
        let detail = "cannot be set until all schedulingGates have been cleared";
        out.push(pod_spec.get("nodeName").forbidden(detail));
    }
    if pod_spec.get("ephemeralContainers").len() > 0 {
        out.push(pod_spec.get("ephemeralContainers").forbidden("cannot be set on create"));
    }
}

/// What a pod must be whenever it is written.
pub(crate) fn changed(pod: &Node<'_>, out: &mut Findings) {
    let key = "controller.kubernetes.io/pod-deletion-cost";
    let notes = pod.get("metadata").get("annotations");
    if let Some(cost) = notes.value.get(key).and_then(Value::as_str)
        && cost.parse::<i32>().is_err()
    {
        let path = crate::metadata::annotation_path(key);
        out.push(FieldError::invalid(&path, cost, "must be a 32bit integer"));
    }
    annotations(pod, out);
    let pod_spec = pod.get("spec");
    spec(&pod_spec, Place::Pod, out);
    ephemeral_claims(pod, out);
}

/// Volumes that bring their own claim name it after the pod and themselves.
fn ephemeral_claims(pod: &Node<'_>, out: &mut Findings) {
    let name = pod.get("metadata").get("name").text();
    let volumes = pod.get("spec").get("volumes");
    let mut made = std::collections::BTreeSet::new();
    for volume in volumes.items().filter(|volume| volume.get("ephemeral").is_set()) {
        let own = volume.get("name");
        let claim = format!("{name}-{}", own.text());
        if !name.is_empty() && !own.text().is_empty() {
            for text in names::dns1123_subdomain(&claim) {
                out.push(own.invalid(format!("PVC name {claim:?}: {text}")));
            }
        }
        made.insert(claim);
    }
    for volume in volumes.items() {
        let claim = volume.get("persistentVolumeClaim").get("claimName");
        if made.contains(claim.text()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            out.push(claim.invalid(detail));
        }
    }
}

const MIRROR: &str = "kubernetes.io/config.mirror";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Whether a pod only shows one that a node runs by itself.
pub(crate) fn is_mirror(pod: &Node<'_>) -> bool {
    pod.get("metadata").get("annotations").value.get(MIRROR).is_some()
}

/// Annotations that are part of what a pod is.
pub(crate) fn annotations_are_kept(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let now = new.get("metadata").get("annotations");
    let before = old.get("metadata").get("annotations");
    let mut check = |key: &str, what: &str| {
        let path = now.path.key(key);
        match (now.value.get(key), before.value.get(key)) {
            (None, Some(_)) => {
                let detail = format!("may not remove or update {what}");
                out.push(FieldError::forbidden(&path, detail));
            }
            (Some(a), Some(b)) if a != b => {
                let detail = format!("may not remove or update {what}");
                out.push(FieldError::forbidden(&path, detail));
            }
            (Some(_), None) => {
                out.push(FieldError::forbidden(&path, format!("may not add {what}")));
            }
            _ => {}
        }
    };
    let keys: std::collections::BTreeSet<&str> = now
        .entries()
        .chain(before.entries())
        .map(|(key, _)| key)
        .filter(|key| key.starts_with(APP_ARMOR))
        .collect();
    for key in keys {
        check(key, "AppArmor annotations");
    }
    check(MIRROR, "mirror pod annotation");
}

/// What annotations say about the spec.
fn annotations(pod: &Node<'_>, out: &mut Findings) {
    let (annotations, spec) = (pod.get("metadata").get("annotations"), pod.get("spec"));
    if annotations.value.get(MIRROR).is_some() {
        if spec.get("nodeName").text().is_empty() {
            let path = crate::metadata::annotation_path(MIRROR);
            let value = annotations.value[MIRROR].clone();
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            out.push(FieldError::invalid(&path, value, detail));
        }
        if spec.get("resourceClaims").len() > 0 {
            let detail = "static pods do not support resource claims";
            out.push(FieldError::forbidden(&crate::Path::default(), detail));
        }
    }
    for (key, value) in annotations.entries() {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        let path = crate::metadata::annotation_path(key);
        let is_known = ["containers", "initContainers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| spec.get(list).items())
            .any(|known| known.get("name").text() == container);
        if !is_known {
            out.push(FieldError::invalid(&path, container, "container not found"));
        }
        let profile = value.text();
        let is_profile = matches!(profile, "" | "runtime/default" | "unconfined")
            || profile.starts_with("localhost/");
        if !is_profile {
            let detail = format!("invalid AppArmor profile name: {profile:?}");
            out.push(FieldError::invalid(&path, profile, detail));
        }
    }
}

/// The spec of a pod.
pub(crate) fn spec(spec: &Node<'_>, place: Place, out: &mut Findings) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        out.push(FieldError::required(&grace.path, ""));
    }
    let volumes = volume::volumes(&spec.get("volumes"), out);
    let claims = spec.get("resourceClaims");
    pod_resources::claims(&claims, out);
    let around = Surroundings {
        volumes,
        claims: claims.items().map(|claim| claim.get("name").text().to_owned()).collect(),
        grace_secs: grace.int(),
        is_pod: place == Place::Pod,
        never_restarts: spec.get("restartPolicy").text() == "Never",
        has_own_users: spec.get("hostUsers").is_set() && !spec.get("hostUsers").is_true(),
        has_os: !spec.get("os").get("name").text().is_empty(),
    };
    let containers = spec.get("containers");
    container::main(&containers, &around, out);
    container::init(&spec.get("initContainers"), &containers, &around, out);
    ephemeral::validate(spec, &around, out);
    pod_resources::of_pod(spec, out);
    host_network_ports(spec, place, out);
    spec.get("restartPolicy").require_one_of(&["Always", "OnFailure", "Never"], out);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    spec.get("dnsPolicy").require_one_of(&policies, out);
    labels(&spec.get("nodeSelector"), out);
    pod_security::context(&spec.get("securityContext"), spec, out);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.value.as_object().is_some_and(|map| map.keys().any(|key| key != "name")) {
            out.push(secret.invalid("only name may be set"));
        }
    }
    scheduling::affinity(&spec.get("affinity"), out);
    dns_config(spec, out);
    for gate in spec.get("readinessGates").items() {
        let kind = gate.get("conditionType");
        kind.invalid_each(names::qualified_name(kind.text()), out);
    }
    scheduling_gates(&spec.get("schedulingGates"), out);
    scheduling::topology_spread(&spec.get("topologySpreadConstraints"), out);
    pod_security::host_processes(spec, out);
    pod_security::host_users(spec, out);
    names_and_limits(spec, out);
}

/// What is short and stands last in upstream's order.
fn names_and_limits(spec: &Node<'_>, out: &mut Findings) {
    for field in ["serviceAccountName", "nodeName"] {
        let name = spec.get(field);
        if !name.text().is_empty() {
            name.invalid_each(names::dns1123_subdomain(name.text()), out);
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.is_set() && !(1..=i64::from(i32::MAX)).contains(&deadline.int()) {
        out.push(deadline.invalid("must be between 1 and 2147483647, inclusive"));
    }
    for field in ["hostname", "subdomain"] {
        let name = spec.get(field);
        if !name.text().is_empty() {
            name.invalid_each(names::dns1123_label(name.text()), out);
        }
    }
    scheduling::tolerations(&spec.get("tolerations"), out);
    for alias in spec.get("hostAliases").items() {
        address::ip(&alias.get("ip"), out);
        for name in alias.get("hostnames").items() {
            name.invalid_each(names::dns1123_subdomain(name.text()), out);
        }
    }
    for field in ["priorityClassName", "runtimeClassName"] {
        if field == "runtimeClassName" {
            spec.get("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], out);
        }
        let name = spec.get(field);
        if name.is_set() && (!name.text().is_empty() || field == "runtimeClassName") {
            name.invalid_each(names::dns1123_subdomain(name.text()), out);
        }
    }
    // Upstream checks the overhead as if it were limits.
    let overhead = spec.get("overhead");
    let limits = overhead.under(overhead.path.child("limits"));
    for (name, quantity) in limits.entries() {
        resources::container_resource_name(name, &quantity, out);
        resources::resource_quantity(name, &quantity, out);
    }
    let os = spec.get("os");
    if os.is_set() && os.get("name").require(out) {
        os.get("name").under(os.path.clone()).one_of(&["linux", "windows"], out);
    }
    pod_security::operating_system(spec, out);
    hostname_override(spec, out);
    let group = spec.get("schedulingGroup");
    if group.is_set() {
        let name = group.get("podGroupName");
        if name.text().is_empty() {
            let detail = "must specify one of: `podGroupName`";
            out.push(group.invalid(detail).shown_as("core/v1.PodSchedulingGroup"));
        } else {
            name.subdomain(out);
        }
    }
}

/// Longest name that a kernel takes for a host.
const MAX_HOSTNAME: usize = 64;

fn hostname_override(spec: &Node<'_>, out: &mut Findings) {
    let name = spec.get("hostnameOverride");
    if !name.is_set() {
        return;
    }
    if spec.get("setHostnameAsFQDN").is_true() {
        out.push(name.forbidden("may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.get("hostNetwork").is_true() {
        out.push(name.forbidden("may not be specified when hostNetwork is true"));
    }
    name.no_longer_than(MAX_HOSTNAME, out);
    name.subdomain(out);
}

/// On the host's network, ports of the container are ports of the host.
fn host_network_ports(spec: &Node<'_>, place: Place, out: &mut Findings) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for list in ["containers", "initContainers"] {
        for port in spec.get(list).items().flat_map(|container| container.get("ports").items()) {
            let (host, own) = (port.get("hostPort"), port.get("containerPort"));
            let unset = place == Place::Template && host.int() == 0;
            if !unset && host.int() != own.int() {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                out.push(FieldError::invalid(&host.path, host.int(), detail));
            }
        }
    }
}

fn dns_config(spec: &Node<'_>, out: &mut Findings) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            out.push(FieldError::required(&config.path, detail));
            return;
        }
        if servers.len() == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            out.push(FieldError::required(&servers.path, detail));
            return;
        }
    }
    if !config.is_set() {
        return;
    }
    if servers.len() > 3 {
        out.push(servers.invalid("must not have more than 3 nameservers"));
    }
    for server in servers.items() {
        address::ip(&server, out);
    }
    let searches = config.get("searches");
    if searches.len() > 32 {
        out.push(searches.invalid("must not have more than 32 search paths"));
    }
    let length = searches.items().map(|search| search.text().len() + 1).sum::<usize>();
    if length.saturating_sub(1) > MAX_SEARCHES_LENGTH {
        let detail = format!(
            "must not have more than {MAX_SEARCHES_LENGTH} characters (including spaces) in the \
             search list"
        );
        out.push(searches.invalid(detail));
    }
    for search in searches.items() {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        if search.text() != "." {
            let wrong = search_domain(name);
            out.extend(wrong.into_iter().map(|text| FieldError::invalid(&search.path, name, text)));
        }
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            out.push(FieldError::required(&option.path, "must not be empty"));
        }
    }
}

/// Longest list of search domains.
const MAX_SEARCHES_LENGTH: usize = 2048;

/// A subdomain whose labels may begin with and contain underscores.
fn search_domain(name: &str) -> Vec<String> {
    const LABEL: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let mut findings = Vec::new();
    if name.len() > names::DNS_SUBDOMAIN_MAX {
        findings.push(names::max_chars_error(names::DNS_SUBDOMAIN_MAX));
    }
    let is_label = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or(label);
        let edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let inner = |byte: &u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        let bytes = rest.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    if !name.split('.').all(is_label) {
        findings.push(names::regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '_', '-' or '.', and must start and end with an alphanumeric character",
            &format!(r"{LABEL}(\.{LABEL})*"),
            &["example.com"],
        ));
    }
    findings
}

fn scheduling_gates(gates: &Node<'_>, out: &mut Findings) {
    let mut seen = std::collections::BTreeSet::new();
    for gate in gates.items() {
        let name = gate.get("name");
        gate.get("name")
            .under(gate.path.clone())
            .invalid_each(names::qualified_name(name.text()), out);
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&gate.path, name.text()));
        }
    }
}
