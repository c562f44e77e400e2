//! What selectors say of pods that share their labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use meta::LabelSelector;

use crate::node_info::Group;

/// Labels by key.
pub(crate) type Labels = BTreeMap<String, String>;

/// What one selector says of the labels of pods, asked once for each set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    /// By the address of a set, which whoever holds the snapshot keeps alive. Nobody chooses
    /// addresses, so the hash need not withstand anybody; it is taken for each group of each node.
    known: HashMap<usize, bool, FixedState>,
}

impl Verdicts {
    /// How many pods of a namespace the selector selects.
    pub(crate) fn count(
        &mut self,
        selector: &LabelSelector,
        namespace: &str,
        groups: &[Group],
    ) -> i64 {
        groups
            .iter()
            .filter(|Group { labels, .. }| {
                let known = self.known.entry(Arc::as_ptr(labels).addr());
                *known.or_insert_with(|| selects(selector, labels))
            })
            .filter(|group| group.like.key.namespace == namespace)
            .map(|group| group.count)
            .sum()
    }
}

/// Whether a selector selects what has these labels.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.matches(|key| labels.get(key).map(String::as_str))
}
