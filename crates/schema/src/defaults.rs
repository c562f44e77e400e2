//! Defaulting of the built-in kinds, one file per group.
//!
//! A walk over the object by its table, parents first as upstream does it. What applies at a struct
//! is looked up once per table and kept: constant rules (`field` gets `value` when it is absent; in
//! the working form that includes Go's zero) and a function where logic is needed. Subtrees that
//! hold nothing to default are not entered.

mod admissionregistration;
mod apiextensions;
mod apps;
mod autoscaling;
mod batch;
mod core;
mod flowcontrol;
mod networking;
mod pod;
mod rbac;
mod storage;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, RwLock};

use meta::{GroupVersionKind, Quantity};
use serde_json::{Map, Value};

use crate::registry;
use crate::table::{Kind, Type};

/// A constant default: type, field, JSON.
type Rule = (&'static str, &'static str, &'static str);
/// Defaults of one type that need logic.
type Logic = (&'static str, fn(&mut Map<String, Value>));

static RULES: [&[Rule]; 11] = [
    admissionregistration::RULES,
    apiextensions::RULES,
    apps::RULES,
    autoscaling::RULES,
    batch::RULES,
    core::RULES,
    flowcontrol::RULES,
    networking::RULES,
    pod::RULES,
    rbac::RULES,
    storage::RULES,
];
static LOGIC: [&[Logic]; 8] = [
    apiextensions::LOGIC,
    apps::LOGIC,
    autoscaling::LOGIC,
    batch::LOGIC,
    core::LOGIC,
    networking::LOGIC,
    pod::LOGIC,
    rbac::LOGIC,
];

/// Fills in what upstream's defaulting fills in, in the working form.
pub fn apply_defaults(gvk: &GroupVersionKind, object: &mut Value) {
    let (Some(ty), Value::Object(map)) = (registry().kind(gvk), object) else { return };
    walk(ty, map);
}

/// What happens at one struct.
struct Plan {
    rules: Vec<(&'static str, Value)>,
    logic: Option<fn(&mut Map<String, Value>)>,
    /// Fields whose values hold something to default.
    descend: Vec<usize>,
    /// Fields that are resource lists, whose quantities are rounded up to thousandths.
    resource_lists: Vec<usize>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.rules.is_empty()
            && self.logic.is_none()
            && self.descend.is_empty()
            && self.resource_lists.is_empty()
    }
}

/// Plans by the path of the type; only of built-in types, so there is a fixed number.
static PLANS: LazyLock<RwLock<HashMap<&'static str, &'static Plan>>> =
    LazyLock::new(Default::default);

fn plan(ty: &'static Type) -> &'static Plan {
    let path: &'static str = &ty.path;
    let unpoisoned = std::sync::PoisonError::into_inner;
    if let Some(plan) = PLANS.read().unwrap_or_else(unpoisoned).get(path) {
        return plan;
    }
    let made: &'static Plan = Box::leak(Box::new(make_plan(ty)));
    PLANS.write().unwrap_or_else(std::sync::PoisonError::into_inner).entry(path).or_insert(made)
}

fn make_plan(ty: &'static Type) -> Plan {
    let rules = RULES.iter().flat_map(|rules| rules.iter());
    let logic = LOGIC.iter().flat_map(|logic| logic.iter());
    let own = stable_path(&ty.path);
    let is_resource_list = |at: &usize| &*ty.fields()[*at].go_type == "v1.ResourceList";
    let positions = || 0..ty.fields().len();
    Plan {
        rules: rules
            .filter(|(path, ..)| *path == own)
            .filter_map(|(_, field, json)| Some((*field, serde_json::from_str(json).ok()?)))
            .collect(),
        logic: logic.filter(|(path, _)| *path == own).map(|(_, logic)| *logic).next(),
        descend: positions()
            .filter(|at| {
                inner(&ty.fields()[*at].kind)
                    .is_some_and(|inner| has_defaults(inner, &mut HashSet::from([&*ty.path])))
            })
            .collect(),
        resource_lists: positions().filter(is_resource_list).collect(),
    }
}

/// The path of a type in its group's stable version: what is served on demand in an earlier one
/// has the same defaults.
fn stable_path(path: &str) -> Cow<'_, str> {
    let parts = path.split_once('/').and_then(|(group, rest)| Some((group, rest.split_once('.')?)));
    match parts {
        Some((group, (version, name))) if version.contains("alpha") || version.contains("beta") => {
            format!("{group}/v1.{name}").into()
        }
        _ => path.into(),
    }
}

/// Whether a struct or anything in it has something to default.
fn has_defaults(ty: &'static Type, seen: &mut HashSet<&'static str>) -> bool {
    if !seen.insert(&ty.path) {
        return false;
    }
    let own = stable_path(&ty.path);
    let named = |path: &str| path == own;
    RULES.iter().any(|rules| rules.iter().any(|(path, ..)| named(path)))
        || LOGIC.iter().any(|logic| logic.iter().any(|(path, _)| named(path)))
        || ty.fields().iter().any(|field| {
            &*field.go_type == "v1.ResourceList"
                || inner(&field.kind).is_some_and(|inner| has_defaults(inner, seen))
        })
}

/// The built-in struct in a field, through lists and maps.
fn inner(kind: &Kind) -> Option<&'static Type> {
    match kind {
        Kind::Struct(crate::table::TypeRef::Builtin(index)) => Some(registry().at(*index)),
        Kind::List(item) | Kind::Map(item) => inner(item),
        _ => None,
    }
}

fn walk(ty: &'static Type, map: &mut Map<String, Value>) {
    let plan = plan(ty);
    if plan.is_empty() {
        return;
    }
    for (field, value) in &plan.rules {
        if !map.contains_key(*field) {
            map.insert((*field).to_owned(), value.clone());
        }
    }
    if let Some(logic) = plan.logic {
        logic(map);
    }
    for at in &plan.resource_lists {
        if let Some(Value::Object(list)) = map.get_mut(&*ty.fields()[*at].name) {
            round_quantities(list);
        }
    }
    for at in &plan.descend {
        let field = &ty.fields()[*at];
        match map.get_mut(&*field.name) {
            Some(value) => walk_value(&field.kind, value),
            // A struct that is not a pointer is there even when it is absent.
            None if !field.pointer => {
                if let Kind::Struct(inner) = &field.kind {
                    let mut fresh = Map::new();
                    if let crate::table::TypeRef::Builtin(index) = inner {
                        walk(registry().at(*index), &mut fresh);
                    }
                    if !fresh.is_empty() {
                        map.insert(field.name.clone().into_owned(), Value::Object(fresh));
                    }
                }
            }
            None => {}
        }
    }
}

fn walk_value(kind: &Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::Struct(crate::table::TypeRef::Builtin(index)), Value::Object(map)) => {
            walk(registry().at(*index), map);
        }
        (Kind::List(item), Value::Array(items)) => {
            items.iter_mut().for_each(|value| walk_value(item, value));
        }
        (Kind::Map(item), Value::Object(map)) => {
            map.values_mut().for_each(|value| walk_value(item, value));
        }
        _ => {}
    }
}

