//! Services, and addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::names;
use serde_json::json;

use crate::FieldError;
use crate::metadata::labels;
use crate::node::{Findings, Node};

pub(crate) fn validate(service: &Node<'_>, out: &mut Findings) {
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
        ip_address(&ip, out);
        if out.len() == before {
            endpoint_ip(&ip, out);
        }
    }
    spec.get("type")
        .require_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], out);
    node_ports(&spec, out);
    load_balancer(&spec, out);
    traffic(&spec, out);
}

pub(crate) fn validate_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let external = |spec: &Node<'_>| spec.get("type").text() == "ExternalName";
    if external(&spec) || external(&before) {
        return;
    }
    let first =
        |spec: &Node<'_>| spec.get("clusterIPs").items().next().map(|ip| ip.text().to_owned());
    match (first(&before), first(&spec)) {
        (Some(old), Some(new)) if !old.is_empty() && old != new => {
            let path = spec.path.child("clusterIPs").index(0);
            out.push(FieldError::invalid(
                &path,
                spec.get("clusterIPs").value.clone(),
                "may not change once set",
            ));
        }
        (Some(old), None) if !old.is_empty() => {
            let path = spec.path.child("clusterIPs").index(0);
            out.push(FieldError::invalid(
                &path,
                spec.get("clusterIPs").value.clone(),
                "primary clusterIP can not be unset",
            ));
        }
        _ => {}
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

/// Ports that are given twice; upstream prints its own struct.
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
        if !seen.insert((port.get("protocol").text(), port.get("port").int())) {
            let value = json!({
                "Name": "",
                "Protocol": port.get("protocol").text(),
                "AppProtocol": null,
                "Port": port.get("port").int(),
                "TargetPort": 0,
                "NodePort": 0,
            });
            out.push(FieldError::duplicate(&port.path, value));
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
            ip_address(&ip, out);
        }
    }
    if list.len() > 2 {
        out.push(list.invalid("may only hold up to 2 values"));
    }
}

fn load_balancer(spec: &Node<'_>, out: &mut Findings) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_balancer = spec.get("type").text() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.len() > 0 {
        let path = spec.path.child("LoadBalancerSourceRanges");
        if !is_balancer {
            out.push(FieldError::forbidden(&path, ONLY));
        }
        for (at, range) in ranges.items().enumerate() {
            if !is_cidr(range.text().trim()) {
                out.push(
                    range
                        .under(path.index(at))
                        .invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
                );
            }
        }
    }
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
    if kind.text() != "ExternalName" {
        inside.require_one_of(&["Cluster", "Local"], out);
    }
    let distribution = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    spec.get("trafficDistribution").one_of(&distribution, out);
}

/// An IPv4 or IPv6 address, without what confuses parsers.
pub(crate) fn ip_address(ip: &Node<'_>, out: &mut Findings) {
    let text = ip.text();
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            out.push(FieldError::invalid(
                &ip.path,
                text,
                "must not be an IPv4-mapped IPv6 address",
            ));
        }
        Ok(_) => {}
        Err(_) if has_leading_zeros(text) => {
            out.push(FieldError::invalid(&ip.path, text, "must not have leading 0s"));
        }
        Err(_) => {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            out.push(FieldError::invalid(&ip.path, text, detail));
        }
    }
}

/// Whether only zeros in front of numbers keep it from being an IPv4 address.
fn has_leading_zeros(text: &str) -> bool {
    let trimmed: Vec<&str> = text
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            rest => rest,
        })
        .collect();
    trimmed.join(".").parse::<std::net::Ipv4Addr>().is_ok()
}

/// Whether a text is a range of addresses.
pub(crate) fn is_cidr(text: &str) -> bool {
    let Some((ip, len)) = text.split_once('/') else { return false };
    let max = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    len.parse::<u8>().is_ok_and(|len| len <= max)
}

/// An address that endpoints may have.
pub(crate) fn endpoint_ip(ip: &Node<'_>, out: &mut Findings) {
    let Ok(address) = ip.text().parse::<IpAddr>() else { return };
    if address.is_unspecified() {
        out.push(ip.invalid(format!("may not be unspecified ({address})")));
    }
    if address.is_loopback() {
        out.push(ip.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if local {
        out.push(ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        out.push(ip.invalid(detail));
    }
}
