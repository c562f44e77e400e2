//! Sets of fields.

use std::fmt;

use crate::element::{Element, print};

/// A set of paths, kept as a tree. A path may be in the set without those above or below it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// In the order of their elements, none of them empty.
    nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) element: Element,
    pub(crate) branch: Branch,
}

/// What a set says about one path and those below it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Branch {
    /// Whether the path itself is in the set.
    pub(crate) is_member: bool,
    pub(crate) below: FieldSet,
}

impl Branch {
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl FieldSet {
    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many paths are in it.
    pub fn len(&self) -> usize {
        let of = |node: &Node| usize::from(node.branch.is_member) + node.branch.below.len();
        self.nodes.iter().map(of).sum()
    }

    /// The set of these paths, each given as names of fields.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let steps: Vec<Element> =
                path.iter().map(|&name| Element::field(name.to_owned())).collect();
            set.insert(&steps);
        }
        set
    }

    /// Puts a path in.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let branch = self.branch_mut(first.clone());
        match rest {
            [] => branch.is_member = true,
            rest => branch.below.insert(rest),
        }
    }

    /// Whether a path is in it.
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [one] => self.branch(one).is_some_and(|branch| branch.is_member),
            [first, rest @ ..] => {
                self.branch(first).is_some_and(|branch| branch.below.contains(rest))
            }
        }
    }

    /// Paths in one of the two.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b, true)
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut nodes = Vec::new();
        for node in &self.nodes {
            let Some(theirs) = other.branch(&node.element) else { continue };
            let branch = Branch {
                is_member: node.branch.is_member && theirs.is_member,
                below: node.branch.below.intersection(&theirs.below),
            };
            push(&mut nodes, &node.element, branch);
        }
        Self { nodes }
    }

    /// Paths that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b, false)
    }

    /// Paths that are not in the other, and not below one that is.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let branch = match other.branch(&node.element) {
                None => node.branch.clone(),
                Some(theirs) if theirs.is_member => continue,
                Some(theirs) => Branch {
                    is_member: node.branch.is_member,
                    below: node.branch.below.recursive_difference(&theirs.below),
                },
            };
            push(&mut nodes, &node.element, branch);
        }
        Self { nodes }
    }

    /// Paths with nothing below them.
    #[must_use]
    pub fn leaves(&self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let below = node.branch.below.leaves();
            let is_member = node.branch.is_member && node.branch.below.is_empty();
            push(&mut nodes, &node.element, Branch { is_member, below });
        }
        Self { nodes }
    }

    /// Every path, in upstream's order: at each level those that end there first.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn branch(&self, element: &Element) -> Option<&Branch> {
        let at = self.nodes.binary_search_by(|node| node.element.cmp(element)).ok()?;
        Some(&self.nodes[at].branch)
    }

    /// The branch at a field.
    pub(crate) fn branch_of_field(&self, name: &str) -> Option<&Branch> {
        let order = |node: &Node| match &node.element {
            Element::Field(other) => (**other).cmp(name),
            // Fields come first.
            _ => std::cmp::Ordering::Greater,
        };
        let at = self.nodes.binary_search_by(order).ok()?;
        Some(&self.nodes[at].branch)
    }

    /// Takes out the paths of another set.
    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.is_empty() || self.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            let Some(theirs) = other.branch(&node.element) else { return true };
            node.branch.is_member &= !theirs.is_member;
            node.branch.below.subtract(&theirs.below);
            !node.branch.is_empty()
        });
    }

    /// Puts in the paths of another set.
    pub(crate) fn absorb(&mut self, other: Self) {
        if self.is_empty() || other.is_empty() {
            self.nodes.extend(other.nodes);
            return;
        }
        let ours = std::mem::take(&mut self.nodes);
        let mut theirs = other.nodes.into_iter().peekable();
        self.nodes.reserve(ours.len() + theirs.len());
        for mut node in ours {
            while let Some(before) = theirs.next_if(|theirs| theirs.element < node.element) {
                self.nodes.push(before);
            }
            if let Some(same) = theirs.next_if(|theirs| theirs.element == node.element) {
                node.branch.is_member |= same.branch.is_member;
                node.branch.below.absorb(same.branch.below);
            }
            self.nodes.push(node);
        }
        self.nodes.extend(theirs);
    }

    /// The set of nodes in any order; of those of one element the last counts.
    pub(crate) fn from_nodes(mut nodes: Vec<Node>) -> Self {
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.reverse();
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|later, kept| later.element == kept.element);
        }
        Self { nodes }
    }

    /// The branch at an element, made if there is none; whoever asks puts something into it.
    pub(crate) fn branch_mut(&mut self, element: Element) -> &mut Branch {
        // Most sets are made in order.
        let is_last = self.nodes.last().is_none_or(|last| last.element < element);
        let found = match is_last {
            true => Err(self.nodes.len()),
            false => self.nodes.binary_search_by(|node| node.element.cmp(&element)),
        };
        let at = match found {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node { element, branch: Branch::default() });
                at
            }
        };
        &mut self.nodes[at].branch
    }

    /// Puts a branch where there is none yet.
    pub(crate) fn attach(&mut self, element: &Element, branch: Branch) {
        if !branch.is_empty() {
            *self.branch_mut(element.clone()) = branch;
        }
    }

    fn combine(&self, other: &Self, keeps: fn(bool, bool) -> bool, takes_theirs: bool) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut theirs = other.nodes.iter().peekable();
        for node in &self.nodes {
            while let Some(before) = theirs.next_if(|theirs| theirs.element < node.element) {
                if takes_theirs {
                    nodes.push(before.clone());
                }
            }
            let Some(same) = theirs.next_if(|theirs| theirs.element == node.element) else {
                nodes.push(node.clone());
                continue;
            };
            let branch = Branch {
                is_member: keeps(node.branch.is_member, same.branch.is_member),
                below: node.branch.below.combine(&same.branch.below, keeps, takes_theirs),
            };
            push(&mut nodes, &node.element, branch);
        }
        if takes_theirs {
            nodes.extend(theirs.cloned());
        }
        Self { nodes }
    }

    fn collect(&self, path: &mut Vec<Element>, found: &mut Vec<Vec<Element>>) {
        for node in self.nodes.iter().filter(|node| node.branch.is_member) {
            let mut here = path.clone();
            here.push(node.element.clone());
            found.push(here);
        }
        for node in self.nodes.iter().filter(|node| !node.branch.below.is_empty()) {
            path.push(node.element.clone());
            node.branch.below.collect(path, found);
            path.pop();
        }
    }
}

fn push(nodes: &mut Vec<Node>, element: &Element, branch: Branch) {
    if !branch.is_empty() {
        nodes.push(Node { element: element.clone(), branch });
    }
}

impl fmt::Debug for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.paths().iter().map(|path| print(path))).finish()
    }
}
