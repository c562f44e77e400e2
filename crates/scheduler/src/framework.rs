//! The points at which plugins take part in a decision.
//!
//! A plugin is pure: it sees the pod, the snapshot and what it noted in the [`CycleState`].

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// The highest score of a node for one plugin: upstream `MaxNodeScore`.
pub const SCORE_MAX: i64 = 100;

/// Why a node, or every node, is out of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Upstream's texts, as they are counted in the message of the event.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether the pod might fit if others left the node.
    pub resolvable: bool,
}

impl Rejection {
    /// A rejection that the departure of other pods might lift.
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// A rejection that no departure of pods can lift.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// What plugins note during one decision, by type.
#[derive(Clone, Default)]
pub struct CycleState {
    notes: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl CycleState {
    /// Notes a value.
    pub fn write<T: Any + Send + Sync>(&mut self, value: T) {
        self.notes.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// Reads a value noted before.
    pub fn read<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.notes.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Changes a value noted before.
    pub fn update<T: Any + Clone + Send + Sync>(&mut self, change: impl FnOnce(&mut T)) {
        if let Some(mut value) = self.read::<T>().cloned() {
            change(&mut value);
            self.write(value);
        }
    }
}

/// Something in the cluster that may make a rejected pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A node appeared.
    NodeAdded,
    /// A node's allocatable amounts changed.
    NodeAllocatable,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints or its cordon changed.
    NodeTaints,
    /// A pod was placed, or the labels of a placed one changed.
    PodPlaced,
    /// A placed pod left or needs less.
    PodLeft,
    /// The labels of a namespace changed.
    Namespace,
    /// A volume, claim, class or capacity appeared or changed.
    Volumes,
    /// A claim for devices appeared or changed.
    DeviceClaims,
    /// A node may take more volumes of a driver, or one was detached.
    VolumeLimits,
}

/// One plugin.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// How much its score counts.
    fn weight(&self) -> i64 {
        1
    }

    /// Whether the pod may be tried at all; the text says why not.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), String> {
        Ok(())
    }

    /// Prepares the filter. An error rejects every node.
    fn pre_filter(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        Ok(())
    }

    /// Whether the pod fits the node. Upstream's texts in upstream's order of checks.
    fn filter(
        &self,
        _state: &CycleState,
        _pod: &PodInfo,
        _node: &NodeInfo,
        _snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        Ok(())
    }

    /// Brings what [`Plugin::pre_filter`] noted up to date with a node whose pods changed, so that
    /// preemption can try what would be without them.
    fn node_changed(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _snapshot: &Snapshot,
        _before: &NodeInfo,
        _after: &NodeInfo,
    ) {
    }

    /// Prepares scores for the nodes that fit. `false` when this plugin has no preference.
    fn pre_score(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _snapshot: &Snapshot,
        _fitting: &[&NodeInfo],
    ) -> bool {
        false
    }

    /// How good the node is; any number if [`Plugin::normalize`] brings it into 0..=100.
    fn score(&self, _state: &CycleState, _pod: &PodInfo, _node: &NodeInfo) -> i64 {
        0
    }

    /// Brings the scores of all fitting nodes into 0..=100.
    fn normalize(&self, _state: &CycleState, _fitting: &[&NodeInfo], _scores: &mut [i64]) {}

    /// Whether a pod that this plugin rejected should be tried again after the event; after a change
    /// of the pod itself it always is.
    fn may_help(&self, _event: ClusterEvent) -> bool {
        true
    }
}

/// Scales scores so that the highest becomes 100; reversed, the highest becomes 0.
pub fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = if max == 0 { 0 } else { *score * SCORE_MAX / max };
        if reverse {
            *score = SCORE_MAX - *score;
        }
    }
}
