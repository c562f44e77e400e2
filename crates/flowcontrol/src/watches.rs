//! How many watchers hear of a write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Watches that are open, by group and resource, then by namespace.
#[derive(Debug, Default)]
pub struct Watches(Mutex<HashMap<String, Counts>>);

#[derive(Debug, Default)]
struct Counts {
    everywhere: u32,
    by_namespace: HashMap<String, u32>,
}

/// An open watch; it is counted until it is dropped.
#[derive(Debug)]
pub struct Watched {
    watches: Arc<Watches>,
    resource: String,
    namespace: String,
}

impl Watches {
    /// Counts a watch of a resource, such as `deployments.apps`, in a namespace or all of them.
    pub fn open(self: &Arc<Self>, resource: String, namespace: &str) -> Watched {
        {
            let mut counts = self.lock();
            let counts = counts.entry(resource.clone()).or_default();
            match namespace {
                "" => counts.everywhere += 1,
                _ => *counts.by_namespace.entry(namespace.to_owned()).or_default() += 1,
            }
        }
        Watched { watches: Arc::clone(self), resource, namespace: namespace.to_owned() }
    }

    /// Who hears of a write to an object of this resource in this namespace.
    pub fn interested(&self, resource: &str, namespace: &str) -> u32 {
        let counts = self.lock();
        let Some(counts) = counts.get(resource) else { return 0 };
        counts.everywhere + counts.by_namespace.get(namespace).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.watches.lock();
        let Some(counts) = all.get_mut(&self.resource) else { return };
        if self.namespace.is_empty() {
            counts.everywhere -= 1;
        } else if let Some(count) = counts.by_namespace.get_mut(&self.namespace) {
            *count -= 1;
            if *count == 0 {
                counts.by_namespace.remove(&self.namespace);
            }
        }
        if counts.everywhere == 0 && counts.by_namespace.is_empty() {
            all.remove(&self.resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_count_while_they_are_open() {
        let watches = Arc::new(Watches::default());
        let all = watches.open("pods".to_owned(), "");
        let some = watches.open("pods".to_owned(), "a");
        assert_eq!(watches.interested("pods", "a"), 2);
        assert_eq!(watches.interested("pods", "b"), 1);
        assert_eq!(watches.interested("nodes", ""), 0);
        drop(all);
        assert_eq!(watches.interested("pods", "a"), 1);
        drop(some);
        assert!(watches.lock().is_empty());
    }
}
