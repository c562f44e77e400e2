//! What keeps something from ending, as the cache and the server know it.

use client::Outcome;
use k8s_openapi::api::core::v1::Pod;

use crate::cluster::Informers;
use crate::selection::key_of;

/// What is in the way of an end. That nothing is, is believed the server only: a cache may not have
/// seen what came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InTheWay {
    /// Nothing.
    Nothing,
    /// Something that the cache has: when it goes, there is an event.
    Known,
    /// Something that only the server has told of: it may go before the cache has ever had it, and
    /// nobody tells of that.
    Unseen,
}

impl InTheWay {
    /// What the server has told of is in the way.
    pub(crate) fn of(is_known: bool) -> Self {
        if is_known { Self::Known } else { Self::Unseen }
    }

    /// The same of pods.
    pub(crate) fn of_pods<'a>(informers: &Informers, pods: impl Iterator<Item = &'a Pod>) -> Self {
        let is_known = |pod: &Pod| {
            let known = informers.pods.get(&key_of(&pod.metadata));
            known.is_some_and(|known| Some(&known.uid) == pod.metadata.uid.as_ref())
        };
        // As long as one is known, its event is a reason to look again.
        let all = pods.map(|pod| Self::of(is_known(pod)));
        all.reduce(|one, other| one.min(other)).unwrap_or(Self::Nothing)
    }

    /// When it is to be looked at again.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Nothing | Self::Known => Outcome::Done,
            Self::Unseen => Outcome::Requeue,
        }
    }
}
