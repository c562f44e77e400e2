//! What a service needs in nftables: a pure function.
//!
//! Packet path, as upstream's `pkg/proxy/nftables`:
//!
//! ```text
//! services ─▶ service-ips / service-nodeports (map)
//!               ├─▶ service-…   ─▶ endpoint-… ─▶ dnat
//!               └─▶ external-…  ─▶ service-… or, for Local, endpoints of this node
//!                     ▲
//!               firewall-… when only some sources may use the load balancer
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use meta::ObjectKey;
use netlink::nft::{Element, ElementData, KeyField, Layer4, Rule, Set, SetData, Verdict};

use crate::service::{Endpoint, Service, ServicePort, Slice};

/// Verdict map: address, protocol and port of services.
pub const SERVICE_IPS: &str = "service-ips";
/// Verdict map: protocol and port of node ports.
pub const NODE_PORTS: &str = "service-nodeports";
/// Verdict map: like [`SERVICE_IPS`], for services that nothing serves.
pub const NO_ENDPOINT_IPS: &str = "no-endpoint-services";
/// Verdict map: like [`NODE_PORTS`], for services that nothing serves.
pub const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
/// Set: all cluster addresses; what no map caught is rejected.
pub const CLUSTER_IPS: &str = "cluster-ips";
/// Chain that marks a packet whose source address must be replaced.
pub const MARK_FOR_MASQUERADE: &str = "mark-for-masquerade";
/// Chain that rejects.
pub const REJECT: &str = "reject-chain";
/// The mark of such packets: upstream's default bit 14.
pub const MASQUERADE_MARK: u32 = 1 << 14;

/// What every plan depends on.
#[derive(Clone, Debug)]
pub struct Context {
    /// This node's name.
    pub node: String,
    /// The zone that it is in, empty as long as it has none.
    pub zone: String,
    /// The network of all pods: traffic from elsewhere is masqueraded.
    pub cluster_cidr: Ipv4Net,
}

/// One rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulePlan {
    /// As it stands.
    Rule(Box<Rule>),
    /// To one of these chains, each as likely as the others.
    AnyOf(Vec<String>),
}

/// What a service needs. Equal plans need no change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Chains and their rules.
    pub chains: BTreeMap<String, Vec<RulePlan>>,
    /// Sets of their own, by name: clients that stay with an endpoint.
    pub sets: BTreeMap<String, Set>,
    /// Elements of the shared maps and sets.
    pub elements: BTreeSet<(&'static str, Element)>,
    /// Endpoints on this node that take connections: what load balancers' health checks ask.
    pub local_ready: usize,
}

/// Plans a service with the slices that belong to it.
pub fn plan(context: &Context, key: &ObjectKey, service: &Service, slices: &[&Slice]) -> Plan {
    let mut plan = Plan::default();
    for address in &service.cluster_ips {
        plan.elements.insert((CLUSTER_IPS, Element::address(*address, ElementData::None)));
    }
    for port in &service.ports {
        PortPlanner { context, key, service, port, plan: &mut plan }.plan(slices);
    }
    let local = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready: BTreeSet<Ipv4Addr> = local
        .filter(|endpoint| endpoint.ready && endpoint.node == context.node)
        .map(|endpoint| endpoint.address)
        .collect();
    plan.local_ready = ready.len();
    plan
}

/// Which endpoints the traffic of a node prefers, by the hints of those that are ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Near {
    /// None: some have no hint, or there is none for this node.
    Any,
    /// Those for the node.
    Node,
    /// Those for its zone.
    Zone,
}

/// An endpoint of a port: where to, and whether it is on this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    to: SocketAddrV4,
    local: bool,
}

struct PortPlanner<'a> {
    context: &'a Context,
    key: &'a ObjectKey,
    service: &'a Service,
    port: &'a ServicePort,
    plan: &'a mut Plan,
}

