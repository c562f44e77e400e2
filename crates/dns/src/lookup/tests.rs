//! Questions and answers, as the specification has them.

use std::sync::Arc;

use meta::ObjectKey;

use super::*;
use crate::zone::{Endpoint, Port, Slice};

fn port() -> Port {
    Port { name: "http".into(), protocol: "tcp".into(), number: 80 }
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.set_namespace("ns", true);
    let cluster =
        Service::Cluster { addresses: vec!["10.43.0.9".parse().unwrap()], ports: vec![port()] };
    zone.set_service(&ObjectKey::new("ns", "web"), Some(cluster));
    zone.set_service(&ObjectKey::new("ns", "db"), Some(Service::Headless));
    zone.set_service(&ObjectKey::new("ns", "empty"), Some(Service::Headless));
    zone.set_service(&ObjectKey::new("ns", "out"), Some(Service::External("Example.COM.".into())));
    let endpoint = |label: &str, address: &str| Endpoint {
        label: label.into(),
        address: address.parse().unwrap(),
    };
    let slice = Slice {
        service: "db".into(),
        ports: vec![port()],
        endpoints: vec![endpoint("db-0", "10.42.0.7"), endpoint("10-42-0-8", "10.42.0.8")],
    };
    zone.set_slice(&ObjectKey::new("ns", "db-x"), None, Some(&Arc::new(slice)));
    zone
}

fn check(name: &str, kind: Kind, expected: &str) {
    let answer = match lookup(&zone(), "cluster.local", name, kind) {
        Answer::Found(values) => print(&values),
        Answer::FoundWith(values, extra) => format!("{} +{}", print(&values), extra.len()),
        other => format!("{other:?}"),
    };
    assert_eq!(answer, expected, "{name} {kind:?}");
}

fn print(values: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Address(address) => address.to_string(),
        Value::Cname(name) | Value::Ptr(name) => name.clone(),
        Value::Srv(port, name) => format!("{port}:{name}"),
        Value::Txt(text) => text.clone(),
    };
    values.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn services_have_the_names_of_the_specification() {
    check("web.ns.svc.cluster.local", Kind::A, "10.43.0.9");
    check("web.ns.svc.cluster.local", Kind::Aaaa, "NoData");
    check("web.ns.svc.cluster.local", Kind::Other, "NoData");
    check("_http._tcp.web.ns.svc.cluster.local", Kind::Srv, "80:web.ns.svc.cluster.local +1");
    check("_http._udp.web.ns.svc.cluster.local", Kind::Srv, "NoName");
    check("absent.ns.svc.cluster.local", Kind::A, "NoName");
    check("a.web.ns.svc.cluster.local", Kind::A, "NoName");
}

#[test]
fn headless_services_lead_to_their_endpoints() {
    check("db.ns.svc.cluster.local", Kind::A, "10.42.0.8 10.42.0.7");
    check("db-0.db.ns.svc.cluster.local", Kind::A, "10.42.0.7");
    check("10-42-0-8.db.ns.svc.cluster.local", Kind::A, "10.42.0.8");
    check("db-9.db.ns.svc.cluster.local", Kind::A, "NoName");
    check("empty.ns.svc.cluster.local", Kind::A, "NoName");
    check(
        "_http._tcp.db.ns.svc.cluster.local",
        Kind::Srv,
        "80:10-42-0-8.db.ns.svc.cluster.local 80:db-0.db.ns.svc.cluster.local +2",
    );
}

#[test]
fn external_names_are_aliases() {
    check("out.ns.svc.cluster.local", Kind::Cname, "example.com");
    check("out.ns.svc.cluster.local", Kind::A, "Alias(\"example.com\")");
}

#[test]
fn addresses_have_names_too() {
    check("9.0.43.10.in-addr.arpa", Kind::Ptr, "web.ns.svc.cluster.local");
    check("7.0.42.10.in-addr.arpa", Kind::Ptr, "db-0.db.ns.svc.cluster.local");
    check("1.0.0.127.in-addr.arpa", Kind::Ptr, "NotOurs");
    check("x.0.0.127.in-addr.arpa", Kind::Ptr, "NotOurs");
}

#[test]
fn pods_and_the_domain_itself() {
    check("10-42-0-7.ns.pod.cluster.local", Kind::A, "10.42.0.7");
    check("nonsense.ns.pod.cluster.local", Kind::A, "NoName");
    check("10-42-0-7.other.pod.cluster.local", Kind::A, "NoName");
    check("dns-version.cluster.local", Kind::Txt, "1.1.0");
    check("cluster.local", Kind::A, "NoData");
    check("ns.svc.cluster.local", Kind::A, "NoData");
    check("other.svc.cluster.local", Kind::A, "NoName");
    check("mycluster.local", Kind::A, "NotOurs");
    check("example.com", Kind::A, "NotOurs");
}

#[test]
fn what_is_removed_has_no_name() {
    let mut zone = zone();
    let key = ObjectKey::new("ns", "web");
    zone.set_service(&key, None);
    assert_eq!(lookup(&zone, "cluster.local", "web.ns.svc.cluster.local", Kind::A), Answer::NoName);
    assert_eq!(
        lookup(&zone, "cluster.local", "9.0.43.10.in-addr.arpa", Kind::Ptr),
        Answer::NotOurs
    );
}
