//! What is to be done about the pods of a StatefulSet, from what there is.
//!
//! Upstream: `updateStatefulSet` in `pkg/controller/statefulset/stateful_set_control.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::HASH;
use super::identity::{is_labelled, ordinal, replicas, start, templates};
use crate::pod_view::PodView;

/// Everything a plan is made of.
pub(super) struct View<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) pods: &'a [Arc<PodView>],
    /// The names of the revisions.
    pub(super) current: &'a str,
    pub(super) update: &'a str,
    pub(super) now: Timestamp,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A pod and its claims are missing; the pod is of the current revision, or of the new one.
    Create { ordinal: i64, is_current: bool },
    /// Claims of a pod that has not started may be missing.
    Claims { ordinal: i64 },
    /// A pod has lost what says who it is.
    Relabel(Arc<PodView>),
    /// The claims of a pod may have other owners than the retention policy wants.
    Owners { ordinal: i64, pod: Arc<PodView> },
    /// A pod has to go.
    Delete(Arc<PodView>),
}

/// What to do, and what there is.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In this order where the set is ordered; beside each other otherwise.
    pub(super) steps: Vec<Step>,
    pub(super) counts: Counts,
    /// When a pod becomes available that nothing else will tell of.
    pub(super) wait: Option<Duration>,
    /// Of a set that may be updated: how many pods may be unavailable, and how many are.
    pub(super) room: Option<(usize, usize)>,
}

/// The place of an ordinal, and the pod in it.
type Place<'a> = (i64, Option<&'a Arc<PodView>>);

/// The pods within the ordinals, by ordinal, and the others with the highest ordinal first.
struct Parted<'a> {
    wanted: Vec<Place<'a>>,
    surplus: Vec<(i64, &'a Arc<PodView>)>,
}

/// Numbers of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) current: i32,
    pub(super) updated: i32,
}

