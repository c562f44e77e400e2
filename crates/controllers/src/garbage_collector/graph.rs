//! Who owns whom, and what follows from it.
//!
//! Invariants: `dependents` holds exactly the reverse of the nodes' owner references; owners that
//! were never seen have dependents but no node.
//!
//! Every object of the cluster is here, so what many have in common is kept once.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use meta::{GroupVersion, GroupVersionResource, ObjectKey, OwnerReference};

/// Owners that are known to be absent: upstream's size of that cache.
const ABSENT_MAX: usize = 500;

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) uid: Arc<str>,
    pub(super) resource: Arc<Resource>,
    pub(super) key: ObjectKey,
    pub(super) owners: Arc<Vec<OwnerReference>>,
    /// Whether it is being deleted.
    pub(super) deleting: bool,
    /// Whether, when deleted, it waits for its dependents to go.
    pub(super) foreground: bool,
    /// Whether, when deleted, its dependents stay.
    pub(super) orphans: bool,
}

/// Where objects of a kind are.
#[derive(Debug, PartialEq)]
pub(super) struct Resource {
    pub(super) gvr: GroupVersionResource,
    pub(super) kind: String,
}

impl Resource {
    pub(super) fn api_version(&self) -> String {
        GroupVersion::new(&*self.gvr.group, &*self.gvr.version).to_string()
    }
}

impl Node {
    fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion)
    }
}

/// Work on one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Task {
    /// See whether the object with this uid has to go.
    Delete(String),
    /// Free the dependents of the object with this uid.
    Orphan(String),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(uid) => write!(f, "delete {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It exists.
    Present,
    /// It does not.
    Absent,
    /// It exists, and waits for its dependents to go.
    Waiting,
}

/// What has to happen to an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Keep,
    /// It stays for the sake of an owner, but these others are gone or going.
    DropOwners(BTreeSet<String>),
    /// It goes, its dependents before it; with `unblock` it no longer holds up its owners.
    DeleteForeground {
        /// Whether the object is part of a circle.
        unblock: bool,
    },
    /// It goes.
    Delete,
}

/// The objects of the cluster.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<Arc<str>, Arc<Node>>,
    dependents: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    absent: HashSet<(String, String)>,
    absent_order: VecDeque<(String, String)>,
}

impl Graph {
    pub(super) fn node(&self, uid: &str) -> Option<Arc<Node>> {
        self.nodes.get(uid).cloned()
    }

    /// Takes over an object; gives what has to be looked at.
    pub(super) fn upsert(&mut self, node: Arc<Node>) -> Vec<Task> {
        let mut tasks = BTreeSet::new();
        let before = self.nodes.get(&node.uid).cloned();
        for owner in before.iter().flat_map(|node| node.owners.iter()) {
            self.unlink(&owner.uid, &node.uid);
        }
        for owner in node.owners.iter() {
            self.link(&owner.uid, &node.uid);
            let known = self.nodes.get(&*owner.uid);
            // An owner that is unknown or waits may mean that this object has to go.
            if known.is_none_or(|owner| owner.foreground) {
                tasks.insert(delete(&node.uid));
            }
        }
        for owner in before.iter().flat_map(|node| node.owners.iter()) {
            let freed = !node.blocks(&owner.uid);
            if freed && self.nodes.get(&*owner.uid).is_some_and(|owner| owner.foreground) {
                tasks.insert(delete(&owner.uid));
            }
        }
        let was = before.as_ref();
        if node.orphans && !was.is_some_and(|node| node.orphans) {
            tasks.insert(Task::Orphan(node.uid.to_string()));
        }
        if node.foreground && !was.is_some_and(|node| node.foreground) {
            tasks.insert(delete(&node.uid));
            let dependents = self.dependents.get(&node.uid).into_iter().flatten();
            tasks.extend(dependents.map(|uid| delete(uid)));
        }
        if was.is_some_and(|was| was.owners != node.owners) {
            tasks.insert(delete(&node.uid));
        }
        self.nodes.insert(Arc::clone(&node.uid), node);
        tasks.into_iter().collect()
    }

