//! A configuration merged into an object, and fields taken out of one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::element::Element;
use crate::set::FieldSet;
use crate::shape::{Atom, ListShape, MapShape, Relation, Shape};

/// The live value with what the configuration says. A list keeps the order of the configuration,
/// and what only the live list has keeps its place among what both have.
///
/// # Errors
/// When the configuration has an item that cannot be told from another.
pub(crate) fn merge(shape: Shape<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    Ok(merged(shape, Some(live), Some(config))?.unwrap_or_default())
}

fn merged(
    shape: Shape<'_>,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Result<Option<Value>, String> {
    let whole = || Ok(config.or(live).cloned());
    let atom = shape.atom(config.or(live));
    let is_empty = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => true,
    };
    if is_empty(live) && is_empty(config) {
        return whole();
    }
    match atom {
        Atom::Scalar(_) => whole(),
        Atom::List(list) if matches!(list.relation, Relation::Atomic) => whole(),
        Atom::Map(map) if map.is_atomic => whole(),
        Atom::List(list) => merge_items(list, items(live), items(config)).map(Some),
        Atom::Map(map) => merge_members(map, members(live), members(config)).map(Some),
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn members(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn merge_members(
    shape: MapShape<'_>,
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
) -> Result<Value, String> {
    let mut out = Map::new();
    let value =
        |map: Option<&Map<String, Value>>, name: &str| map.and_then(|m| m.get(name)).cloned();
    let names = config.into_iter().chain(live).flat_map(Map::keys);
    for name in names {
        if out.contains_key(name) {
            continue;
        }
        let (ours, theirs) = (value(live, name), value(config, name));
        let member = match shape.member(name) {
            Some(member) => merged(member, ours.as_ref(), theirs.as_ref())?,
            None => theirs.or(ours),
        };
        if let Some(member) = member {
            out.insert(name.clone(), member);
        }
    }
    Ok(Value::Object(out))
}

struct Item<'v> {
    element: Element,
    value: &'v Value,
}

fn told<'v>(list: ListShape<'_>, items: &'v [Value]) -> Result<Vec<Item<'v>>, String> {
    let told = |(at, value)| Ok(Item { element: list.element(at, value)?, value });
    items.iter().enumerate().map(told).collect()
}

fn merge_items(list: ListShape<'_>, live: &[Value], config: &[Value]) -> Result<Value, String> {
    let (live, config) = (told(list, live)?, told(list, config)?);
    let in_config: BTreeSet<&Element> = config.iter().map(|item| &item.element).collect();
    let mut in_live: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for item in &live {
        // Of items that cannot be told apart none is merged with.
        in_live.entry(&item.element).and_modify(|one| *one = None).or_insert(Some(item.value));
    }
    let next_common = next_common(&config, &in_live);
    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut rest = live.iter().peekable();
    for (item, next) in config.iter().zip(next_common) {
        // What only the live list has comes before, up to where the next common item stands.
        while let Some(own) = rest.next_if(|own| next.is_none_or(|next| *next != own.element)) {
            if !in_config.contains(&own.element) {
                out.extend(merged(list.item, Some(own.value), None)?);
            }
        }
        let theirs = in_live.get(&item.element).copied().flatten();
        out.extend(merged(list.item, theirs, Some(item.value))?);
        rest.next_if(|own| own.element == item.element);
    }
    for own in rest.filter(|own| !in_config.contains(&own.element)) {
        out.extend(merged(list.item, Some(own.value), None)?);
    }
    Ok(Value::Array(out))
}

/// For each item of a configuration, the first one from there on that the live list has too.
fn next_common<'i>(
    config: &'i [Item<'_>],
    in_live: &BTreeMap<&Element, Option<&Value>>,
) -> Vec<Option<&'i Element>> {
    let mut next = None;
    let mut found: Vec<Option<&Element>> = config
        .iter()
        .rev()
        .map(|item| {
            if in_live.contains_key(&item.element) {
                next = Some(&item.element);
            }
            next
        })
        .collect();
    found.reverse();
    found
}

/// The value without the fields of a set. What has nothing left is null.
pub(crate) fn without(shape: Shape<'_>, value: &Value, set: &FieldSet) -> Value {
    if set.is_empty() {
        return value.clone();
    }
    match (shape.atom(Some(value)), value) {
        (Atom::Scalar(_), _) => value.clone(),
        (Atom::List(list), Value::Array(items)) if !matches!(list.relation, Relation::Atomic) => {
            let mut kept = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                let branch =
                    list.element(at, item).ok().and_then(|step| set.branch(&step).cloned());
                match branch {
                    Some(branch) if branch.is_member => {}
                    Some(branch) => kept.push(without(list.item, item, &branch.below)),
                    None => kept.push(item.clone()),
                }
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Atom::Map(map), Value::Object(members)) if !map.is_atomic => {
            let mut kept = Map::new();
            for (name, member) in members {
                let left = match set.branch(&Element::Field(name.clone().into())) {
                    Some(branch) if branch.is_member => continue,
                    Some(branch) => match map.member(name) {
                        Some(shape) => without(shape, member, &branch.below),
                        None => member.clone(),
                    },
                    None => member.clone(),
                };
                kept.insert(name.clone(), left);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        _ => Value::Null,
    }
}
