//! Real connections through planned services.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use meta::ObjectKey;
use netlink::nft::Layer4;
use netlink::{Connection, netns};
use proxy::dataplane::{Dataplane, reset};
use proxy::plan::{Context, plan};
use proxy::service::{Endpoint, Service, ServicePort, Slice};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 9);
const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);

/// Runs in a namespace whose loopback device has a few addresses that stand for pods.
fn on_a_node(work: impl FnOnce() + Send) {
    let netns = netns::create().unwrap();
    netns::inside(&netns, || {
        let mut connection = Connection::open().unwrap();
        let lo = connection.link("lo").unwrap().unwrap().index;
        connection.set_up(lo).unwrap();
        for last in 1..8 {
            connection.add_address(lo, Ipv4Addr::new(10, 42, 0, last).into(), 32).unwrap();
        }
        // Cluster addresses need a route, as on a node with a default route. Not through the
        // loopback device: the kernel answers no rejected packet there.
        connection.add_bridge("uplink", 1500).unwrap();
        let uplink = connection.link("uplink").unwrap().unwrap().index;
        connection.add_address(uplink, Ipv4Addr::new(192, 0, 2, 1).into(), 24).unwrap();
        connection.set_up(uplink).unwrap();
        let everything = (Ipv4Addr::UNSPECIFIED.into(), 0);
        let route = netlink::Route { destination: everything, gateway: None, index: uplink };
        connection.set_route(&route).unwrap();
        work();
    })
    .unwrap();
}

/// A pod that answers with its address on port 8080.
fn pod(last: u8) -> Endpoint {
    let address = Ipv4Addr::new(10, 42, 0, last);
    let listener = TcpListener::bind((address, 8080)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(address.to_string().as_bytes()).unwrap();
        }
    });
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        node: "n1".into(),
        for_nodes: Vec::new(),
        for_zones: Vec::new(),
    }
}

fn service(node_port: Option<u16>) -> Service {
    let (name, protocol, port) = (String::new(), Layer4::Tcp, 80);
    Service {
        cluster_ips: vec![CLUSTER_IP],
        ports: vec![ServicePort { name, protocol, port, node_port }],
        ..Service::default()
    }
}

fn apply(dataplane: &mut Dataplane, service: Option<&Service>, endpoints: &[Endpoint]) {
    let context = Context {
        node: "n1".into(),
        zone: String::new(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
    };
    let key = ObjectKey::new("ns", "web");
    let slice = Slice {
        service: "web".into(),
        ports: vec![(String::new(), Layer4::Tcp, 8080)],
        endpoints: endpoints.to_vec(),
    };
    let plan = service.map(|service| plan(&context, &key, service, &[&slice]));
    dataplane.apply([(key, plan)]).unwrap();
}

fn ask(to: (Ipv4Addr, u16)) -> std::io::Result<String> {
    let mut answer = String::new();
    let timeout = std::time::Duration::from_secs(5);
    TcpStream::connect_timeout(&to.into(), timeout)?.read_to_string(&mut answer)?;
    Ok(answer)
}

fn answers(to: (Ipv4Addr, u16)) -> Vec<String> {
    let all: std::collections::BTreeSet<_> = (0..64).map(|_| ask(to).unwrap()).collect();
    all.into_iter().collect()
}

#[test]
fn endpoints_come_and_go() {
    on_a_node(|| {
        let mut dataplane = Dataplane::new();
        let (a, b) = (pod(2), pod(3));
        apply(&mut dataplane, Some(&service(None)), std::slice::from_ref(&a));
        assert_eq!(answers((CLUSTER_IP, 80)), ["10.42.0.2"]);
        apply(&mut dataplane, Some(&service(None)), &[a, b.clone()]);
        assert_eq!(answers((CLUSTER_IP, 80)), ["10.42.0.2", "10.42.0.3"]);
        apply(&mut dataplane, Some(&service(None)), &[b]);
        assert_eq!(answers((CLUSTER_IP, 80)), ["10.42.0.3"]);
        apply(&mut dataplane, Some(&service(None)), &[]);
        let refused = ask((CLUSTER_IP, 80)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        apply(&mut dataplane, None, &[]);
        reset().unwrap();
        reset().unwrap();
    });
}

#[test]
fn node_ports_and_load_balancers_lead_to_the_service() {
    on_a_node(|| {
        let mut dataplane = Dataplane::new();
        let balanced = Service { load_balancer_ips: vec![NODE_IP], ..service(Some(30080)) };
        apply(&mut dataplane, Some(&balanced), &[pod(2)]);
        assert_eq!(answers((NODE_IP, 30080)), ["10.42.0.2"]);
        assert_eq!(answers((NODE_IP, 80)), ["10.42.0.2"]);
        // The node port is a port of the node's addresses, not of the service's.
        assert!(ask((CLUSTER_IP, 30080)).is_err());
        let local = Service { external_local: true, affinity_secs: Some(60), ..balanced };
        apply(&mut dataplane, Some(&local), &[pod(3), pod(4)]);
        assert_eq!(answers((NODE_IP, 30080)).len(), 1, "the client stays with its endpoint");
    });
}

#[test]
fn a_dataplane_that_was_lost_is_built_anew() {
    on_a_node(|| {
        let mut dataplane = Dataplane::new();
        let a = pod(2);
        apply(&mut dataplane, Some(&service(None)), std::slice::from_ref(&a));
        reset().unwrap();
        let context = Context {
            node: "n1".into(),
            zone: String::new(),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        };
        let other = ObjectKey::new("ns", "other");
        let elsewhere =
            Service { cluster_ips: vec![Ipv4Addr::new(10, 43, 0, 10)], ..service(None) };
        let other_plan = plan(&context, &other, &elsewhere, &[]);
        assert!(dataplane.apply([(other, Some(other_plan))]).is_err());
        apply(&mut dataplane, Some(&service(None)), &[a]);
        assert_eq!(ask((CLUSTER_IP, 80)).unwrap(), "10.42.0.2");
    });
}
