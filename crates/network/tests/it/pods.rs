//! Pods that reach each other, the node and the node's ports.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use cri::{PodNetwork, PodNetworkRequest, PortMapping, Protocol, SandboxId};
use netlink::{Connection, netns};
use network::{Network, NetworkConfig, reset};

struct Node {
    netns: File,
    directory: tempfile::TempDir,
    network: Network,
}

impl Node {
    fn new() -> Self {
        let netns = netns::create().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let network = Network::open(config(&directory)).unwrap();
        let node = Self { netns, directory, network };
        node.inside(|node| {
            let mut host = Connection::open().unwrap();
            let lo = host.link("lo").unwrap().unwrap().index;
            host.set_up(lo).unwrap();
            node.network.set_pod_cidr("10.42.3.0/24".parse().unwrap()).unwrap();
        });
        node
    }

    fn inside<T: Send>(&self, work: impl FnOnce(&Self) -> T + Send) -> T {
        netns::inside(&self.netns, || work(self)).unwrap()
    }

    /// A runtime whose threads are in the node's namespace, as the agent's are.
    fn run<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.inside(|_| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(work)
        })
    }

    fn attach(&self, pod: &Pod) -> IpAddr {
        self.run(self.network.attach(&pod.request)).unwrap()[0]
    }
}

fn config(directory: &tempfile::TempDir) -> NetworkConfig {
    NetworkConfig::new(directory.path(), "10.42.0.0/16".parse().unwrap())
}

struct Pod {
    netns: File,
    request: PodNetworkRequest,
}

impl Pod {
    fn new(id: &str) -> Self {
        let netns = netns::create().unwrap();
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()));
        let sandbox_id = SandboxId::from(id);
        let request = PodNetworkRequest { sandbox_id, netns: path, ..Default::default() };
        Self { netns, request }
    }

    fn serve(&self, answer: &'static str) -> u16 {
        let listener =
            netns::inside(&self.netns, || TcpListener::bind("0.0.0.0:0")).unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let from = stream.peer_addr().unwrap().ip();
                stream.write_all(format!("{answer} to {from}").as_bytes()).unwrap();
            }
        });
        port
    }
}

fn ask(netns: &File, to: impl Into<SocketAddr> + Send) -> std::io::Result<String> {
    let to = to.into();
    netns::inside(netns, || {
        let mut answer = String::new();
        TcpStream::connect(to)?.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

fn devices(node: &Node) -> Vec<String> {
    let links = node.inside(|_| Connection::open().unwrap().links().unwrap());
    links.into_iter().map(|link| link.name).collect()
}

#[test]
fn pods_reach_each_other_and_the_node_with_their_own_addresses() {
    let node = Node::new();
    let (a, b) = (Pod::new("aaaaaaaaaaaaaaaa"), Pod::new("bbbbbbbbbbbbbbbb"));
    let (address_a, address_b) = (node.attach(&a), node.attach(&b));
    assert_eq!(address_a.to_string(), "10.42.3.2");
    assert_eq!(node.attach(&a), address_a, "attaching again changes nothing");
    let port = b.serve("b");
    assert_eq!(ask(&a.netns, (address_b, port)).unwrap(), format!("b to {address_a}"));
    assert_eq!(ask(&node.netns, (address_b, port)).unwrap(), "b to 10.42.3.1");
    assert_eq!(ask(&b.netns, ([127, 0, 0, 1], port)).unwrap(), "b to 127.0.0.1");

    node.run(node.network.detach(&a.request)).unwrap();
    node.run(node.network.detach(&a.request)).unwrap();
    node.run(node.network.detach(&b.request)).unwrap();
    assert!(!devices(&node).iter().any(|name| name.starts_with("veth")));
    node.inside(|node| reset(&config(&node.directory))).unwrap();
    assert_eq!(devices(&node), ["lo"]);
}

#[test]
fn host_ports_lead_to_the_pod_until_it_goes() {
    let node = Node::new();
    let mut pod = Pod::new("cccccccccccccccc");
    let port = pod.serve("c");
    pod.request.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp,
        container_port: port,
        host_port: 8080,
        host_ip: String::new(),
    }];
    node.attach(&pod);
    let gateway = ([10, 42, 3, 1], 8080);
    assert!(ask(&node.netns, gateway).unwrap().starts_with("c to "));
    assert!(ask(&node.netns, ([127, 0, 0, 1], 8080)).unwrap().starts_with("c to "));
    // A restarted agent takes the port over from the record.
    let restarted = Network::open(config(&node.directory)).unwrap();
    node.inside(|_| restarted.set_pod_cidr("10.42.3.0/24".parse().unwrap())).unwrap();
    assert!(ask(&node.netns, gateway).unwrap().starts_with("c to "));
    node.inside(|_| restarted.retain(&[])).unwrap();
    assert!(ask(&node.netns, gateway).is_err());
    assert!(!devices(&node).iter().any(|name| name.starts_with("veth")));
}

#[test]
fn without_a_pod_cidr_the_error_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let network = Network::open(config(&directory)).unwrap();
    assert_eq!(network.ready().unwrap_err(), "node has no pod CIDR assigned yet");
}
