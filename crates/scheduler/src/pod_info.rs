//! What the scheduler keeps of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Typed;
use api::resources::{self, ResourceList};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    NodeSelector, Pod, PodAffinityTerm, PodSpec, PodStatus, PreferredSchedulingTerm, Toleration,
    TopologySpreadConstraint, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as wire;
use meta::{LabelSelector, ObjectKey};

use crate::resources::Resources;

/// A pod, reduced to what decisions need.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Uid.
    pub uid: String,
    /// Generation, 0 when absent.
    pub generation: i64,
    /// Labels; pods of one workload share them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The node it is bound to, or empty.
    pub node_name: String,
    /// Who schedules it.
    pub scheduler_name: String,
    /// Priority.
    pub priority: i32,
    /// Whether it may not displace others.
    pub never_preempts: bool,
    /// What it asks for.
    pub requests: Resources,
    /// CPU and memory it is scored with: with assumed requests where it names none.
    pub scored: Resources,
    /// Ports it takes on the node.
    pub host_ports: Vec<HostPort>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity.
    pub required_nodes: Option<NodeSelector>,
    /// Preferred node affinity.
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    /// Affinity to and against other pods.
    pub affinity: PodAffinity,
    /// Topology spread constraints.
    pub spread: Vec<SpreadConstraint>,
    /// Names of the gates that hold it back.
    pub gates: Vec<String>,
    /// Images of its containers.
    pub images: Vec<String>,
    /// The claims it mounts.
    pub claims: Vec<ClaimName>,
    /// Disks of its own that others may not have at once.
    pub disks: Vec<Disk>,
    /// The claims for devices of its entries.
    pub device_claims: Vec<DeviceClaim>,
    /// Uid of the owner that controls it.
    pub controller: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// When the node acknowledged it.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended.
    pub terminal: bool,
    /// `status.nominatedNodeName`.
    pub nominated_node: String,
    /// Reason and message of its PodScheduled condition while that is false.
    pub unscheduled: Option<(String, String)>,
}

/// A claim by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName {
    /// Its name.
    pub name: String,
    /// Whether it is made for the pod, and goes with it.
    pub is_ephemeral: bool,
}

/// The claim for devices of one entry of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceClaim {
    /// One that the user made.
    Given(String),
    /// One that was made for the pod.
    Made(String),
    /// None was needed.
    NotNeeded,
    /// None has been made yet.
    NotMade,
}

/// A disk that a pod names itself, without a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What tells it from others of its sort.
    id: Vec<String>,
    /// Names of which one must be shared for two to be the same; none when that does not count.
    monitors: Vec<String>,
    /// Whether it may be had many times, as it is only read.
    is_read_only: bool,
}

impl Disk {
    /// `None` for volumes that may be had many times.
    fn of(volume: &Volume) -> Option<Self> {
        let disk = |sort: &str, id: &[&str], read_only: Option<bool>| Self {
            id: std::iter::once(sort).chain(id.iter().copied()).map(str::to_owned).collect(),
            monitors: Vec::new(),
            is_read_only: read_only.unwrap_or(false),
        };
        if let Some(gce) = &volume.gce_persistent_disk {
            return Some(disk("gce", &[&gce.pd_name], gce.read_only));
        }
        if let Some(aws) = &volume.aws_elastic_block_store {
            // Read or written, it is attached once.
            return Some(disk("aws", &[&aws.volume_id], None));
        }
        if let Some(iscsi) = &volume.iscsi {
            return Some(disk("iscsi", &[&iscsi.iqn], iscsi.read_only));
        }
        let rbd = volume.rbd.as_ref()?;
        let pool = rbd.pool.as_deref().unwrap_or("rbd");
        let disk = disk("rbd", &[pool, &rbd.image], rbd.read_only);
        Some(Self { monitors: rbd.monitors.clone(), ..disk })
    }

