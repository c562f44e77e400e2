//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::names;
use serde_json::json;

use crate::metadata::labels;
use crate::node::{Findings, Node};
use crate::{FieldError, address};

pub(crate) fn validate(service: &Node<'_>, out: &mut Findings) {
    topology_mode(&service.get("metadata").get("annotations"), out);
    let spec = service.get("spec");
    let kind = spec.get("type").text().to_owned();
    let headless = spec.get("clusterIP").text() == "None"
        || spec.get("clusterIPs").items().next().is_some_and(|ip| ip.text() == "None");
    if spec.get("ports").len() == 0 && !headless && kind != "ExternalName" {
        out.push(FieldError::required(&spec.get("ports").path, ""));
    }
    let first = spec.path.child("clusterIPs").index(0);
    match kind.as_str() {
        "LoadBalancer" if headless => {
            let detail = "may not be set to 'None' for LoadBalancer services";
            out.push(FieldError::invalid(&first, "None", detail));
        }
        "NodePort" if headless => {
            let detail = "may not be set to 'None' for NodePort services";
            out.push(FieldError::invalid(&first, "None", detail));
        }
        "ExternalName" => external_name(&spec, out),
        _ => {}
    }
    ports(&spec, out);
    labels(&spec.get("selector"), out);
    session_affinity(&spec, out);
    if kind != "ExternalName" {
        cluster_ips(&spec, out);
    }
    for ip in spec.get("externalIPs").items() {
        let before = out.len();
        address::ip(&ip, out);
        if out.len() == before {
            address::endpoint_ip(&ip, out);
        }
    }
    spec.get("type")
        .require_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], out);
    node_ports(&spec, out);
    load_balancer(&spec, &service.get("metadata").get("annotations"), out);
    traffic(&spec, out);
}

/// The old name of the topology mode may not say another one.
fn topology_mode(annotations: &Node<'_>, out: &mut Findings) {
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const OLD: &str = "service.kubernetes.io/topology-aware-hints";
    let of = |key: &str| annotations.value.get(key).and_then(|value| value.as_str());
    let (Some(mode), Some(old)) = (of(MODE), of(OLD)) else { return };
    if mode != old {
        let detail = format!("must match annotations[{OLD}] when both are specified");
        out.push(FieldError::invalid(&crate::metadata::annotation_path(MODE), mode, detail));
    }
}

/// What of a service may not change.
pub(crate) fn validate_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let external = |spec: &Node<'_>| spec.get("type").text() == "ExternalName";
    if !external(&spec) && !external(&before) {
        addresses_are_kept(&spec, &before, out);
        families_are_kept(&spec, &before, out);
    }
    let balancer = |spec: &Node<'_>| spec.get("type").text() == "LoadBalancer";
    let (class, had) = (spec.get("loadBalancerClass"), before.get("loadBalancerClass"));
    if balancer(&spec) && balancer(&before) && class.value != had.value {
        out.push(class.invalid("may not change once set"));
    }
    let (port, had) = (spec.get("healthCheckNodePort"), before.get("healthCheckNodePort"));
    if needs_health_check(&spec) && needs_health_check(&before) && port.value != had.value {
        out.push(port.forbidden("field is immutable"));
    }
}

fn needs_health_check(spec: &Node<'_>) -> bool {
    spec.get("type").text() == "LoadBalancer" && spec.get("externalTrafficPolicy").text() == "Local"
}

/// The first address stays; the second one goes only with the policy.
fn addresses_are_kept(spec: &Node<'_>, before: &Node<'_>, out: &mut Findings) {
    let (list, had) = (spec.get("clusterIPs"), before.get("clusterIPs"));
    let texts = |list: &Node<'_>| -> Vec<String> {
        list.items().map(|item| item.text().to_owned()).collect()
    };
    let (now, old) = (texts(&list), texts(&had));
    let quoted = |at: usize, detail: &str| {
        FieldError::invalid(&list.path.index(at), list.value.clone(), detail)
    };
    match (old.first().filter(|first| !first.is_empty()), now.first()) {
        (Some(old), Some(new)) if old != new => out.push(quoted(0, "may not change once set")),
        (Some(_), None) => out.push(quoted(0, "primary clusterIP can not be unset")),
        _ => {}
    }
    if let Some(old) = old.get(1) {
        match now.get(1) {
            Some(new) if new != old => out.push(quoted(1, "may not change once set")),
            None => released(spec, "clusterIP", out),
            Some(_) => {}
        }
    }
}

fn released(spec: &Node<'_>, what: &str, out: &mut Findings) {
    let policy = spec.get("ipFamilyPolicy");
    if policy.text() != "SingleStack" {
        out.push(
            policy.invalid(format!(
                "must be set to 'SingleStack' when releasing the secondary {what}"
            )),
        );
    }
}