impl PortPlanner<'_> {
    fn plan(&mut self, slices: &[&Slice]) {
        let near = self.near(slices);
        let all = self.targets(slices, |endpoint| self.is_near(endpoint, near));
        let local = self.targets(slices, |endpoint| endpoint.node == self.context.node);
        let internal = if self.service.internal_local { &local } else { &all };
        let external = if self.service.external_local { &local } else { &all };

        for target in all.iter().chain(&local).collect::<BTreeSet<_>>() {
            self.endpoint_chain(*target);
        }
        let internal_verdict = if internal.is_empty() {
            None
        } else {
            let chain = self.name("service");
            self.service_chain(&chain, internal);
            Some(Verdict::Goto(chain))
        };
        let external_verdict = self.external_chain(&all, external);
        self.register_internal(internal_verdict, all.is_empty());
        if self.has_external() {
            self.register_external(external_verdict, all.is_empty());
        }
    }

    /// Upstream: `topologyModeFromHints` in `pkg/proxy/topology.go`. Where it says that some are
    /// near, one of these is ready.
    fn near(&self, slices: &[&Slice]) -> Near {
        let has_port = |slice: &&&Slice| slice.ports.iter().any(|port| self.is_port(port));
        let slices = slices.iter().filter(has_port);
        let ready: Vec<&Endpoint> =
            slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.ready).collect();
        let hints = |of: fn(&Endpoint) -> &Vec<String>, own: &String| {
            let mut hints = ready.iter().map(|endpoint| of(endpoint));
            hints.clone().all(|hints| !hints.is_empty()) && hints.any(|hints| hints.contains(own))
        };
        if hints(|endpoint| &endpoint.for_nodes, &self.context.node) {
            Near::Node
        } else if hints(|endpoint| &endpoint.for_zones, &self.context.zone) {
            Near::Zone
        } else {
            Near::Any
        }
    }

    fn is_near(&self, endpoint: &Endpoint, near: Near) -> bool {
        match near {
            Near::Any => true,
            Near::Node => endpoint.for_nodes.contains(&self.context.node),
            Near::Zone => endpoint.for_zones.contains(&self.context.zone),
        }
    }

    fn is_port(&self, (name, protocol, _): &(String, Layer4, u16)) -> bool {
        *name == self.port.name && *protocol == self.port.protocol
    }

    /// The endpoints that take this port's connections: the ready ones or, when there is none,
    /// those that still answer although they are about to end.
    fn targets(&self, slices: &[&Slice], which: impl Fn(&Endpoint) -> bool) -> Vec<Target> {
        let collect = |usable: fn(&Endpoint) -> bool| -> BTreeSet<Target> {
            let mut targets = BTreeSet::new();
            for slice in slices {
                let ports = slice.ports.iter().filter(|port| self.is_port(port));
                for (_, _, number) in ports {
                    let endpoints = slice.endpoints.iter().filter(|e| which(e) && usable(e));
                    targets.extend(endpoints.map(|endpoint| Target {
                        to: SocketAddrV4::new(endpoint.address, *number),
                        local: endpoint.node == self.context.node,
                    }));
                }
            }
            targets
        };
        let mut targets = collect(|endpoint| endpoint.ready);
        if targets.is_empty() {
            targets = collect(|endpoint| endpoint.serving && endpoint.terminating);
        }
        targets.into_iter().collect()
    }

    fn endpoint_chain(&mut self, target: Target) {
        let name = self.endpoint_name(target.to);
        let mut rules = Vec::new();
        // A pod that reaches itself through its service must see another address than its own.
        let hairpin = Rule::new().source(*target.to.ip(), 32).jump(MARK_FOR_MASQUERADE);
        rules.push(rule(hairpin));
        let mut dnat = Rule::new();
        if let Some(seconds) = self.service.affinity_secs {
            let timeout_ms = u64::from(seconds) * 1000;
            let set = self.affinity_name(target.to);
            dnat = dnat.remember_source(&set, timeout_ms);
            let (key, data) = (vec![KeyField::Address], SetData::None);
            let set = Set { name: set, key, data, timeout_ms: Some(timeout_ms) };
            self.plan.sets.insert(set.name.clone(), set);
        }
        rules.push(rule(dnat.layer4(self.port.protocol).dnat(target.to)));
        self.plan.chains.insert(name, rules);
    }

    fn service_chain(&mut self, chain: &str, targets: &[Target]) {
        let mut rules = Vec::new();
        let pods = self.context.cluster_cidr;
        for address in &self.service.cluster_ips {
            let from_elsewhere = Rule::new()
                .destination(*address, 32)
                .source_not(pods.network(), pods.prefix_len())
                .jump(MARK_FOR_MASQUERADE);
            rules.push(rule(from_elsewhere));
        }
        rules.extend(self.spread(targets));
        self.plan.chains.insert(chain.to_owned(), rules);
    }

    /// Rules that go to one of the targets: where the client was before, or to any.
    fn spread(&self, targets: &[Target]) -> Vec<RulePlan> {
        let mut rules = Vec::new();
        if self.service.affinity_secs.is_some() {
            for target in targets {
                let chain = self.endpoint_name(target.to);
                let seen = self.affinity_name(target.to);
                rules.push(rule(Rule::new().source_in(&seen, true).goto(&chain)));
            }
        }
        let chains = targets.iter().map(|target| self.endpoint_name(target.to)).collect();
        rules.push(RulePlan::AnyOf(chains));
        rules
    }

    /// The chain for traffic from outside; `None` when nothing can take it.
    fn external_chain(&mut self, all: &[Target], external: &[Target]) -> Option<Verdict> {
        if !self.has_external() || all.is_empty() {
            return None;
        }
        let everywhere = self.name("service");
        let mut rules = Vec::new();
        if self.service.external_local {
            let pods = self.context.cluster_cidr;
            // Pods of this cluster reach the whole service also through its outer addresses.
            if self.plan.chains.contains_key(&everywhere) {
                let from_pods = Rule::new().source(pods.network(), pods.prefix_len());
                rules.push(rule(from_pods.goto(&everywhere)));
            }
            if external.is_empty() {
                rules.push(rule(Rule::new().verdict(&Verdict::Drop)));
            } else {
                rules.extend(self.spread(external));
            }
        } else {
            rules.push(rule(Rule::new().jump(MARK_FOR_MASQUERADE)));
            if self.service.internal_local {
                rules.extend(self.spread(external));
            } else {
                rules.push(rule(Rule::new().goto(&everywhere)));
            }
        }
        let chain = self.name("external");
        self.plan.chains.insert(chain.clone(), rules);
        Some(Verdict::Goto(chain))
    }

    fn register_internal(&mut self, verdict: Option<Verdict>, none_anywhere: bool) {
        let (protocol, port) = (self.port.protocol, self.port.port);
        let (map, verdict) = match verdict {
            Some(verdict) => (SERVICE_IPS, verdict),
            // Endpoints exist, but on other nodes only: upstream drops.
            None if !none_anywhere => (NO_ENDPOINT_IPS, Verdict::Drop),
            None => (NO_ENDPOINT_IPS, Verdict::Goto(REJECT.to_owned())),
        };
        for address in &self.service.cluster_ips {
            let data = ElementData::Verdict(verdict.clone());
            self.plan.elements.insert((map, Element::service(*address, protocol, port, data)));
        }
    }

    fn register_external(&mut self, verdict: Option<Verdict>, none_anywhere: bool) {
        let (protocol, port) = (self.port.protocol, self.port.port);
        let served = verdict.is_some();
        let verdict = match verdict {
            Some(verdict) => verdict,
            None if !none_anywhere => Verdict::Drop,
            None => Verdict::Goto(REJECT.to_owned()),
        };
        let (ips, node_ports) = if served {
            (SERVICE_IPS, NODE_PORTS)
        } else {
            (NO_ENDPOINT_IPS, NO_ENDPOINT_NODE_PORTS)
        };
        let data = ElementData::Verdict(verdict.clone());
        for address in &self.service.external_ips {
            let element = Element::service(*address, protocol, port, data.clone());
            self.plan.elements.insert((ips, element));
        }
        if let Some(node_port) = self.port.node_port {
            let element = Element::port(protocol, node_port, data);
            self.plan.elements.insert((node_ports, element));
        }
        let verdict = self.firewall(verdict);
        for address in &self.service.load_balancer_ips {
            let data = ElementData::Verdict(verdict.clone());
            let element = Element::service(*address, protocol, port, data);
            self.plan.elements.insert((ips, element));
        }
    }

    /// Lets only the allowed sources through to `next`, if the service says who they are.
    fn firewall(&mut self, next: Verdict) -> Verdict {
        if self.service.source_ranges.is_empty() || self.service.load_balancer_ips.is_empty() {
            return next;
        }
        let ranges = &self.service.source_ranges;
        let mut rules: Vec<_> = ranges
            .iter()
            .map(|range| {
                let from = Rule::new().source(range.network(), range.prefix_len());
                rule(from.verdict(&next))
            })
            .collect();
        rules.push(rule(Rule::new().verdict(&Verdict::Drop)));
        let chain = self.name("firewall");
        self.plan.chains.insert(chain.clone(), rules);
        Verdict::Goto(chain)
    }

    fn has_external(&self) -> bool {
        self.port.node_port.is_some()
            || !self.service.external_ips.is_empty()
            || !self.service.load_balancer_ips.is_empty()
    }

    /// `service-ABCD1234-ns/name/tcp/port`, as upstream names its chains.
    fn name(&self, kind: &str) -> String {
        let identity = self.identity();
        format!("{kind}-{}-{identity}", hash(&identity))
    }

    fn endpoint_name(&self, to: SocketAddrV4) -> String {
        let identity = format!("{}__{}/{}", self.identity(), to.ip(), to.port());
        format!("endpoint-{}-{identity}", hash(&identity))
    }

    fn affinity_name(&self, to: SocketAddrV4) -> String {
        let identity = format!("{}__{}/{}", self.identity(), to.ip(), to.port());
        format!("affinity-{}-{identity}", hash(&identity))
    }

    fn identity(&self) -> String {
        let protocol = match self.port.protocol {
            Layer4::Tcp => "tcp",
            Layer4::Udp => "udp",
            Layer4::Sctp => "sctp",
        };
        format!("{}/{}/{protocol}/{}", self.key.namespace, self.key.name, self.port.name)
    }
}

fn rule(rule: Rule) -> RulePlan {
    RulePlan::Rule(Box::new(rule))
}

/// Eight characters that tell names apart where they are cut off: FNV-1a in base 32.
fn hash(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (0..8).map(|n| char::from(ALPHABET[(hash >> (5 * n) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests;
