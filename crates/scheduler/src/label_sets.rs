//! Labels of pods, kept once for all pods that have the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use meta::LabelSelector;

use crate::node_info::Group;

/// Labels by key.
pub(crate) type Labels = BTreeMap<String, String>;

/// Below this many sets it is not worth looking for those that nobody uses any more.
const SWEEP_MIN: usize = 1024;

/// All sets of labels that pods have. Pods of one workload share theirs, so that what a selector
/// says of one need not be asked for the next.
#[derive(Debug, Default)]
pub(crate) struct LabelSets {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sets: HashSet<Arc<Labels>>,
    /// How many sets make a sweep due.
    sweep_at: usize,
}

impl LabelSets {
    /// The one set that is equal to `labels`.
    pub(crate) fn share(&self, labels: Arc<Labels>) -> Arc<Labels> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.sets.get(&labels) {
            return Arc::clone(found);
        }
        if known.sets.len() >= known.sweep_at.max(SWEEP_MIN) {
            known.sets.retain(|set| Arc::strong_count(set) > 1);
            known.sweep_at = 2 * known.sets.len();
        }
        known.sets.insert(Arc::clone(&labels));
        labels
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(app: usize) -> Arc<Labels> {
        Arc::new(BTreeMap::from([("app".to_owned(), app.to_string())]))
    }

    #[test]
    fn equal_sets_are_one() {
        let sets = LabelSets::default();
        let first = sets.share(labels(1));
        assert!(Arc::ptr_eq(&first, &sets.share(labels(1))));
        assert!(!Arc::ptr_eq(&first, &sets.share(labels(2))));
    }

    #[test]
    fn sets_that_nobody_uses_are_forgotten() {
        let sets = LabelSets::default();
        let kept = sets.share(labels(0));
        for app in 1..10 * SWEEP_MIN {
            sets.share(labels(app));
        }
        assert!(sets.known.lock().unwrap().sets.len() <= SWEEP_MIN);
        assert!(Arc::ptr_eq(&kept, &sets.share(labels(0))));
    }
}
