//! What the proxy keeps of Services and EndpointSlices.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service as ApiService, ServicePort as ApiServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use netlink::nft::Layer4;

/// A Service as the proxy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Virtual addresses inside the cluster.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// Addresses outside it: `externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    /// Addresses of the load balancer, where it delivers packets unchanged.
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer; empty for everyone.
    pub source_ranges: Vec<Ipv4Net>,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// How long a client stays with its endpoint, in seconds, if it does.
    pub affinity_secs: Option<u32>,
    /// Traffic from inside goes to endpoints of this node only.
    pub internal_local: bool,
    /// Traffic from outside goes to endpoints of this node only, and keeps its source address.
    pub external_local: bool,
    /// Where load balancers ask whether this node has endpoints.
    pub health_check_node_port: Option<u16>,
}

/// A port of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty when it has none.
    pub name: String,
    /// The protocol.
    pub protocol: Layer4,
    /// The port.
    pub port: u16,
    /// The port on every node.
    pub node_port: Option<u16>,
}

/// The endpoints of one EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Name of the service, in the slice's namespace.
    pub service: String,
    /// Port names, protocols and numbers.
    pub ports: Vec<(String, Layer4, u16)>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One address of a [`Slice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, although it may be about to end.
    pub serving: bool,
    /// Is about to end.
    pub terminating: bool,
    /// The node it runs on.
    pub node: String,
    /// The nodes whose traffic it should take, and the zones; empty without such hints.
    pub for_nodes: Vec<String>,
    /// See `for_nodes`.
    pub for_zones: Vec<String>,
}

impl Service {
    /// Reads a Service; `None` when it is not for this proxy: headless, an external name, or
    /// served by another proxy.
    pub fn read(service: &ApiService) -> Option<Self> {
        let labels = service.metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(api::labels::SERVICE_PROXY_NAME)) {
            return None;
        }
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let cluster_ips = match &spec.cluster_ips {
            Some(ips) => addresses(ips),
            None => addresses(spec.cluster_ip.as_slice()),
        };
        if cluster_ips.is_empty() {
            return None;
        }
        let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let timeout = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok());
        let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
        Some(Self {
            cluster_ips,
            external_ips: addresses(spec.external_ips.as_deref().unwrap_or_default()),
            load_balancer_ips: load_balancer_ips(service),
            source_ranges: ranges.iter().filter_map(|range| range.trim().parse().ok()).collect(),
            ports: spec.ports.iter().flatten().filter_map(read_port).collect(),
            // The API's default is three hours.
            affinity_secs: affinity.then(|| timeout.unwrap_or(10_800)),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_node_port: spec.health_check_node_port.and_then(port_number),
        })
    }
}

fn load_balancer_ips(service: &ApiService) -> Vec<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    ingress
        .iter()
        .filter(|point| point.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|point| point.ip.as_deref()?.parse().ok())
        .collect()
}

fn read_port(port: &ApiServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref())?,
        port: port_number(port.port)?,
        node_port: port.node_port.and_then(port_number),
    })
}

impl Slice {
    /// Reads an EndpointSlice; `None` when it belongs to no service or is not of IPv4.
    pub fn read(slice: &ApiSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(api::labels::SERVICE_NAME)?.clone();
        if slice.address_type != "IPv4" {
            return None;
        }
        let mut endpoints = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let hints = endpoint.hints.clone().unwrap_or_default();
            let for_nodes = hints.for_nodes.into_iter().flatten().map(|hint| hint.name);
            let for_nodes: Vec<String> = for_nodes.collect();
            let for_zones = hints.for_zones.into_iter().flatten().map(|hint| hint.name);
            let for_zones: Vec<String> = for_zones.collect();
            for address in addresses(&endpoint.addresses) {
                endpoints.push(Endpoint {
                    address,
                    ready,
                    serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                    terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
                    node: endpoint.node_name.clone().unwrap_or_default(),
                    for_nodes: for_nodes.clone(),
                    for_zones: for_zones.clone(),
                });
            }
        }
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let name = port.name.clone().unwrap_or_default();
            Some((name, protocol(port.protocol.as_deref())?, port_number(port.port?)?))
        });
        Some(Self { service, ports: ports.collect(), endpoints })
    }
}

fn addresses(texts: &[String]) -> Vec<Ipv4Addr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn protocol(name: Option<&str>) -> Option<Layer4> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Layer4::Tcp),
        "UDP" => Some(Layer4::Udp),
        "SCTP" => Some(Layer4::Sctp),
        _ => None,
    }
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}
