//! How many watchers hear of a write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Watches that are open, by group and resource.
#[derive(Debug, Default)]
pub struct Watches(Mutex<HashMap<String, Counts>>);

/// By namespace, and what of it is watched. Everywhere is the empty namespace.
type Counts = HashMap<(String, Part), u32>;

/// What a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All objects. Selectors do not matter: they are looked at all the same.
    All,
    /// The object of this name.
    Name(String),
    /// The pods of one node, which an index finds: a write reaches the watches of one node at most.
    Node(String),
}

/// An open watch; it is counted until it is dropped.
#[derive(Debug)]
pub struct Watched {
    watches: Arc<Watches>,
    resource: String,
    of: (String, Part),
}

impl Watches {
    /// Counts a watch of a resource, such as `deployments.apps`, in a namespace or all of them.
    pub fn open(self: &Arc<Self>, resource: String, namespace: &str, part: Part) -> Watched {
        let of = (namespace.to_owned(), part);
        *self.lock().entry(resource.clone()).or_default().entry(of.clone()).or_default() += 1;
        Watched { watches: Arc::clone(self), resource, of }
    }

    /// Who hears of a write to an object of this resource in this namespace; its name is empty when
    /// it is not known yet.
    pub fn interested(&self, resource: &str, namespace: &str, name: &str) -> u32 {
        let all = self.lock();
        let Some(counts) = all.get(resource) else { return 0 };
        let of = |namespace: &str, part: Part| {
            counts.get(&(namespace.to_owned(), part)).copied().unwrap_or(0)
        };
        let in_scope = |namespace: &str| {
            let named =
                if name.is_empty() { 0 } else { of(namespace, Part::Name(name.to_owned())) };
            of(namespace, Part::All) + named
        };
        let local = if namespace.is_empty() { 0 } else { in_scope(namespace) };
        in_scope("") + local
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.watches.lock();
        let Some(counts) = all.get_mut(&self.resource) else { return };
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
        if counts.is_empty() {
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
        let all = watches.open("pods".to_owned(), "", Part::All);
        let some = watches.open("pods".to_owned(), "a", Part::All);
        assert_eq!(watches.interested("pods", "a", "x"), 2);
        assert_eq!(watches.interested("pods", "b", "x"), 1);
        assert_eq!(watches.interested("nodes", "", ""), 0);
        drop(all);
        assert_eq!(watches.interested("pods", "a", ""), 1);
        drop(some);
        assert!(watches.lock().is_empty());
    }

    #[test]
    fn watches_of_one_object_hear_of_that_one() {
        let watches = Arc::new(Watches::default());
        let _one = watches.open("configmaps".to_owned(), "a", Part::Name("x".to_owned()));
        assert_eq!(watches.interested("configmaps", "a", "x"), 1);
        assert_eq!(watches.interested("configmaps", "a", "y"), 0);
        assert_eq!(watches.interested("configmaps", "a", ""), 0);
    }

    #[test]
    fn watches_of_nodes_are_not_those_of_every_pod() {
        let watches = Arc::new(Watches::default());
        let of_node = |n: u32| watches.open("pods".to_owned(), "", Part::Node(format!("n{n}")));
        let _nodes: Vec<Watched> = (0..5000).map(of_node).collect();
        assert_eq!(watches.interested("pods", "a", "x"), 0);
    }
}