    /// Whether both cannot be had at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.id == other.id
            && (self.monitors == other.monitors
                || self.monitors.iter().any(|monitor| other.monitors.contains(monitor)))
            && !(self.is_read_only && other.is_read_only)
    }
}

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address it is taken on, `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let everywhere = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || everywhere(&self.ip) || everywhere(&other.ip))
    }
}

/// Terms about other pods.
#[derive(Clone, Debug, Default)]
pub struct PodAffinity {
    /// Must be near.
    pub required: Vec<AffinityTerm>,
    /// Should be near.
    pub preferred: Vec<AffinityTerm>,
    /// Must not be near.
    pub anti_required: Vec<AffinityTerm>,
    /// Should not be near.
    pub anti_preferred: Vec<AffinityTerm>,
}

impl PodAffinity {
    /// Whether there is no term at all.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.preferred.is_empty()
            && self.anti_required.is_empty()
            && self.anti_preferred.is_empty()
    }
}

/// One term about other pods.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    /// Which pods.
    pub selector: LabelSelector,
    /// In which namespaces, by name.
    pub namespaces: BTreeSet<String>,
    /// And by label.
    pub namespace_selector: LabelSelector,
    /// What "near" means.
    pub topology_key: String,
    /// Weight of a preference, 0 of a requirement.
    pub weight: i32,
}

impl AffinityTerm {
    /// Whether the term is about `pod`.
    pub fn matches(&self, pod: &PodInfo, namespaces: &NamespaceLabels) -> bool {
        let namespace = &pod.key.namespace;
        let in_namespace = self.namespaces.contains(namespace)
            || self.namespace_selector.matches(|key| {
                namespaces.get(namespace).and_then(|labels| labels.get(key)).map(String::as_str)
            });
        in_namespace && self.selector.matches(|key| pod.labels.get(key).map(String::as_str))
    }
}

/// Labels of namespaces by name.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// How evenly pods are spread.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    /// The largest difference allowed.
    pub max_skew: i64,
    /// What a domain is.
    pub topology_key: String,
    /// Whether a violation forbids the node, or only makes it worse.
    pub required: bool,
    /// Which pods are counted.
    pub selector: LabelSelector,
    /// Fewer domains than this count as one that is empty.
    pub min_domains: i64,
    /// Whether only nodes that the pod's node affinity admits are counted.
    pub honor_affinity: bool,
    /// Whether only nodes whose taints the pod tolerates are counted.
    pub honor_taints: bool,
}

impl PodInfo {
    /// Reduces a pod.
    pub fn new(pod: &Pod) -> Self {
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let meta = &pod.metadata;
        let key = ObjectKey::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let labels = meta.labels.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let node_affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let preferred = node_affinity
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone());
        Self {
            affinity: pod_affinity(spec, &key.namespace),
            spread: spread_constraints(spec, &labels),
            requests: Resources::from(&resources::pod_requests(pod)),
            scored: scored(pod),
            host_ports: host_ports(spec),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            node_name: spec.node_name.clone().unwrap_or_default(),
            scheduler_name: spec.scheduler_name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_nodes: node_affinity
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()),
            preferred_nodes: preferred.unwrap_or_default(),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            claims: claims(spec.volumes.as_deref(), &key.name),
            device_claims: device_claims(spec, status),
            disks: spec.volumes.iter().flatten().filter_map(Disk::of).collect(),
            controller: controller(&meta.owner_references),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            started: status.and_then(|s| s.start_time.as_ref()).map(|time| time.0),
            deleting: meta.deletion_timestamp.is_some(),
            terminal: api::pod::is_terminal(pod),
            nominated_node: status.and_then(|s| s.nominated_node_name.clone()).unwrap_or_default(),
            unscheduled: unscheduled(pod),
            key,
            labels: Arc::new(labels),
        }
    }

    /// The claims it mounts, by namespace and name.
    pub fn claim_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.claims.iter().map(|claim| ObjectKey::new(&self.key.namespace, &claim.name))
    }

    /// Whether it takes room on a node.
    pub fn is_assigned(&self) -> bool {
        !self.node_name.is_empty() && !self.terminal
    }
}

fn controller(owners: &Option<Vec<wire::OwnerReference>>) -> Option<String> {
    let mut owners = owners.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

fn claims(volumes: Option<&[Volume]>, pod: &str) -> Vec<ClaimName> {
    let volumes = volumes.unwrap_or_default().iter();
    let claim = |volume: &Volume| match &volume.persistent_volume_claim {
        Some(claim) => Some(ClaimName { name: claim.claim_name.clone(), is_ephemeral: false }),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| ClaimName { name: format!("{pod}-{}", volume.name), is_ephemeral: true }),
    };
    volumes.filter_map(claim).collect()
}

fn device_claims(spec: &PodSpec, status: Option<&PodStatus>) -> Vec<DeviceClaim> {
    let statuses = status.and_then(|status| status.resource_claim_statuses.as_deref());
    let made = |name: &str| {
        let mut statuses = statuses.unwrap_or_default().iter();
        match statuses.find(|status| status.name == name).map(|one| &one.resource_claim_name) {
            Some(Some(claim)) => DeviceClaim::Made(claim.clone()),
            Some(None) => DeviceClaim::NotNeeded,
            None => DeviceClaim::NotMade,
        }
    };
    let entries = spec.resource_claims.iter().flatten();
    let claim = entries.map(|entry| match &entry.resource_claim_name {
        Some(claim) => DeviceClaim::Given(claim.clone()),
        None => made(&entry.name),
    });
    claim.collect()
}

fn unscheduled(pod: &Pod) -> Option<(String, String)> {
    let condition = api::pod::condition(pod, api::pod::POD_SCHEDULED)?;
    (condition.status == "False").then(|| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        (text(&condition.reason), text(&condition.message))
    })
}

fn scored(pod: &Pod) -> Resources {
    let defaults: ResourceList = resources::DEFAULT_REQUESTS
        .iter()
        .filter_map(|(name, amount)| Some(((*name).to_owned(), amount.parse().ok()?)))
        .collect();
    Resources::from(&resources::pod_requests_with_defaults(pod, &defaults))
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| api::pod::is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                port: port.host_port.filter(|number| *number > 0)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".to_owned()),
            })
        })
        .collect()
}

/// The server admits only valid selectors; one that is not selects nothing.
pub(crate) fn selector(wire: Option<&wire::LabelSelector>) -> LabelSelector {
    let value = wire.and_then(|selector| selector.to_tree().ok());
    LabelSelector::from_object(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

fn pod_affinity(spec: &PodSpec, namespace: &str) -> PodAffinity {
    let Some(affinity) = &spec.affinity else { return PodAffinity::default() };
    let required = |terms: &Option<Vec<PodAffinityTerm>>| {
        terms.iter().flatten().map(|term| affinity_term(term, namespace, 0)).collect()
    };
    let mut terms = PodAffinity::default();
    if let Some(near) = &affinity.pod_affinity {
        terms.required = required(&near.required_during_scheduling_ignored_during_execution);
        let preferred = near.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.preferred = preferred
            .map(|term| affinity_term(&term.pod_affinity_term, namespace, term.weight))
            .collect();
    }
    if let Some(far) = &affinity.pod_anti_affinity {
        terms.anti_required = required(&far.required_during_scheduling_ignored_during_execution);
        let preferred = far.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.anti_preferred = preferred
            .map(|term| affinity_term(&term.pod_affinity_term, namespace, term.weight))
            .collect();
    }
    terms
}

fn affinity_term(term: &PodAffinityTerm, namespace: &str, weight: i32) -> AffinityTerm {
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.insert(namespace.to_owned());
    }
    AffinityTerm {
        // The server has merged matchLabelKeys and mismatchLabelKeys into the selector.
        selector: selector(term.label_selector.as_ref()),
        namespaces,
        namespace_selector: selector(term.namespace_selector.as_ref()),
        topology_key: term.topology_key.clone(),
        weight,
    }
}

fn spread_constraints(spec: &PodSpec, labels: &BTreeMap<String, String>) -> Vec<SpreadConstraint> {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    constraints.map(|constraint| spread_constraint(constraint, labels)).collect()
}

fn spread_constraint(
    constraint: &TopologySpreadConstraint,
    labels: &BTreeMap<String, String>,
) -> SpreadConstraint {
    let mut wire = constraint.label_selector.clone();
    if let Some(wire) = &mut wire {
        for key in constraint.match_label_keys.iter().flatten() {
            let Some(value) = labels.get(key) else { continue };
            let expressions = wire.match_expressions.get_or_insert_with(Vec::new);
            // The server may have merged the key already.
            if !expressions.iter().any(|expression| expression.key == *key) {
                expressions.push(wire::LabelSelectorRequirement {
                    key: key.clone(),
                    operator: "In".to_owned(),
                    values: Some(vec![value.clone()]),
                });
            }
        }
    }
    SpreadConstraint {
        max_skew: i64::from(constraint.max_skew),
        topology_key: constraint.topology_key.clone(),
        required: constraint.when_unsatisfiable == "DoNotSchedule",
        selector: selector(wire.as_ref()),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}