fn round_quantities(list: &mut Map<String, Value>) {
    for value in list.values_mut() {
        let Some(quantity) = value.as_str().and_then(|text| text.parse::<Quantity>().ok()) else {
            continue;
        };
        if !quantity.is_milli() {
            *value = Value::String(quantity.rounded_to_milli().to_string());
        }
    }
}

/// Sets a field that is absent.
fn fill(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if !map.contains_key(field) {
        map.insert(field.to_owned(), value.into());
    }
}

/// The object in a field, made if it is absent.
fn object<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object just above"),
    }
}

fn text<'a>(map: &'a Map<String, Value>, field: &str) -> &'a str {
    map.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A copy of the labels of `spec.template`, when there are any.
fn template_labels(map: &Map<String, Value>) -> Option<Value> {
    let labels = map.get("spec")?.get("template")?.get("metadata")?.get("labels")?;
    labels.as_object().filter(|labels| !labels.is_empty())?;
    Some(labels.clone())
}

/// Gives an object without labels those of its template.
fn labels_from_template(map: &mut Map<String, Value>) {
    let has_labels = map
        .get("metadata")
        .and_then(|metadata| metadata.get("labels"))
        .and_then(Value::as_object)
        .is_some_and(|labels| !labels.is_empty());
    if let (false, Some(labels)) = (has_labels, template_labels(map)) {
        object(map, "metadata").insert("labels".to_owned(), labels);
    }
}

#[cfg(test)]
mod tests;