fn families_are_kept(spec: &Node<'_>, before: &Node<'_>, out: &mut Findings) {
    let (list, had) = (spec.get("ipFamilies"), before.get("ipFamilies"));
    let texts = |list: &Node<'_>| -> Vec<String> {
        list.items().map(|item| item.text().to_owned()).collect()
    };
    let (now, old) = (texts(&list), texts(&had));
    let quoted = |at: usize, detail: &str| {
        FieldError::invalid(&list.path.index(at), list.value.clone(), detail)
    };
    match (old.first(), now.first()) {
        (Some(old), Some(new)) if old != new => out.push(quoted(0, "may not change once set")),
        (Some(_), None) => out.push(quoted(0, "primary ipFamily can not be unset")),
        _ => {}
    }
    if let Some(old) = old.get(1) {
        match now.get(1) {
            Some(new) if new != old => out.push(quoted(1, "may not change once set")),
            None => released(spec, "ipFamily", out),
            Some(_) => {}
        }
    }
}

/// Where a load balancer listens.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    let ingress = object.get("status").get("loadBalancer").get("ingress");
    let kind = object.get("spec").get("type");
    if kind.text() != "LoadBalancer" && ingress.len() > 0 {
        out.push(ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for entry in ingress.items() {
        let (ip, mode, host) = (entry.get("ip"), entry.get("ipMode"), entry.get("hostname"));
        if ip.text().is_empty() {
            if mode.is_set() {
                out.push(mode.forbidden("may not be specified when `ip` is not set"));
            }
        } else {
            address::ip(&ip, out);
            if mode.is_set() {
                mode.one_of(&["Proxy", "VIP"], out);
            } else {
                let detail = "must be specified when `ip` is set";
                out.push(FieldError::required(&mode.path, detail));
            }
        }
        if !host.text().is_empty() {
            host.subdomain(out);
            if host.text().parse::<IpAddr>().is_ok() {
                out.push(host.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
}

fn external_name(spec: &Node<'_>, out: &mut Findings) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let set = spec.get(field);
        if set.is_set() && (set.len() > 0 || field == "ipFamilyPolicy") {
            out.push(set.forbidden("may not be set for ExternalName services"));
        }
    }
    let name = spec.get("externalName");
    let text = name.text().strip_suffix('.').unwrap_or(name.text());
    if text.is_empty() {
        out.push(FieldError::required(&name.path, ""));
    } else {
        let wrong = names::dns1123_subdomain(text);
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&name.path, text, t)));
    }
}

fn ports(spec: &Node<'_>, out: &mut Findings) {
    let list = spec.get("ports");
    let mut seen_names = BTreeSet::new();
    for port in list.items() {
        let name = port.get("name");
        if name.text().is_empty() {
            if list.len() > 1 {
                out.push(FieldError::required(&name.path, ""));
            }
        } else {
            name.invalid_each(names::dns1123_label(name.text()), out);
            if !seen_names.insert(name.text()) {
                out.push(FieldError::duplicate(&name.path, name.text()));
            }
        }
        port.get("port").port_number(out);
        port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"], out);
        port.get("targetPort").port_or_name(out);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.invalid_each(names::qualified_name(application.text()), out);
        }
    }
}

