//! Endpoints, ingress, network policy and their like.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, int, joined, list, name, or_none, selector, text, text_or};

pub(super) fn row(resource: &str, o: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let age = || age(o, now);
    Some(match resource {
        "endpoints" => vec![name(o), json!(endpoints(o)), age()],
        "endpointslices" => {
            let kind = json!(text(o, "/addressType"));
            vec![name(o), kind, json!(slice_ports(o)), json!(slice_addresses(o)), age()]
        }
        "ingresses" => ingress(o, now),
        "ingressclasses" => {
            let parameters = match o.pointer("/spec/parameters") {
                None => "<none>".to_owned(),
                Some(p) => match text(p, "/apiGroup") {
                    "" => format!("{}/{}", text(p, "/kind"), text(p, "/name")),
                    group => format!("{}.{group}/{}", text(p, "/kind"), text(p, "/name")),
                },
            };
            vec![name(o), json!(text(o, "/spec/controller")), json!(parameters), age()]
        }
        "networkpolicies" => vec![name(o), json!(selector(o, "/spec/podSelector")), age()],
        "ipaddresses" => vec![name(o), json!(parent(o)), age()],
        "servicecidrs" => vec![name(o), json!(joined(o, "/spec/cidrs", ",")), age()],
        _ => return None,
    })
}

/// Upstream shows three and counts the rest.
fn some_and_more(mut items: Vec<String>, absent: &str) -> String {
    const SHOWN: usize = 3;
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    match (items.is_empty(), more) {
        (true, _) => absent.to_owned(),
        (_, 0) => items.join(","),
        (_, more) => format!("{} + {more} more...", items.join(",")),
    }
}

fn endpoints(endpoints: &Value) -> String {
    let mut found = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let addresses = || list(subset, "/addresses").iter().map(|a| text(a, "/ip").to_owned());
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            found.extend(addresses());
        }
        for port in ports {
            found.extend(addresses().map(|ip| join_host_port(&ip, int(port, "/port"))));
        }
    }
    some_and_more(found, "<none>")
}

fn join_host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn slice_ports(slice: &Value) -> String {
    let ports = list(slice, "/ports").iter();
    let ports = ports.map(|port| match int(port, "/port") {
        0 => "*".to_owned(),
        number => number.to_string(),
    });
    some_and_more(ports.collect(), "<unset>")
}

fn slice_addresses(slice: &Value) -> String {
    let addresses = list(slice, "/endpoints").iter().flat_map(|e| list(e, "/addresses"));
    let addresses = addresses.filter_map(|address| Some(address.as_str()?.to_owned()));
    some_and_more(addresses.collect(), "<unset>")
}

fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let rules = list(ingress, "/spec/rules");
    let hosts: Vec<String> = rules
        .iter()
        .map(|rule| text(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let points = list(ingress, "/status/loadBalancer/ingress").iter();
    let points: Vec<&str> = points.map(|p| text_or(p, "/ip", text(p, "/hostname"))).collect();
    let has_tls = !list(ingress, "/spec/tls").is_empty();
    vec![
        name(ingress),
        json!(text_or(ingress, "/spec/ingressClassName", "<none>")),
        json!(some_and_more(hosts, "*")),
        json!(points.join(",")),
        json!(if has_tls { "80, 443" } else { "80" }),
        age(ingress, now),
    ]
}

fn parent(address: &Value) -> String {
    let Some(parent) = address.pointer("/spec/parentRef") else { return "<none>".to_owned() };
    let mut parts = vec![match text(parent, "/group") {
        "" => text(parent, "/resource").to_owned(),
        group => format!("{}.{group}", text(parent, "/resource")),
    }];
    parts.push(text(parent, "/namespace").to_owned());
    parts.push(text(parent, "/name").to_owned());
    parts.retain(|part| !part.is_empty());
    or_none(parts.join("/"))
}
