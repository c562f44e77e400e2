//! What differs between two objects, as sets of fields.
//!
//! The objects are working forms: what Go always prints is not in them but counts as there, so that
//! an owner of `.spec` is not made by the first who writes into it. One walk over both; where they
//! are the same nothing is kept.

use schema::{Field, Kind, Type};
use serde_json::{Map, Value};

use crate::element::Element;
use crate::scalar::same;
use crate::set::{Branch, FieldSet};
use crate::shape::{Atom, ListShape, MapShape, Relation, Shape};

/// The paths in which two objects differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Only in the second.
    pub added: FieldSet,
    /// In both, with other values.
    pub modified: FieldSet,
    /// Only in the first.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Applies a function to each of the sets.
    #[must_use]
    pub(crate) fn map(self, change: impl Fn(FieldSet) -> FieldSet) -> Self {
        Self {
            added: change(self.added),
            modified: change(self.modified),
            removed: change(self.removed),
        }
    }
}

/// Compares two working forms of a type; absent is an object with nothing in it.
pub fn compare(ty: &Type, before: Option<&Value>, after: Option<&Value>) -> Comparison {
    let walk = Walk { prints_zeros: true };
    walk.value(Shape::of(ty), Side::of(before), Side::of(after)).into_comparison()
}

/// Compares two values in which everything is there that counts.
pub(crate) fn compare_complete(ty: &Type, before: &Value, after: &Value) -> Comparison {
    let (before, after) = (Side::Given(before), Side::Given(after));
    Walk { prints_zeros: false }.value(Shape::of(ty), before, after).into_comparison()
}

struct Walk {
    /// Whether fields that Go always prints are there although they are absent.
    prints_zeros: bool,
}

/// A value on one side.
#[derive(Clone, Copy)]
enum Side<'v> {
    Absent,
    /// Not in the working form, but always printed.
    Zero,
    Given(&'v Value),
}

impl<'v> Side<'v> {
    fn of(value: Option<&'v Value>) -> Self {
        value.map_or(Self::Zero, Self::Given)
    }

    fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }

    fn value(self) -> Option<&'v Value> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Zero => None,
        }
    }

    fn map(self) -> Option<&'v Map<String, Value>> {
        self.value().and_then(Value::as_object)
    }

    fn list(self) -> &'v [Value] {
        self.value().and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Given(a), Self::Given(b)) => same(a, b),
            (Self::Zero, Self::Zero) | (Self::Absent, Self::Absent) => true,
            (Self::Given(given), Self::Zero) | (Self::Zero, Self::Given(given)) => is_zero(given),
            _ => false,
        }
    }
}

/// Whether a value is what Go prints for nothing.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_zero),
    }
}

#[derive(Default)]
struct Diff {
    added: Branch,
    modified: Branch,
    removed: Branch,
}

impl Diff {
    fn into_comparison(self) -> Comparison {
        Comparison {
            added: self.added.below,
            modified: self.modified.below,
            removed: self.removed.below,
        }
    }

    fn attach(&mut self, element: &Element, diff: Self) {
        self.added.below.attach(element, diff.added);
        self.modified.below.attach(element, diff.modified);
        self.removed.below.attach(element, diff.removed);
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Marks a value that is compared as a whole.
    fn leaf(&mut self, before: Side<'_>, after: Side<'_>) {
        if before.is_absent() {
            self.added.is_member = true;
        } else if after.is_absent() {
            self.removed.is_member = true;
        } else if !before.is_same(after) {
            self.modified.is_member = true;
        }
    }
}

impl Walk {
    fn value(&self, shape: Shape<'_>, before: Side<'_>, after: Side<'_>) -> Diff {
        let mut diff = Diff::default();
        // Most of an object that is written again is as it was.
        if let (Side::Given(before), Side::Given(after)) = (before, after)
            && same(before, after)
        {
            return diff;
        }
        let (left, right) = (shape.atom(before.value()), shape.atom(after.value()));
        if before.value().is_none() || (after.value().is_some() && left.is_like(&right)) {
            self.atom(right, before, after, &mut diff);
        } else if after.value().is_none() {
            self.atom(left, before, after, &mut diff);
        } else {
            // Another sort of value: what was goes, what comes is new.
            self.atom(left, before, after, &mut diff);
            self.atom(right, before, after, &mut diff);
        }
        if before.is_absent() {
            diff.added.is_member = true;
        } else if after.is_absent() {
            diff.removed.is_member = true;
        }
        diff
    }

