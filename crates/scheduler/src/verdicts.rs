//! What selectors say of pods that share their labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meta::LabelSelector;

use crate::node_info::Group;

/// Labels by key.
pub(crate) type Labels = BTreeMap<String, String>;

/// What one selector says of the labels of pods, asked once for each set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    /// By the address of a set, which whoever holds the snapshot keeps alive.
    known: HashMap<usize, bool>,
}

impl Verdicts {
    /// Asks about all labels of these groups.
    pub(crate) fn learn(&mut self, selector: &LabelSelector, groups: &[Group]) {
        for Group { like, .. } in groups {
            let address = Arc::as_ptr(&like.labels).addr();
            self.known.entry(address).or_insert_with(|| selects(selector, &like.labels));
        }
    }

    /// How many pods of a namespace the selector selects.
    pub(crate) fn count(&self, selector: &LabelSelector, namespace: &str, groups: &[Group]) -> i64 {
        let is_selected = |labels: &Arc<Labels>| {
            let known = self.known.get(&Arc::as_ptr(labels).addr()).copied();
            known.unwrap_or_else(|| selects(selector, labels))
        };
        groups
            .iter()
            .filter(|group| group.like.key.namespace == namespace)
            .filter(|group| is_selected(&group.like.labels))
            .map(|group| group.count)
            .sum()
    }
}

/// Whether a selector selects what has these labels.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.matches(|key| labels.get(key).map(String::as_str))
}
