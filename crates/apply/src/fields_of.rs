//! The fields that a configuration sets.

use serde_json::{Map, Value};

use crate::compare::group;
use crate::element::Element;
use crate::set::{Branch, FieldSet};
use crate::shape::{Atom, ListShape, MapShape, Relation, Shape};

/// The fields that are set in a value in which everything is there that counts.
pub(crate) fn fields_of(shape: Shape<'_>, value: &Value) -> FieldSet {
    branch_of(shape, value).below
}

fn branch_of(shape: Shape<'_>, value: &Value) -> Branch {
    let mut branch = Branch::default();
    match shape.atom(Some(value)) {
        Atom::Scalar(_) => branch.is_member = true,
        Atom::List(list) if matches!(list.relation, Relation::Atomic) => branch.is_member = true,
        Atom::List(list) => items(list, value.as_array().map_or(&[], Vec::as_slice), &mut branch),
        Atom::Map(map) if map.is_atomic => branch.is_member = true,
        Atom::Map(map) => {
            if let Value::Object(members_of) = value {
                members(map, members_of, &mut branch);
            }
        }
    }
    branch
}

fn members(shape: MapShape<'_>, map: &Map<String, Value>, branch: &mut Branch) {
    for (name, value) in map {
        let Some(member) = shape.member(name) else { continue };
        let mut below = branch_of(member, value);
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        // Who sets anything in a field of a struct does not own the field.
        below.is_member |= is_empty || !shape.is_named(name);
        branch.below.attach(&Element::Field(name.clone().into()), below);
    }
}

fn items(list: ListShape<'_>, items: &[Value], branch: &mut Branch) {
    for (element, items) in group(list, items) {
        let mut below = match items.as_slice() {
            [item] => branch_of(list.item, item),
            // Those that cannot be told apart are owned together.
            _ => Branch::default(),
        };
        below.is_member = true;
        branch.below.attach(&element, below);
    }
}

/// The set with the fields of structs in it that something in the set lies below.
pub(crate) fn with_named_fields(set: &FieldSet, shape: Option<Shape<'_>>) -> FieldSet {
    let mut out = FieldSet::default();
    let atom = shape.map(|shape| shape.atom(None));
    for node in set.nodes() {
        let (is_named, below) = match (&node.element, atom) {
            (Element::Field(name), Some(Atom::Map(map))) => (map.is_named(name), map.member(name)),
            (Element::Key(_), Some(Atom::List(list))) => (false, Some(list.item)),
            _ => (false, None),
        };
        let is_inner = !node.branch.below.is_empty();
        let branch = Branch {
            is_member: node.branch.is_member || (is_inner && is_named),
            below: with_named_fields(&node.branch.below, below),
        };
        out.attach(&node.element, branch);
    }
    out
}

/// The set with nothing below what is one value; `None` when there is nothing.
pub(crate) fn as_whole_values(set: &FieldSet, shape: Option<Shape<'_>>) -> Option<FieldSet> {
    let mut out = FieldSet::default();
    let mut is_changed = false;
    for node in set.nodes() {
        let below = below(&node.element, shape);
        let is_whole = match below.map(|below| below.atom(None)) {
            Some(Atom::Map(map)) => map.is_atomic,
            Some(Atom::List(list)) => matches!(list.relation, Relation::Atomic),
            Some(Atom::Scalar(_)) | None => false,
        };
        let mut branch = node.branch.clone();
        if is_whole && !branch.below.is_empty() {
            branch = Branch { is_member: true, below: FieldSet::default() };
            is_changed = true;
        } else if let Some(set) = as_whole_values(&branch.below, below) {
            branch.below = set;
            is_changed = true;
        }
        out.attach(&node.element, branch);
    }
    is_changed.then_some(out)
}

/// The type of what a step leads to.
fn below<'s>(element: &Element, shape: Option<Shape<'s>>) -> Option<Shape<'s>> {
    match (element, shape?.atom(None)) {
        (Element::Field(name), Atom::Map(map)) => map.member(name),
        (Element::Key(_) | Element::Value(_), Atom::List(list)) => Some(list.item),
        _ => None,
    }
}