    fn atom(&self, atom: Atom<'_>, before: Side<'_>, after: Side<'_>, diff: &mut Diff) {
        match atom {
            Atom::Scalar(_) => diff.leaf(before, after),
            Atom::List(list) => {
                let is_empty = before.list().is_empty() && after.list().is_empty();
                if matches!(list.relation, Relation::Atomic) || is_empty {
                    diff.leaf(before, after);
                } else {
                    self.items(list, before.list(), after.list(), diff);
                }
            }
            Atom::Map(map) => {
                let is_empty = self.is_empty(map, before) && self.is_empty(map, after);
                if map.is_atomic || is_empty {
                    diff.leaf(before, after);
                } else {
                    self.members(map, before, after, diff);
                }
            }
        }
    }

    fn is_empty(&self, shape: MapShape<'_>, side: Side<'_>) -> bool {
        let is_empty = side.map().is_none_or(Map::is_empty);
        is_empty && !(self.has_zeros(side) && shape.table().is_some_and(prints_anything))
    }

    fn has_zeros(&self, side: Side<'_>) -> bool {
        let is_struct = match side {
            Side::Absent => false,
            Side::Zero => true,
            Side::Given(value) => value.is_object(),
        };
        self.prints_zeros && is_struct
    }

    fn members(&self, shape: MapShape<'_>, before: Side<'_>, after: Side<'_>, diff: &mut Diff) {
        let empty = Map::new();
        let (left, right) = (before.map().unwrap_or(&empty), after.map().unwrap_or(&empty));
        let (left_zeros, right_zeros) = (self.has_zeros(before), self.has_zeros(after));
        let mut compare = |name: &str, a: Option<&Value>, b: Option<&Value>| {
            let Some((member, field)) = shape.find(name) else { return };
            let side = |value, zeros| self.side(field, value, zeros);
            let (a, b) = (side(a, left_zeros), side(b, right_zeros));
            if a.is_absent() && b.is_absent() {
                return;
            }
            let below = self.value(member, a, b);
            if !below.is_empty() {
                let name = field.map_or_else(|| name.to_owned().into(), |f| f.name.clone());
                diff.attach(&Element::Field(name), below);
            }
        };
        let mut others = right.iter().peekable();
        for (name, value) in left {
            while let Some((other, theirs)) = others.next_if(|(other, _)| *other < name) {
                compare(other, None, Some(theirs));
            }
            let theirs = others.next_if(|(other, _)| *other == name);
            compare(name, Some(value), theirs.map(|(_, value)| value));
        }
        for (name, value) in others {
            compare(name, None, Some(value));
        }
        // Zeros on both sides are the same.
        if left_zeros == right_zeros {
            return;
        }
        let Some(ty) = shape.table() else { return };
        let is_given = |name: &str| left.contains_key(name) || right.contains_key(name);
        for field in ty.always_printed() {
            if !is_given(&field.name) {
                compare(&field.name, None, None);
            }
        }
    }