/// Ports that are given twice.
fn node_ports(spec: &Node<'_>, out: &mut Findings) {
    let list = spec.get("ports");
    if spec.get("type").text() == "ClusterIP" {
        for port in list.items().map(|port| port.get("nodePort")) {
            if port.int() != 0 {
                out.push(port.forbidden("may not be used when `type` is 'ClusterIP'"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let node = port.get("nodePort");
        if node.int() != 0 && !seen.insert((port.get("protocol").text(), node.int())) {
            out.push(FieldError::duplicate(&node.path, node.int()));
        }
    }
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let (protocol, number) = (port.get("protocol").text(), port.get("port").int());
        if !seen.insert((protocol, number)) {
            let value = json!({"protocol": protocol, "port": number});
            let finding = FieldError::duplicate(&port.path, value);
            out.push(finding.shown_as("core/v1.ServicePort"));
        }
    }
}

fn session_affinity(spec: &Node<'_>, out: &mut Findings) {
    let affinity = spec.get("sessionAffinity");
    affinity.require_one_of(&["ClientIP", "None"], out);
    let config = spec.get("sessionAffinityConfig");
    match affinity.text() {
        "ClientIP" => {
            let timeout = config.get("clientIP").get("timeoutSeconds");
            let detail = "when session affinity type is ClientIP";
            if !config.is_set() {
                out.push(FieldError::required(&config.path, detail));
            } else if !config.get("clientIP").is_set() {
                out.push(FieldError::required(&config.get("clientIP").path, detail));
            } else if !timeout.is_set() {
                out.push(FieldError::required(&timeout.path, detail));
            } else if timeout.int() <= 0 || timeout.int() > 86_400 {
                out.push(timeout.invalid("must be greater than 0 and less than 86400"));
            }
        }
        "None" if config.is_set() => {
            out.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn cluster_ips(spec: &Node<'_>, out: &mut Findings) {
    let (single, list) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let first = list.items().next().map_or("", |ip| ip.text());
    if list.len() > 0 && single.text() != first {
        if single.text().is_empty() {
            out.push(list.invalid("must be empty when `clusterIP` is not specified"));
        } else {
            out.push(list.invalid("first value must match `clusterIP`"));
        }
    }
    let mut families = BTreeSet::new();
    for family in spec.get("ipFamilies").items() {
        family.one_of(&["IPv4", "IPv6"], out);
        if !families.insert(family.text()) {
            out.push(FieldError::duplicate(&family.path, family.text()));
        }
    }
    spec.get("ipFamilyPolicy").one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"], out);
    for (at, ip) in list.items().enumerate() {
        if ip.text() == "None" {
            if at == 0 && list.len() > 1 {
                out.push(list.invalid("'None' must be the first and only value"));
            }
        } else {
            address::ip(&ip, out);
        }
    }
    if list.len() > 2 {
        out.push(list.invalid("may only hold up to 2 values"));
    }
    let families = list.items().map(|ip| Some(ip.text().parse::<IpAddr>().ok()?.is_ipv4()));
    if list.len() == 2 && !address::one_of_each_family(families) {
        out.push(list.invalid("may specify no more than one IP for each IP family"));
    }
    for ((at, ip), family) in list.items().enumerate().zip(spec.get("ipFamilies").items()) {
        let Ok(address) = ip.text().parse::<IpAddr>() else { continue };
        let wanted = if family.text() == "IPv4" { "IPv4" } else { "IPv6" };
        if address.is_ipv4() != (wanted == "IPv4") && matches!(family.text(), "IPv4" | "IPv6") {
            out.push(
                ip.invalid(format!(
                    "expected an {wanted} value as indicated by `ipFamilies[{at}]`"
                )),
            );
        }
    }
}

fn load_balancer(spec: &Node<'_>, annotations: &Node<'_>, out: &mut Findings) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_balancer = spec.get("type").text() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.len() > 0 {
        let path = spec.path.child("LoadBalancerSourceRanges");
        if !is_balancer {
            out.push(FieldError::forbidden(&path, ONLY));
        }
        for (at, range) in ranges.items().enumerate() {
            let text = serde_json::Value::from(range.text().trim());
            address::cidr(&Node { value: &text, path: path.index(at) }, out);
        }
    }
    annotated_ranges(annotations, is_balancer, out);
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if !is_balancer && allocate.is_set() {
        out.push(allocate.forbidden(ONLY));
    }
    let class = spec.get("loadBalancerClass");
    if class.is_set() {
        class.invalid_each(names::qualified_name(class.text()), out);
        if !is_balancer {
            out.push(class.forbidden(ONLY));
        }
    }
}

/// The same in an annotation, separated by commas; the field outranks it.
fn annotated_ranges(annotations: &Node<'_>, is_balancer: bool, out: &mut Findings) {
    const KEY: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let Some(ranges) = annotations.value.get(KEY).and_then(|value| value.as_str()) else {
        return;
    };
    let path = crate::metadata::annotation_path(KEY);
    if !is_balancer {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        out.push(FieldError::forbidden(&path, detail));
    }
    for range in ranges.trim().split(',').filter(|_| !ranges.trim().is_empty()) {
        let text = serde_json::Value::from(range.trim());
        address::cidr(&Node { value: &text, path: path.clone() }, out);
    }
}

fn traffic(spec: &Node<'_>, out: &mut Findings) {
    let kind = spec.get("type");
    let external = matches!(kind.text(), "LoadBalancer" | "NodePort")
        || (kind.text() == "ClusterIP" && spec.get("externalIPs").len() > 0);
    let policy = spec.get("externalTrafficPolicy");
    if !external {
        if policy.is_set() {
            let detail = "may only be set for externally-accessible services";
            out.push(policy.invalid(detail));
        }
    } else {
        policy.require_one_of(&["Cluster", "Local"], out);
    }
    let needs_check = kind.text() == "LoadBalancer" && policy.text() == "Local";
    let check = spec.get("healthCheckNodePort");
    if !needs_check && check.int() != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is \
                      'Local'";
        out.push(check.invalid(detail));
    }
    let inside = spec.get("internalTrafficPolicy");
    if matches!(kind.text(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        inside.require_one_of(&["Cluster", "Local"], out);
    }
    let distribution = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    spec.get("trafficDistribution").one_of(&distribution, out);
}
