//! Plans of services, as text.

use super::*;

fn context() -> Context {
    let cluster_cidr = "10.42.0.0/16".parse().unwrap();
    Context { node: "n1".into(), zone: "a".into(), cluster_cidr }
}

fn service() -> Service {
    Service {
        cluster_ips: vec![Ipv4Addr::new(10, 43, 0, 9)],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Layer4::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    }
}

fn endpoint(last: u8, node: &str) -> Endpoint {
    Endpoint {
        address: Ipv4Addr::new(10, 42, 0, last),
        ready: true,
        serving: true,
        terminating: false,
        node: node.into(),
        for_nodes: Vec::new(),
        for_zones: Vec::new(),
    }
}

/// One with hints, of names with spaces between.
fn hinted(last: u8, for_nodes: &str, for_zones: &str) -> Endpoint {
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let (for_nodes, for_zones) = (names(for_nodes), names(for_zones));
    Endpoint { for_nodes, for_zones, ..endpoint(last, "n2") }
}

/// The endpoints that a service of these leads to, by the ends of their addresses.
fn led_to(service: &Service, endpoints: Vec<Endpoint>) -> Vec<u8> {
    let plan = make(service, endpoints);
    let last = |chain: &String| {
        let address = chain.split_once("__")?.1.split_once('/')?.0;
        address.rsplit_once('.')?.1.parse().ok()
    };
    let mut ends: Vec<u8> = plan.chains.keys().filter_map(last).collect();
    ends.sort_unstable();
    ends
}

#[test]
fn traffic_stays_where_hints_say() {
    let to = |endpoints| led_to(&service(), endpoints);
    // The zone of this node, or another one of two.
    assert_eq!(to(vec![hinted(2, "", "a"), hinted(3, "", "b"), hinted(4, "", "b a")]), [2, 4]);
    // This node comes before its zone.
    assert_eq!(to(vec![hinted(2, "n1", "b"), hinted(3, "n2", "a")]), [2]);
    assert_eq!(to(vec![hinted(2, "n3", "b"), hinted(3, "n2", "a")]), [3]);
    // Nothing is for this zone; one says nothing; and what is not ready does not count.
    assert_eq!(to(vec![hinted(2, "", "b"), hinted(3, "", "c")]), [2, 3]);
    assert_eq!(to(vec![hinted(2, "", "a"), hinted(3, "", "")]), [2, 3]);
    let ending = Endpoint { ready: false, terminating: true, ..hinted(4, "", "") };
    assert_eq!(to(vec![hinted(2, "", "a"), hinted(3, "", "b"), ending.clone()]), [2]);
    assert_eq!(to(vec![ending]), [4]);
}

#[test]
fn hints_do_not_hold_traffic_that_has_to_stay_on_the_node() {
    let service = Service { internal_local: true, ..service() };
    let local = Endpoint { node: "n1".into(), ..hinted(2, "", "b") };
    let plan = make(&service, vec![local, hinted(3, "", "a")]);
    let chain = plan.chains.iter().find(|(name, _)| name.starts_with("service-")).unwrap();
    let [.., RulePlan::AnyOf(targets)] = chain.1.as_slice() else { panic!("{chain:?}") };
    assert!(targets.len() == 1 && targets[0].contains("10.42.0.2"), "{targets:?}");
}

fn slice(endpoints: Vec<Endpoint>) -> Slice {
    Slice { service: "web".into(), ports: vec![("http".into(), Layer4::Tcp, 8080)], endpoints }
}

fn make(service: &Service, endpoints: Vec<Endpoint>) -> Plan {
    plan(&context(), &ObjectKey::new("ns", "web"), service, &[&slice(endpoints)])
}

/// Chain names without their hashes, which keep the sorted order readable.
fn chains(plan: &Plan) -> Vec<String> {
    let short = |name: &String| {
        let (kind, rest) = name.split_once('-').unwrap();
        format!("{kind} {}", rest.split_once('-').unwrap().1)
    };
    let mut names: Vec<String> = plan.chains.keys().map(short).collect();
    names.sort();
    names
}

fn maps(plan: &Plan) -> Vec<&'static str> {
    plan.elements.iter().map(|(map, _)| *map).collect()
}

#[test]
fn a_cluster_ip_leads_to_its_endpoints() {
    let plan = make(&service(), vec![endpoint(2, "n1"), endpoint(3, "n2")]);
    assert_eq!(
        chains(&plan),
        [
            "endpoint ns/web/tcp/http__10.42.0.2/8080",
            "endpoint ns/web/tcp/http__10.42.0.3/8080",
            "service ns/web/tcp/http",
        ]
    );
    assert_eq!(maps(&plan), [CLUSTER_IPS, SERVICE_IPS]);
    assert_eq!(plan.local_ready, 1);
}

#[test]
fn without_endpoints_connections_are_rejected() {
    let plan = make(&service(), vec![]);
    assert!(plan.chains.is_empty());
    assert_eq!(maps(&plan), [CLUSTER_IPS, NO_ENDPOINT_IPS]);
    let node_port = ServicePort { node_port: Some(30080), ..service().ports.remove(0) };
    let plan = make(&Service { ports: vec![node_port], ..service() }, vec![]);
    assert_eq!(maps(&plan), [CLUSTER_IPS, NO_ENDPOINT_NODE_PORTS, NO_ENDPOINT_IPS]);
}

#[test]
fn terminating_endpoints_serve_only_when_there_are_no_others() {
    let ending = Endpoint { ready: false, terminating: true, ..endpoint(4, "n1") };
    let plan = make(&service(), vec![endpoint(2, "n1"), ending.clone()]);
    assert_eq!(chains(&plan).len(), 2);
    let plan = make(&service(), vec![ending]);
    assert_eq!(chains(&plan)[0], "endpoint ns/web/tcp/http__10.42.0.4/8080");
}

#[test]
fn an_internally_local_service_drops_what_only_others_serve() {
    let service = Service { internal_local: true, ..service() };
    let plan = make(&service, vec![endpoint(3, "n2")]);
    let dropped = ElementData::Verdict(Verdict::Drop);
    let element = Element::service(Ipv4Addr::new(10, 43, 0, 9), Layer4::Tcp, 80, dropped);
    assert!(plan.elements.contains(&(NO_ENDPOINT_IPS, element)));
}

#[test]
fn a_load_balancer_has_an_external_chain_and_its_firewall() {
    let balanced = Service {
        load_balancer_ips: vec![Ipv4Addr::new(192, 0, 2, 1)],
        source_ranges: vec!["198.51.100.0/24".parse().unwrap()],
        ..service()
    };
    let plan = make(&balanced, vec![endpoint(2, "n1")]);
    assert!(chains(&plan).contains(&"external ns/web/tcp/http".to_owned()));
    assert!(chains(&plan).contains(&"firewall ns/web/tcp/http".to_owned()));
}

#[test]
fn affinity_makes_a_set_for_every_endpoint() {
    let sticky = Service { affinity_secs: Some(10), ..service() };
    let plan = make(&sticky, vec![endpoint(2, "n1"), endpoint(3, "n1")]);
    assert_eq!(plan.sets.len(), 2);
    assert!(plan.sets.values().all(|set| set.timeout_ms == Some(10_000)));
}

#[test]
fn equal_input_makes_equal_plans_whatever_the_order() {
    let forward = make(&service(), vec![endpoint(2, "n1"), endpoint(3, "n2")]);
    let backward = make(&service(), vec![endpoint(3, "n2"), endpoint(2, "n1")]);
    assert_eq!(forward, backward);
}
