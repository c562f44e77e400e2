//! The pure core: which pods to delete and which nodes to give one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Node;

use super::placement::{Fit, fit};
use super::{HASH, TEMPLATE_GENERATION, template_generation};
use crate::deployment::{Round, portion};
use crate::pod_view::PodView;

/// What is there.
pub(super) struct View<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: BTreeMap<String, Fit>,
    /// By node, those of no node apart; ended pods that are being deleted are left out.
    pub(super) pods: BTreeMap<String, Vec<Arc<PodView>>>,
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

/// The pods of a node by template, if there are such.
type NewAndOld<'p> = (Option<&'p Arc<PodView>>, Option<&'p Arc<PodView>>);

/// What to do.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) delete: Vec<Arc<PodView>>,
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    /// Nodes whose pod failed: the next one is given more time.
    pub(super) failed: Vec<String>,
    pub(super) events: Vec<(EventType, &'static str, String)>,
    /// How long to wait for a node that had too many failures.
    pub(super) wait: Option<Duration>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        set: &'a DaemonSet,
        nodes: &[Arc<Node>],
        pods: &[Arc<PodView>],
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        let nodes = nodes.iter().map(|node| (name(node), fit(set, node))).collect();
        let mut by_node: BTreeMap<String, Vec<Arc<PodView>>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !(pod.is_terminal() && pod.deleted.is_some())) {
            if !pod.target().is_empty() {
                by_node.entry(pod.target().to_owned()).or_default().push(Arc::clone(pod));
            }
        }
        for pods in by_node.values_mut() {
            // Bound ones first, then the oldest.
            pods.sort_by_key(|pod| (pod.node.is_empty(), pod.created, pod.key.name.clone()));
        }
        Self { set, nodes, pods: by_node, hash, now }
    }

    fn rolling(&self) -> Option<RollingUpdateDaemonSet> {
        let strategy = self.set.spec.as_ref()?.update_strategy.as_ref()?;
        let is_rolling = strategy.type_.as_deref() == Some("RollingUpdate");
        is_rolling.then(|| strategy.rolling_update.clone().unwrap_or_default())
    }

    fn desired(&self) -> usize {
        self.nodes.values().filter(|fit| fit.should_run).count()
    }

    /// Pods that may be made beyond one per node while the template changes.
    fn max_surge(&self) -> usize {
        let rolling = self.rolling().unwrap_or_default();
        scaled(portion(rolling.max_surge.as_ref(), count(self.desired()), Round::Up))
    }

    fn allows_surge(&self) -> bool {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
        let surge = self.rolling().and_then(|rolling| rolling.max_surge);
        match surge {
            None | Some(IntOrString::Int(0)) => false,
            Some(IntOrString::Int(_)) => true,
            Some(IntOrString::String(text)) => text.trim_end_matches('%') != "0",
        }
    }

    fn is_updated(&self, pod: &PodView) -> bool {
        let label = |key: &str| pod.labels.get(key).map(String::as_str);
        let generation = template_generation(self.set).map(|generation| generation.to_string());
        (!self.hash.is_empty() && label(HASH) == Some(self.hash))
            || (generation.is_some() && label(TEMPLATE_GENERATION) == generation.as_deref())
    }

    fn is_available(&self, pod: &PodView) -> bool {
        let seconds = self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        pod.is_available(seconds, self.now)
    }

    /// One pod on every node that should have one, and none elsewhere. `delay` says how long a
    /// node's failures still hold the next deletion.
    pub(super) fn manage(&self, delay: impl Fn(&str) -> Option<Duration>) -> Plan {
        let mut plan = Plan::default();
        for (node, fit) in &self.nodes {
            let pods = self.pods.get(node);
            match pods {
                None if fit.should_run => plan.create.push(node.clone()),
                None => {}
                Some(pods) if fit.may_stay => self.tidy(node, pods, &delay, &mut plan),
                Some(pods) => {
                    plan.delete.extend(pods.iter().filter(|pod| pod.deleted.is_none()).cloned());
                }
            }
        }
        // Pods of nodes that are gone would wait for them for ever.
        for (_, pods) in self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node)) {
            let waiting = pods.iter().filter(|pod| pod.node.is_empty() && pod.deleted.is_none());
            plan.delete.extend(waiting.cloned());
        }
        plan
    }

    fn tidy(
        &self,
        node: &str,
        pods: &[Arc<PodView>],
        delay: impl Fn(&str) -> Option<Duration>,
        plan: &mut Plan,
    ) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|pod| pod.deleted.is_none()) {
            let named = format!("daemon pod {}/{} on node {node}", pod.key.namespace, pod.key.name);
            match pod.phase {
                "Failed" => {
                    if let Some(delay) = delay(node) {
                        plan.wait = plan.wait.into_iter().chain([delay]).min();
                        continue;
                    }
                    let text = format!("Found failed {named}, will try to kill it");
                    plan.events.push((EventType::Warning, "FailedDaemonPod", text));
                    plan.failed.push(node.to_owned());
                    plan.delete.push(Arc::clone(pod));
                }
                "Succeeded" => {
                    let text = format!("Found succeeded {named}, will try to delete it");
                    plan.events.push((EventType::Normal, "SucceededDaemonPod", text));
                    plan.delete.push(Arc::clone(pod));
                }
                _ => running.push(pod),
            }
        }
        if running.len() <= 1 {
            return;
        }
        if !self.allows_surge() {
            plan.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        let is_new = |pod: &PodView| pod.labels.get(HASH).map(String::as_str) == Some(self.hash);
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| is_new(pod));
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).copied().cloned());
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.ready || self.is_available(new))
        {
            plan.delete.push(Arc::clone(old));
        }
    }

    /// Replaces pods of older templates as far as the strategy allows.
    pub(super) fn roll(&self) -> Plan {
        let Some(rolling) = self.rolling() else { return Plan::default() };
        let desired = count(self.desired());
        let mut unavailable = scaled(portion(rolling.max_unavailable.as_ref(), desired, Round::Up));
        let surge = self.max_surge();
        if desired > 0 && unavailable == 0 && surge == 0 {
            unavailable = 1;
        }
        if surge == 0 { self.replace(unavailable) } else { self.surge(surge) }
    }

    /// Every node that has pods or should have one.
    fn involved(&self) -> BTreeSet<&String> {
        let wanted = self.nodes.iter().filter(|(_, fit)| fit.should_run).map(|(node, _)| node);
        self.pods.keys().chain(wanted).collect()
    }

    fn pods_on(&self, node: &str) -> &[Arc<PodView>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    fn replace(&self, max_unavailable: usize) -> Plan {
        let (mut unavailable, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
        for node in self.involved() {
            match self.sort(self.pods_on(node)) {
                Some((Some(new), None)) => unavailable += usize::from(!self.is_available(new)),
                // Nothing is lost by replacing what does not work.
                Some((None, Some(old))) if !self.is_available(old) => broken.push(Arc::clone(old)),
                Some((None, Some(old))) => candidates.push(Arc::clone(old)),
                // The next pass makes this one pod, or none.
                _ => unavailable += 1,
            }
        }
        candidates.truncate(max_unavailable.saturating_sub(unavailable));
        broken.extend(candidates);
        Plan { delete: broken, ..Plan::default() }
    }

    fn surge(&self, max_surge: usize) -> Plan {
        let (mut surged, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
        let mut delete = Vec::new();
        for node in self.involved() {
            match self.sort(self.pods_on(node)) {
                None => surged += 1,
                Some((_, None)) => {}
                Some((None, Some(old))) => {
                    if !self.nodes.get(node).is_some_and(|fit| fit.should_run) {
                        continue;
                    }
                    let list = if self.is_available(old) { &mut candidates } else { &mut broken };
                    list.push(node.clone());
                }
                Some((Some(new), Some(_))) if !self.is_available(new) => surged += 1,
                Some((Some(_), Some(old))) => delete.push(Arc::clone(old)),
            }
        }
        candidates.truncate(max_surge.saturating_sub(surged));
        broken.extend(candidates);
        Plan { delete, create: broken, ..Plan::default() }
    }

    /// The new and the old pod of a node; nothing when there are several of one sort.
    fn sort<'p>(&self, pods: &'p [Arc<PodView>]) -> Option<NewAndOld<'p>> {
        let alive = pods.iter().filter(|pod| pod.deleted.is_none());
        let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| self.is_updated(pod));
        (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
    }

    /// The status, but for what the server or history keep in it. A generation is observed only
    /// by a pass that has acted on it.
    pub(super) fn status(&self, has_acted: bool) -> DaemonSetStatus {
        let known = self.set.status.clone().unwrap_or_default();
        let mut status = DaemonSetStatus {
            collision_count: known.collision_count,
            conditions: known.conditions,
            observed_generation: if has_acted {
                self.set.metadata.generation
            } else {
                known.observed_generation
            },
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (node, fit) in &self.nodes {
            let first = self.pods_on(node).first();
            if !fit.should_run {
                status.number_misscheduled += i32::from(first.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = first else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pod.ready);
            available += i32::from(self.is_available(pod));
            updated += i32::from(self.is_updated(pod));
        }
        let some = |number: i32| (number > 0).then_some(number);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn scaled(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
