//! Values of which there are many copies, kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Below this number of values it is not worth looking for those that nobody uses any more.
const SWEEP_MIN: usize = 1024;

/// The values that somebody holds, and some that nobody does: at most as many again, or
/// 1,024.
#[derive(Debug)]
pub struct Interner<T> {
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    values: HashSet<Arc<T>>,
    /// How many values make a sweep due.
    sweep_at: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { known: Mutex::new(Known { values: HashSet::new(), sweep_at: SWEEP_MIN }) }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The one value that is equal to this one.
    pub fn share(&self, value: T) -> Arc<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.values.get(&value) {
            return Arc::clone(found);
        }
        if known.values.len() >= known.sweep_at {
            known.values.retain(|value| Arc::strong_count(value) > 1);
            known.sweep_at = SWEEP_MIN.max(2 * known.values.len());
        }
        let value = Arc::new(value);
        known.values.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let values = Interner::default();
        let first = values.share("a".to_owned());
        assert!(Arc::ptr_eq(&first, &values.share("a".to_owned())));
        assert!(!Arc::ptr_eq(&first, &values.share("b".to_owned())));
    }

    #[test]
    fn values_that_nobody_uses_are_forgotten() {
        let values = Interner::default();
        let kept = values.share(0);
        for value in 1..10 * SWEEP_MIN {
            values.share(value);
        }
        assert!(values.known.lock().unwrap().values.len() <= SWEEP_MIN);
        assert!(Arc::ptr_eq(&kept, &values.share(0)));
    }
}