    /// Takes over that an object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Task> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut tasks = BTreeSet::new();
        for owner in node.owners.iter() {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&*owner.uid).is_some_and(|owner| owner.foreground) {
                tasks.insert(delete(&owner.uid));
            }
        }
        let dependents = self.dependents.get(uid).into_iter().flatten();
        tasks.extend(dependents.map(|dependent| delete(dependent)));
        tasks.into_iter().collect()
    }

    /// Forgets a resource that is not served any more.
    pub(super) fn remove_resource(&mut self, gvr: &GroupVersionResource) -> Vec<Task> {
        let of = self.nodes.values().filter(|node| node.resource.gvr == *gvr);
        let gone: Vec<_> = of.map(|node| Arc::clone(&node.uid)).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// The objects that name `uid` as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Arc<Node>> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid)).cloned().collect()
    }

    /// The dependents for which `uid` has to wait, and whether each waits for its own.
    pub(super) fn blocking_dependents(&self, uid: &str) -> Vec<(String, bool)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        let nodes = uids.filter_map(|uid| self.nodes.get(uid));
        nodes.filter(|node| node.blocks(uid)).map(|n| (n.uid.to_string(), n.foreground)).collect()
    }

    /// What the graph itself knows of an owner; `None` when the server has to be asked.
    pub(super) fn owner_state(&self, node: &Node, owner: &OwnerReference) -> Option<OwnerState> {
        if self.absent.contains(&(owner.uid.clone(), node.key.namespace.clone())) {
            return Some(OwnerState::Absent);
        }
        let found = self.nodes.get(&*owner.uid)?;
        // An owner is in the same namespace or in none; the name must be right as well.
        let reachable = found.key.namespace.is_empty() || found.key.namespace == node.key.namespace;
        if !reachable || found.key.name != owner.name || found.resource.kind != owner.kind {
            return None;
        }
        Some(if found.foreground { OwnerState::Waiting } else { OwnerState::Present })
    }

    /// Remembers that an owner does not exist: a uid is never used again.
    pub(super) fn note_absent(&mut self, owner: &OwnerReference, namespace: &str) {
        let entry = (owner.uid.clone(), namespace.to_owned());
        if self.absent.insert(entry.clone()) {
            self.absent_order.push_back(entry);
        }
        while self.absent_order.len() > ABSENT_MAX {
            let Some(oldest) = self.absent_order.pop_front() else { return };
            self.absent.remove(&oldest);
        }
    }

    /// Decides, from the state of an object's owners.
    pub(super) fn fate(&self, uid: &str, owners: &[(OwnerReference, OwnerState)]) -> Fate {
        let of = |state: OwnerState| owners.iter().filter(move |(_, found)| *found == state);
        if of(OwnerState::Present).next().is_some() {
            let gone = of(OwnerState::Absent).chain(of(OwnerState::Waiting));
            let gone: BTreeSet<String> = gone.map(|(owner, _)| owner.uid.clone()).collect();
            return if gone.is_empty() { Fate::Keep } else { Fate::DropOwners(gone) };
        }
        if owners.is_empty() {
            return Fate::Keep;
        }
        let dependents = self.dependents(uid);
        if of(OwnerState::Waiting).next().is_some() && !dependents.is_empty() {
            let unblock = dependents.iter().any(|dependent| dependent.foreground);
            return Fate::DeleteForeground { unblock };
        }
        Fate::Delete
    }

    fn link(&mut self, owner: &str, dependent: &Arc<str>) {
        let dependents = match self.dependents.get_mut(owner) {
            Some(dependents) => dependents,
            None => self.dependents.entry(owner.into()).or_default(),
        };
        dependents.insert(Arc::clone(dependent));
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn delete(uid: &str) -> Task {
    Task::Delete(uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "K".to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            controller: false,
            block_owner_deletion: block,
        }
    }

    fn node(uid: &str, owners: &[&str]) -> Node {
        let gvr = GroupVersionResource::new("", "v1", "ks");
        let owners = owners.iter().map(|uid| owner(uid, true)).collect();
        Node {
            uid: uid.into(),
            resource: Arc::new(Resource { gvr, kind: "K".to_owned() }),
            key: ObjectKey::new("n", uid),
            owners: Arc::new(owners),
            deleting: false,
            foreground: false,
            orphans: false,
        }
    }

    fn foreground(uid: &str, owners: &[&str]) -> Node {
        Node { deleting: true, foreground: true, ..node(uid, owners) }
    }

    #[test]
    fn dependents_of_what_is_gone_are_looked_at() {
        let mut graph = Graph::default();
        assert!(graph.upsert(node("rs", &[]).into()).is_empty());
        assert!(graph.upsert(node("pod", &["rs"]).into()).is_empty());
        assert_eq!(graph.remove("rs"), [delete("pod")]);
        assert_eq!(graph.upsert(node("late", &["rs"]).into()), [delete("late")]);
    }

    #[test]
    fn foreground_deletion_goes_down_first_and_up_again() {
        let mut graph = Graph::default();
        graph.upsert(node("rs", &[]).into());
        graph.upsert(node("pod", &["rs"]).into());
        assert_eq!(graph.upsert(foreground("rs", &[]).into()), [delete("pod"), delete("rs")]);
        assert_eq!(graph.blocking_dependents("rs"), [("pod".to_owned(), false)]);
        assert_eq!(graph.remove("pod"), [delete("rs")]);
        assert!(graph.blocking_dependents("rs").is_empty());
    }

    #[test]
    fn an_object_stays_for_one_owner_and_drops_the_others() {
        let graph = Graph::default();
        let owners = [
            (owner("a", true), OwnerState::Present),
            (owner("b", true), OwnerState::Waiting),
            (owner("c", true), OwnerState::Absent),
        ];
        let gone = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
        assert_eq!(graph.fate("x", &owners), Fate::DropOwners(gone));
        assert_eq!(graph.fate("x", &owners[..1]), Fate::Keep);
        assert_eq!(graph.fate("x", &owners[1..]), Fate::Delete);
    }

    #[test]
    fn a_circle_is_broken() {
        let mut graph = Graph::default();
        graph.upsert(foreground("a", &["b"]).into());
        graph.upsert(node("b", &["a"]).into());
        let fate = graph.fate("b", &[(owner("a", true), OwnerState::Waiting)]);
        assert_eq!(fate, Fate::DeleteForeground { unblock: true });
    }

    #[test]
    fn an_owner_in_another_namespace_does_not_count() {
        let mut graph = Graph::default();
        graph.upsert(node("a", &[]).into());
        let mut other = node("b", &["a"]);
        assert_eq!(graph.owner_state(&other, &owner("a", true)), Some(OwnerState::Present));
        other.key.namespace = "other".to_owned();
        assert_eq!(graph.owner_state(&other, &owner("a", true)), None);
        graph.note_absent(&owner("a", true), "other");
        assert_eq!(graph.owner_state(&other, &owner("a", true)), Some(OwnerState::Absent));
    }

    #[test]
    fn orphaning_is_asked_for_once() {
        let mut graph = Graph::default();
        let orphaning = Node { deleting: true, orphans: true, ..node("a", &[]) };
        assert_eq!(graph.upsert(orphaning.clone().into()), [Task::Orphan("a".to_owned())]);
        assert!(graph.upsert(orphaning.into()).is_empty());
    }
}