    fn side<'v>(&self, field: Option<&Field>, value: Option<&'v Value>, zeros: bool) -> Side<'v> {
        let (Some(field), true) = (field, self.prints_zeros) else {
            return value.map_or(Side::Absent, Side::Given);
        };
        match value {
            Some(value) if field.prints(value) => Side::Given(value),
            _ if zeros && field.is_always_printed() => Side::Zero,
            _ => Side::Absent,
        }
    }

    fn items(&self, list: ListShape<'_>, before: &[Value], after: &[Value], diff: &mut Diff) {
        let by_element = |items| group(list, items);
        let (left, right) = (by_element(before), by_element(after));
        let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
        loop {
            let (element, a, b) = match (left.peek(), right.peek()) {
                (None, None) => return,
                (Some(a), Some(b)) if a.0 == b.0 => {
                    let (Some(a), Some(b)) = (left.next(), right.next()) else { return };
                    (a.0, a.1, b.1)
                }
                (Some(a), other) if other.is_none_or(|b| a.0 < b.0) => {
                    let Some(a) = left.next() else { return };
                    (a.0, a.1, Vec::new())
                }
                _ => {
                    let Some(b) = right.next() else { return };
                    (b.0, Vec::new(), b.1)
                }
            };
            let below = self.item(list.item, &a, &b);
            diff.attach(&element, below);
        }
    }

    /// Items that cannot be told apart are one value together.
    fn item(&self, shape: Shape<'_>, before: &[&Value], after: &[&Value]) -> Diff {
        match (before.len(), after.len()) {
            (0 | 1, 0 | 1) => self.value(shape, only(before), only(after)),
            (0 | 1, _) => {
                let mut diff = match before {
                    [] => Diff::default(),
                    _ => self.value(shape, only(before), Side::Absent),
                };
                diff.added.is_member = true;
                diff
            }
            (_, 0 | 1) => {
                let mut diff = match after {
                    [] => Diff::default(),
                    _ => self.value(shape, Side::Absent, only(after)),
                };
                diff.removed.is_member = true;
                diff
            }
            _ => {
                let mut diff = Diff::default();
                let is_same = before.len() == after.len()
                    && before.iter().zip(after).all(|(a, b)| same(a, b));
                diff.modified.is_member = !is_same;
                diff
            }
        }
    }
}

fn only<'v>(items: &[&'v Value]) -> Side<'v> {
    items.first().map_or(Side::Absent, |item| Side::Given(item))
}

/// Items by what tells them apart, in its order; those that cannot be told are left out.
pub(crate) fn group<'v>(list: ListShape<'_>, items: &'v [Value]) -> Vec<(Element, Vec<&'v Value>)> {
    let told = |(at, item)| Some((list.element(at, item).ok()?, item));
    let mut told: Vec<(Element, &Value)> = items.iter().enumerate().filter_map(told).collect();
    told.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut found: Vec<(Element, Vec<&Value>)> = Vec::with_capacity(told.len());
    for (element, item) in told {
        match found.last_mut() {
            Some((last, items)) if *last == element => items.push(item),
            _ => found.push((element, vec![item])),
        }
    }
    found
}

/// Whether a struct prints anything when nothing is in it.
pub(crate) fn prints_anything(ty: &Type) -> bool {
    ty.always_printed().next().is_some()
}

/// A working form with everything in it that Go always prints.
pub(crate) fn complete(ty: &Type, object: Option<&Value>) -> Value {
    let empty = Map::new();
    Value::Object(complete_struct(ty, object.and_then(Value::as_object).unwrap_or(&empty)))
}

fn complete_struct(ty: &Type, map: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, value) in map {
        match ty.field(name) {
            Some(field) if field.prints(value) => {
                out.insert(name.clone(), complete_value(&field.kind, value));
            }
            Some(_) => {}
            None => {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    for field in ty.always_printed() {
        if out.contains_key(&*field.name) {
            continue;
        }
        if let Some(zero) = field.printed_zero() {
            out.insert(field.name.clone().into_owned(), complete_value(&field.kind, &zero));
        }
    }
    out
}

fn complete_value(kind: &Kind, value: &Value) -> Value {
    match (kind, value) {
        (Kind::Struct(ty), Value::Object(map)) => Value::Object(complete_struct(ty.get(), map)),
        (Kind::List(item), Value::Array(items)) => {
            Value::Array(items.iter().map(|value| complete_value(item, value)).collect())
        }
        (Kind::Map(item), Value::Object(map)) => {
            let members = map.iter().map(|(key, v)| (key.clone(), complete_value(item, v)));
            Value::Object(members.collect())
        }
        _ => value.clone(),
    }
}