impl View<'_> {
    /// Whether pods come and go one after the other.
    pub(super) fn is_ordered(&self) -> bool {
        let policy = self.set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref());
        policy != Some("Parallel")
    }

    /// What to do now.
    pub(super) fn plan(&self) -> Plan {
        let Parted { wanted, surplus } = self.parted();
        let mut plan = Plan { counts: self.counts(), wait: self.wait(), ..Plan::default() };
        if self.set.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let is_blocked =
            self.scale_up(&wanted, &mut plan) || self.scale_down(&wanted, &surplus, &mut plan);
        if !is_blocked && self.strategy() != "OnDelete" {
            self.roll(&wanted, &mut plan);
        }
        plan
    }

    fn parted(&self) -> Parted<'_> {
        let name = self.set.metadata.name.as_deref().unwrap_or_default();
        let (first, count) = (start(self.set), replicas(self.set));
        let mut wanted: Vec<_> = (first..first + count).map(|ordinal| (ordinal, None)).collect();
        let mut surplus = Vec::new();
        for pod in self.pods {
            let Some(number) = ordinal(name, &pod.key.name) else { continue };
            match usize::try_from(number - first).ok().and_then(|at| wanted.get_mut(at)) {
                Some(place) => place.1 = Some(pod),
                None => surplus.push((number, pod)),
            }
        }
        surplus.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Parted { wanted, surplus }
    }

    /// Sees to the pods that should be there; whether nothing else may happen before they are.
    fn scale_up(&self, wanted: &[Place<'_>], plan: &mut Plan) -> bool {
        let is_ordered = self.is_ordered();
        let mut is_blocked = false;
        for (ordinal, pod) in wanted {
            let ordinal = *ordinal;
            let Some(pod) = pod else {
                plan.steps.push(Step::Create { ordinal, is_current: self.is_current(ordinal) });
                if is_ordered {
                    return true;
                }
                continue;
            };
            if pod.is_terminal() {
                // Another one comes when it is gone.
                if pod.deleted.is_none() {
                    plan.steps.push(Step::Delete(Arc::clone(pod)));
                }
                if is_ordered {
                    return true;
                }
                is_blocked = true;
                continue;
            }
            if pod.phase == "Pending" && self.has_claims() {
                plan.steps.push(Step::Claims { ordinal });
            }
            if is_ordered && (pod.deleted.is_some() || !self.is_available(pod)) {
                return true;
            }
            if !is_labelled(pod) {
                plan.steps.push(Step::Relabel(Arc::clone(pod)));
            }
            if self.has_claims() {
                plan.steps.push(Step::Owners { ordinal, pod: Arc::clone(pod) });
            }
        }
        is_blocked
    }

    /// Sees to the pods that should not be there; whether nothing else may happen before they are
    /// gone.
    fn scale_down(
        &self,
        wanted: &[Place<'_>],
        surplus: &[(i64, &Arc<PodView>)],
        plan: &mut Plan,
    ) -> bool {
        let is_ordered = self.is_ordered();
        let condemned = surplus.iter().rev().map(|(_, pod)| *pod);
        let mut present = wanted.iter().filter_map(|(_, pod)| *pod).chain(condemned);
        let first_unhealthy = present.find(|pod| self.is_unavailable(pod));
        if self.has_claims() {
            let owners = |(ordinal, pod): &(i64, &Arc<PodView>)| Step::Owners {
                ordinal: *ordinal,
                pod: Arc::clone(pod),
            };
            plan.steps.extend(surplus.iter().map(owners));
        }
        let mut is_blocked = false;
        for (_, pod) in surplus {
            if pod.deleted.is_some() {
                if is_ordered {
                    return true;
                }
                continue;
            }
            let is_first = first_unhealthy.is_some_and(|first| Arc::ptr_eq(first, pod));
            if is_ordered && !self.is_available(pod) && !is_first {
                return true;
            }
            plan.steps.push(Step::Delete(Arc::clone(pod)));
            if is_ordered {
                return true;
            }
            is_blocked = true;
        }
        is_blocked
    }

    /// Lets old pods go from the highest ordinal down: one after the other, each only when those
    /// above it are available; or as many at once as may be missing.
    fn roll(&self, wanted: &[Place<'_>], plan: &mut Plan) {
        let rolling = self.rolling();
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let above = usize::try_from(partition).unwrap_or(0);
        let most = max_unavailable(rolling, wanted.len());
        let is_missing =
            |pod: &Option<&Arc<PodView>>| pod.is_none_or(|pod| self.is_unavailable(pod));
        let missing = wanted.iter().filter(|(_, pod)| is_missing(pod)).count();
        plan.room = Some((most, missing));
        let mut left = if most == 1 { 1 } else { most.saturating_sub(missing) };
        for (_, pod) in wanted.iter().skip(above).rev() {
            if left == 0 {
                return;
            }
            let Some(pod) = pod else {
                if most == 1 {
                    return;
                }
                continue;
            };
            if !self.is_of(pod, self.update) && pod.deleted.is_none() {
                plan.steps.push(Step::Delete(Arc::clone(pod)));
                plan.counts.current -= i32::from(self.is_of(pod, self.current));
                left -= 1;
            } else if most == 1 && self.is_unavailable(pod) {
                return;
            }
        }
    }

    /// Whether a new pod with this ordinal is of the current revision.
    fn is_current(&self, ordinal: i64) -> bool {
        if self.strategy() != "RollingUpdate" {
            return false;
        }
        let below = match self.rolling().and_then(|rolling| rolling.partition) {
            Some(partition) => partition,
            None => {
                let status = self.set.status.as_ref();
                status.and_then(|status| status.current_replicas).unwrap_or(0)
            }
        };
        ordinal < start(self.set) + i64::from(below)
    }

    fn has_claims(&self) -> bool {
        !templates(self.set).is_empty()
    }

    fn strategy(&self) -> &str {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    fn rolling(&self) -> Option<&RollingUpdateStatefulSetStrategy> {
        self.set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn is_ready(pod: &PodView) -> bool {
        pod.phase == "Running" && pod.ready
    }

    fn is_available(&self, pod: &PodView) -> bool {
        Self::is_ready(pod) && pod.is_available(self.min_ready(), self.now)
    }

    fn is_unavailable(&self, pod: &PodView) -> bool {
        !self.is_available(pod) || pod.deleted.is_some()
    }

    fn is_of(&self, pod: &PodView, revision: &str) -> bool {
        pod.labels.get(HASH).is_some_and(|hash| hash == revision)
    }

    fn counts(&self) -> Counts {
        let name = self.set.metadata.name.as_deref().unwrap_or_default();
        let mut counts = Counts::default();
        for pod in self.pods.iter().filter(|pod| ordinal(name, &pod.key.name).is_some()) {
            counts.replicas += 1;
            counts.ready += i32::from(Self::is_ready(pod));
            counts.available += i32::from(self.is_available(pod));
            if pod.deleted.is_none() {
                counts.current += i32::from(self.is_of(pod, self.current));
                counts.updated += i32::from(self.is_of(pod, self.update));
            }
        }
        counts
    }

    fn wait(&self) -> Option<Duration> {
        let ready = self.pods.iter().filter(|pod| Self::is_ready(pod));
        let later = ready.filter_map(|pod| pod.available_at(self.min_ready()));
        let next = later.filter(|at| *at > self.now).min()?;
        Duration::try_from(next.duration_since(self.now)).ok()
    }
}

/// How many pods may be missing while the set is updated; at least one.
fn max_unavailable(rolling: Option<&RollingUpdateStatefulSetStrategy>, count: usize) -> usize {
    let most = match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
        None => 1,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<usize>().ok());
            // Upstream rounds down here.
            percent.unwrap_or(0).saturating_mul(count) / 100
        }
    };
    most.max(1)
}

#[cfg(test)]
mod tests;
