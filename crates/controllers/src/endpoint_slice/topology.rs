//! What the controller knows of zones: the CPU of each, and which services have hints for them.
//!
//! Invariant: a service's hints are made and remembered under one lock with the zones they were
//! made for, so that a change of nodes finds every service that it matters to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::labels::{NODE_ROLE_PREFIX, ZONE};
use client::EventType;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meta::{ObjectKey, Quantity};

use super::hints::{self, ByZone, Refusal, Shares};
use super::slices::{AddressType, Parent, Plan};
use crate::node_lifecycle::is_ready;

const ENABLED: &str = "TopologyAwareHintsEnabled";
const DISABLED: &str = "TopologyAwareHintsDisabled";

/// Nodes with these roles do not count.
const EXCLUDED: [&str; 2] = ["control-plane", "master"];

/// Type, reason and text of an event.
pub(super) type Told = (EventType, &'static str, String);

/// Whether an annotation asks for hints by topology; the older one comes first.
pub(super) fn is_auto(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let of = |key: &str| annotations.and_then(|annotations| annotations.get(key));
    let mode = of(api::annotations::TOPOLOGY_AWARE_HINTS);
    mode.or_else(|| of(api::annotations::TOPOLOGY_MODE))
        .is_some_and(|mode| ["Auto", "auto"].contains(&mode.as_str()))
}

/// The zones, and the services with hints for them.
#[derive(Default)]
pub(super) struct Topology {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shares: Option<Shares>,
    services: HashMap<ObjectKey, Hinted>,
}

/// What is known of a service that has hints, or would have some.
#[derive(Default)]
struct Hinted {
    /// That it has some; upstream forgets it for all families when one loses them.
    is_told: bool,
    families: BTreeMap<AddressType, Spread>,
}

/// How the endpoints of a family are spread.
enum Spread {
    Over(ByZone),
    /// Not at all, with so many ready ones.
    Refused(u32),
}

impl Topology {
    /// Takes in the nodes, and returns the services that have to be looked at again: those of which
    /// a zone has too few endpoints now, and those that could not have hints and now can.
    pub(super) fn learn(&self, nodes: &[Arc<Node>]) -> Vec<ObjectKey> {
        let mut state = self.lock();
        state.shares = shares(nodes);
        let State { shares, services } = &*state;
        let concerns = |spread: &Spread| match spread {
            Spread::Over(by_zone) => hints::is_overloaded(by_zone, shares.as_ref()),
            Spread::Refused(ready) => hints::is_possible(shares.as_ref(), *ready),
        };
        let services = services.iter();
        let concerned = services.filter(|(_, hinted)| hinted.families.values().any(concerns));
        concerned.map(|(key, _)| key.clone()).collect()
    }

    /// Gives endpoints their hints; returns what is to be told.
    pub(super) fn hint(
        &self,
        key: &ObjectKey,
        parent: &Parent,
        families: &[AddressType],
        present: &[Arc<EndpointSlice>],
        plan: &mut Plan,
    ) -> Vec<Told> {
        let mut state = self.lock();
        let State { shares, services } = &mut *state;
        let hinted = services.entry(key.clone()).or_default();
        hinted.keep(families);
        let mut told = Vec::new();
        for family in families {
            match hints::assign(parent, *family, shares.as_ref(), present, plan) {
                Ok(by_zone) => {
                    hinted.families.insert(*family, Spread::Over(by_zone));
                    if !std::mem::replace(&mut hinted.is_told, true) {
                        let text = "Topology Aware Hints has been enabled";
                        told.push((EventType::Normal, ENABLED, of_family(text, *family)));
                    }
                }
                Err(refusal) => {
                    hinted.is_told = false;
                    hinted.families.remove(family);
                    // Another zone of the endpoint's node is a reason of its own to look again.
                    if refusal != Refusal::NoZone {
                        let ready = hints::ready_of(*family, present, plan);
                        hinted.families.insert(*family, Spread::Refused(ready));
                    }
                    let text = of_family(&refusal.to_string(), *family);
                    told.push((EventType::Warning, DISABLED, text));
                }
            }
        }
        told
    }

    /// The service asks for no hints, or no more; returns what is to be told.
    pub(super) fn drop_hints(&self, key: &ObjectKey, families: &[AddressType]) -> Vec<Told> {
        let dropped = self.lock().services.remove(key);
        let family = families.first().filter(|_| dropped.is_some_and(|hinted| hinted.is_told));
        let text = "Topology Aware Hints has been disabled";
        let told = |family| (EventType::Warning, DISABLED, of_family(text, family));
        family.copied().map(told).into_iter().collect()
    }

    /// The service is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.lock().services.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hinted {
    /// Forgets the families that the service does not have any more.
    fn keep(&mut self, families: &[AddressType]) {
        let before = self.families.len();
        self.families.retain(|family, _| families.contains(family));
        self.is_told &= self.families.len() == before;
    }
}

fn of_family(text: &str, family: AddressType) -> String {
    format!("{text}, addressType: {}", family.as_str())
}

/// What a node is for the zones.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing: it is not ready, or of the control plane.
    None,
    /// It should be of a zone and does not say of which, or with how much.
    Unknown,
    /// So many thousandths of a CPU of this zone.
    Of(String, i64),
}

/// What the node is for the zones.
pub(super) fn part(node: &Node) -> Part {
    let labels = node.metadata.labels.as_ref();
    let excluded = |role: &&str| {
        let label = format!("{NODE_ROLE_PREFIX}{role}");
        labels.is_some_and(|labels| labels.contains_key(&label))
    };
    if EXCLUDED.iter().any(excluded) || !is_ready(node) {
        return Part::None;
    }
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let cpu = allocatable.and_then(|all| all.get("cpu")?.0.parse::<Quantity>().ok());
    let zone = labels.and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty());
    match (zone, cpu.filter(|cpu| !cpu.is_zero())) {
        (Some(zone), Some(cpu)) => Part::Of(zone.clone(), cpu.milli_value()),
        _ => Part::Unknown,
    }
}

/// The parts of zones; `None` when there are not two, or a node does not tell its own.
#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
fn shares(nodes: &[Arc<Node>]) -> Option<Shares> {
    let mut zones: BTreeMap<String, i64> = BTreeMap::new();
    for node in nodes {
        match part(node) {
            Part::None => {}
            Part::Unknown => return None,
            Part::Of(zone, milli) => {
                let sum = zones.entry(zone).or_default();
                *sum = sum.saturating_add(milli);
            }
        }
    }
    if zones.len() < 2 {
        return None;
    }
    let all: f64 = zones.values().map(|milli| *milli as f64).sum();
    Some(zones.into_iter().map(|(zone, milli)| (zone, milli as f64 / all)).collect())
}
