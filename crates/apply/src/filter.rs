//! What of a write counts: a resource, or one of its parts, lets only some fields be changed.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::element::Element;
use crate::set::{Branch, FieldSet};

/// Metadata that nobody owns; nothing is below it.
pub(crate) static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata", "clusterName"],
        &["metadata", "creationTimestamp"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "resourceVersion"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
    ])
});

/// The same, and metadata itself.
pub(crate) static STRIPPED: LazyLock<FieldSet> =
    LazyLock::new(|| UNOWNED.union(&FieldSet::of(&[&["metadata"]])));

/// Which fields a write through some resource can own.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// All but these, and what is below them.
    Except(FieldSet),
    /// These, what is above and what is below them; `*` stands for any step.
    Only(Vec<&'static [&'static str]>),
}

impl Filter {
    /// All but these paths, each given as names of fields.
    pub fn except(paths: &[&[&'static str]]) -> Self {
        if paths.is_empty() { Self::All } else { Self::Except(FieldSet::of(paths)) }
    }

    /// What a creator cannot own: this, and what nobody owns. `None` when only some fields count.
    pub(crate) fn except_new(&self) -> Option<Cow<'static, FieldSet>> {
        match self {
            Self::All => Some(Cow::Borrowed(&*UNOWNED)),
            Self::Except(except) => Some(Cow::Owned(UNOWNED.union(except))),
            Self::Only(_) => None,
        }
    }

    /// What of a set counts.
    pub(crate) fn apply(&self, set: FieldSet) -> FieldSet {
        match self {
            _ if set.is_empty() => set,
            Self::All => set,
            Self::Except(except) => set.recursive_difference(except),
            Self::Only(patterns) => only(&set, patterns),
        }
    }
}

fn only(set: &FieldSet, patterns: &[&[&str]]) -> FieldSet {
    let mut out = FieldSet::default();
    for node in set.nodes() {
        let fits = |first: &str| match &node.element {
            _ if first == "*" => true,
            Element::Field(name) => name == first,
            _ => false,
        };
        let below: Vec<&[&str]> = patterns
            .iter()
            .filter_map(|pattern| pattern.split_first())
            .filter(|(first, _)| fits(first))
            .map(|(_, rest)| rest)
            .collect();
        let branch = match below.iter().any(|rest| rest.is_empty()) {
            true => node.branch.clone(),
            false if below.is_empty() => continue,
            false => {
                Branch { is_member: node.branch.is_member, below: only(&node.branch.below, &below) }
            }
        };
        out.attach(&node.element, branch);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &Filter, text: &str, expected: &str) {
        let set = FieldSet::from_fields_v1(text).unwrap();
        assert_eq!(filter.apply(set).to_fields_v1(), expected);
    }

    #[test]
    fn fields_are_left_out_with_what_is_below_them() {
        check(
            &Filter::except(&[&["status"], &["metadata", "labels"]]),
            r#"{"f:metadata":{"f:labels":{"f:a":{}},"f:x":{}},"f:status":{"f:a":{}}}"#,
            r#"{"f:metadata":{"f:x":{}}}"#,
        );
    }

    #[test]
    fn only_what_matches_a_pattern_is_left() {
        check(
            &Filter::Only(vec![&["spec", "containers", "*", "resources"]]),
            r#"{"f:spec":{"f:a":{},"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:resources":{"f:x":{}}}}}}"#,
            r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:resources":{"f:x":{}}}}}}"#,
        );
    }
}
