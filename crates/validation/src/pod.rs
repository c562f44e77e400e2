//! Pods and pod templates.

use meta::names;
use serde_json::Value;

use crate::FieldError;
use crate::container::{self, Surroundings, id, profile};
use crate::metadata::labels;
use crate::node::{Findings, Node};
use crate::{resources, scheduling, service, volume};

/// Whether a spec stands in a pod or in a template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Template,
}

pub(crate) fn create(pod: &Node<'_>, out: &mut Findings) {
    let key = "controller.kubernetes.io/pod-deletion-cost";
    let annotations = pod.get("metadata").get("annotations");
    if let Some(cost) = annotations.value.get(key).and_then(Value::as_str)
        && cost.parse::<i32>().is_err()
    {
        let path = crate::metadata::annotation_path(key);
        out.push(FieldError::invalid(&path, cost, "must be a 32bit integer"));
    }
    let pod_spec = pod.get("spec");
    spec(&pod_spec, Place::Pod, out);
    if !pod_spec.get("nodeName").text().is_empty() && pod_spec.get("schedulingGates").len() > 0 {
        let detail = "cannot be set until all schedulingGates have been cleared";
        out.push(pod_spec.get("nodeName").forbidden(detail));
    }
    if pod_spec.get("ephemeralContainers").len() > 0 {
        out.push(pod_spec.get("ephemeralContainers").forbidden("cannot be set on create"));
    }
}

/// The spec of a pod.
pub(crate) fn spec(spec: &Node<'_>, place: Place, out: &mut Findings) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        out.push(FieldError::required(&grace.path, ""));
    }
    let volumes = volume::volumes(&spec.get("volumes"), out);
    resource_claims(&spec.get("resourceClaims"), out);
    let around = Surroundings { volumes, grace_secs: grace.int(), is_pod: place == Place::Pod };
    let containers = spec.get("containers");
    container::main(&containers, &around, out);
    container::init(&spec.get("initContainers"), &containers, &around, out);
    host_network_ports(spec, place, out);
    spec.get("restartPolicy").require_one_of(&["Always", "OnFailure", "Never"], out);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    spec.get("dnsPolicy").require_one_of(&policies, out);
    labels(&spec.get("nodeSelector"), out);
    security_context(&spec.get("securityContext"), spec, out);
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
        service::ip_address(&alias.get("ip"), out);
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
    let overhead = spec.get("overhead");
    for (name, quantity) in overhead.entries() {
        resources::resource_quantity(name, &quantity, out);
    }
    let os = spec.get("os");
    if os.is_set() && os.get("name").require(out) {
        os.get("name").under(os.path.clone()).one_of(&["linux", "windows"], out);
    }
}

fn resource_claims(claims: &Node<'_>, out: &mut Findings) {
    let mut seen = std::collections::BTreeSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.require(out) {
            if seen.insert(name.text()) {
                name.invalid_each(names::dns1123_label(name.text()), out);
            } else {
                out.push(FieldError::duplicate(&name.path, name.text()));
            }
        }
    }
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

fn security_context(context: &Node<'_>, spec: &Node<'_>, out: &mut Findings) {
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.get(field), out);
    }
    for group in context.get("supplementalGroups").items() {
        id(&group, out);
    }
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        let path = context.path.child("shareProcessNamespace");
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(FieldError::invalid(&path, true, detail));
    }
    sysctls(&context.get("sysctls"), out);
    context.get("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"], out);
    profile(&context.get("seccompProfile"), "seccomp", "seccompProfile", out);
    context.get("supplementalGroupsPolicy").one_of(&["Merge", "Strict"], out);
}

/// Kernel parameters: unique, and names separated by dots or slashes.
fn sysctls(sysctls: &Node<'_>, out: &mut Findings) {
    const REGEX: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = std::collections::BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let text = name.text();
        if !name.require(out) {
            continue;
        }
        let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let part = |part: &str| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(edge)
                && bytes.last().is_some_and(edge)
                && bytes.iter().all(|byte| edge(byte) || matches!(byte, b'-' | b'_'))
        };
        if text.len() > 253 || !text.split(['.', '/']).all(part) {
            let detail = format!("must have at most 253 characters and match regex {REGEX}");
            out.push(name.invalid(detail));
        } else if !seen.insert(text) {
            out.push(FieldError::duplicate(&name.path, text));
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
        service::ip_address(&server, out);
    }
    let searches = config.get("searches");
    if searches.len() > 32 {
        out.push(searches.invalid("must not have more than 32 search paths"));
    }
    for search in searches.items() {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        if search.text() != "." && !name.replace('_', "a").split('.').all(names::is_dns1123_label) {
            search.invalid_each(names::dns1123_subdomain(name), out);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            out.push(FieldError::required(&option.path, "must not be empty"));
        }
    }
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
