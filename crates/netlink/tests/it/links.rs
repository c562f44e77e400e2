//! Links, addresses and routes.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use netlink::{Connection, Route, VethPeer, netns};

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[test]
fn a_veth_pair_connects_two_namespaces() {
    let (host, pod) = (netns::create().unwrap(), netns::create().unwrap());
    netns::inside(&host, || {
        let mut host = Connection::open().unwrap();
        host.add_bridge("br0", 1500).unwrap();
        assert!(host.add_bridge("br0", 1500).unwrap_err().is_exists());
        let bridge = host.link("br0").unwrap().unwrap().index;
        host.add_address(bridge, v4(10, 1, 0, 1), 24).unwrap();
        host.add_address(bridge, v4(10, 1, 0, 1), 24).unwrap();
        host.set_up(bridge).unwrap();
        host.add_veth("v0", 1400, &VethPeer { name: "eth0", netns: pod.as_fd() }).unwrap();
        let near = host.link("v0").unwrap().unwrap();
        host.set_controller(near.index, bridge).unwrap();
        host.set_hairpin(near.index).unwrap();
        host.set_up(near.index).unwrap();
        let near = host.link("v0").unwrap().unwrap();
        assert_eq!((near.mtu, near.is_up, near.controller), (1400, true, Some(bridge)));
        assert!(host.addresses().unwrap().contains(&(bridge, v4(10, 1, 0, 1), 24)));
    })
    .unwrap();
    netns::inside(&pod, || {
        let mut pod = Connection::open().unwrap();
        let eth0 = pod.link("eth0").unwrap().unwrap().index;
        pod.add_address(eth0, v4(10, 1, 0, 2), 32).unwrap();
        pod.set_up(eth0).unwrap();
        let gateway = v4(10, 1, 0, 1);
        pod.set_route(&Route { destination: (gateway, 32), gateway: None, index: eth0 }).unwrap();
        assert_eq!(pod.default_route().unwrap(), None);
        let default =
            Route { destination: (v4(0, 0, 0, 0), 0), gateway: Some(gateway), index: eth0 };
        pod.set_route(&default).unwrap();
        assert_eq!(pod.default_route().unwrap().unwrap().gateway, Some(gateway));
    })
    .unwrap();
    // TCP from the pod to the bridge's address proves the path.
    let listener =
        netns::inside(&host, || std::net::TcpListener::bind("10.1.0.1:0")).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    netns::inside(&pod, || std::net::TcpStream::connect(target)).unwrap().unwrap();
    netns::inside(&host, || {
        let mut host = Connection::open().unwrap();
        host.delete_link("v0").unwrap();
        host.delete_link("v0").unwrap();
    })
    .unwrap();
    let gone = netns::inside(&pod, || Connection::open().unwrap().link("eth0").unwrap()).unwrap();
    assert_eq!(gone, None);
}
