//! Runs programs.
//!
//! Every step is charged as upstream charges it: one for a name, a field or a plain function, more
//! for what looks at texts and makes lists. `&&` and `||` pass over a mistake on one side when the
//! other decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::activation::Activation;
use crate::budget::Budget;
use crate::charge;
use crate::error::{EvaluationError, Outcome};
use crate::fold;
use crate::plan::{Called, Node};
use crate::value::key::Key;
use crate::value::{Entries, Made, Value};

/// How deep an evaluation may go, composed variables included; it bounds the stack.
const MAX_DEPTH: usize = 600;
/// What making a list, a map and an object costs. Upstream: cel-go's `common/cost.go`.
pub(crate) const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const OBJECT_COST: u64 = 40;

pub(crate) fn eval<'a>(
    node: &Node,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<Value<'a>> {
    match node {
        Node::Value(value) => return Ok(value.clone()),
        Node::Variable(at) => {
            budget.charge(1)?;
            return activation.value(*at);
        }
        Node::Local(at) => {
            budget.charge(1)?;
            let value = activation.locals.get(*at).cloned();
            return value.ok_or(EvaluationError::NoSuchOverload);
        }
        _ => {}
    }
    if activation.depth >= MAX_DEPTH {
        return Err(EvaluationError::failed("evaluation is nested too deeply"));
    }
    activation.depth += 1;
    let outcome = inner(node, activation, budget);
    activation.depth -= 1;
    outcome
}

fn inner<'a>(
    node: &Node,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<Value<'a>> {
    match node {
        Node::Select { operand, field } => {
            let operand = eval(operand, activation, budget)?;
            budget.charge(1)?;
            select(&operand, field)
        }
        Node::Test { operand, field } => {
            let operand = eval(operand, activation, budget)?;
            test(&operand, field).map(Value::Bool)
        }
        Node::OptionalSelect { operand, field } => {
            let operand = eval(operand, activation, budget)?;
            budget.charge(1)?;
            optional_select(&operand, field)
        }
        Node::And(sides) => logical(sides, false, activation, budget),
        Node::Or(sides) => logical(sides, true, activation, budget),
        Node::Conditional(parts) => match eval(&parts[0], activation, budget)? {
            Value::Bool(true) => eval(&parts[1], activation, budget),
            Value::Bool(false) => eval(&parts[2], activation, budget),
            _ => Err(EvaluationError::NoSuchOverload),
        },
        Node::Equals(sides, wanted) => {
            let left = eval(&sides[0], activation, budget)?;
            let right = eval(&sides[1], activation, budget)?;
            budget.charge(charge::equality(&left, &right))?;
            Ok(Value::Bool(left.equals(&right) == *wanted))
        }
        Node::Call(called) => call(called, activation, budget),
        Node::Matches { text, regex, cost } => {
            let text = eval(text, activation, budget)?;
            let Value::String(text) = &text else { return Err(EvaluationError::NoSuchOverload) };
            budget.charge(charge::text_cost(text).saturating_mul(*cost))?;
            Ok(Value::Bool(regex.is_match(text)))
        }
        Node::Composed(at) => {
            // The name `variables` and the field.
            budget.charge(2)?;
            activation.composed(*at, budget)
        }
        Node::Fold(folded) => fold::fold(folded, activation, budget),
        Node::Bind { value, body } => {
            let value = eval(value, activation, budget)?;
            activation.locals.push(value);
            let outcome = eval(body, activation, budget);
            activation.locals.pop();
            outcome
        }
        _ => make(node, activation, budget),
    }
}

fn make<'a>(
    node: &Node,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<Value<'a>> {
    match node {
        Node::List(items) => {
            let mut made = Vec::with_capacity(items.len());
            for (item, is_optional) in items {
                let item = eval(item, activation, budget)?;
                made.extend(present(item, *is_optional)?);
            }
            budget.charge(LIST_COST)?;
            Ok(Value::list(made))
        }
        Node::Map(entries) => {
            let mut made = Entries::new();
            for (key, value, is_optional) in entries {
                let key = eval(key, activation, budget)?;
                let value = eval(value, activation, budget)?;
                if let Some(value) = present(value, *is_optional)? {
                    // The last one of several counts.
                    made.insert(key_of(&key)?, value);
                }
            }
            budget.charge(MAP_COST)?;
            Ok(Value::Map(Arc::new(made)))
        }
        Node::Object { ty, fields } => {
            let mut made = BTreeMap::new();
            for (name, value, is_optional) in fields {
                let value = eval(value, activation, budget)?;
                if let Some(value) = present(value, *is_optional)? {
                    made.insert(name.clone(), value);
                }
            }
            budget.charge(OBJECT_COST)?;
            Ok(Value::Object(Arc::new(Made { ty: ty.clone(), fields: made })))
        }
        _ => Err(EvaluationError::NoSuchOverload),
    }
}

pub(crate) fn insert<'a>(
    entries: &mut Entries<'a>,
    key: &Value<'a>,
    value: Value<'a>,
) -> Outcome<()> {
    let key = key_of(key)?;
    if entries.contains_key(&key) {
        let key = crate::library::strings::plain(&key.to_value());
        return Err(EvaluationError::failed(format!("insert failed: key {key} already exists")));
    }
    entries.insert(key, value);
    Ok(())
}

fn key_of<'a>(key: &Value<'a>) -> Outcome<Key<'a>> {
    let found = match key {
        Value::Double(_) => None,
        key => Key::of(key),
    };
    found.ok_or_else(|| {
        EvaluationError::failed(format!("unsupported key type: {}", key.type_name()))
    })
}

/// What is in an optional item; `None` when there is nothing.
fn present<'a>(value: Value<'a>, is_optional: bool) -> Outcome<Option<Value<'a>>> {
    match (is_optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Value::Optional(inner)) => Ok(inner.map(|inner| (*inner).clone())),
        (true, other) => Err(EvaluationError::failed(format!(
            "cannot initialize optional entry from non-optional value {}",
            crate::library::strings::plain(&other)
        ))),
    }
}

fn select<'a>(operand: &Value<'a>, field: &Arc<str>) -> Outcome<Value<'a>> {
    if let Value::Optional(inner) = operand {
        return match inner {
            Some(inner) => optional_select(inner, field),
            None => Ok(Value::Optional(None)),
        };
    }
    match operand.field(field)? {
        Some(value) => Ok(value),
        None => Err(EvaluationError::NoSuchKey(field.clone())),
    }
}

fn test(operand: &Value<'_>, field: &Arc<str>) -> Outcome<bool> {
    match operand {
        Value::Optional(Some(inner)) => test(inner, field),
        Value::Optional(None) => Ok(false),
        operand => Ok(operand.field(field)?.is_some()),
    }
}

fn optional_select<'a>(operand: &Value<'a>, field: &Arc<str>) -> Outcome<Value<'a>> {
    match operand {
        Value::Optional(Some(inner)) => optional_select(inner, field),
        Value::Optional(None) => Ok(Value::Optional(None)),
        operand => Ok(operand.field(field)?.map_or(Value::Optional(None), Value::some)),
    }
}

/// `&&` and `||`: the value that decides, wherever it is, comes before a mistake.
fn logical<'a>(
    sides: &[Node; 2],
    decisive: bool,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<Value<'a>> {
    let left = eval(&sides[0], activation, budget);
    match &left {
        Ok(Value::Bool(value)) if *value == decisive => return left,
        Err(why) if why.is_final() => return left,
        _ => {}
    }
    let right = eval(&sides[1], activation, budget);
    match (left, right) {
        (_, Ok(Value::Bool(value))) if value == decisive => Ok(Value::Bool(decisive)),
        (_, Err(why)) if why.is_final() => Err(why),
        (Err(why), _) | (Ok(Value::Bool(_)), Err(why)) => Err(why),
        (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decisive)),
        _ => Err(EvaluationError::NoSuchOverload),
    }
}

fn call<'a>(
    called: &Called,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<Value<'a>> {
    // Most functions have one or two arguments, for which no list is made.
    match &called.args[..] {
        [one] => {
            let args = [eval(one, activation, budget)?];
            finish(called, &args, budget)
        }
        [one, two] => {
            let args = [eval(one, activation, budget)?, eval(two, activation, budget)?];
            finish(called, &args, budget)
        }
        more => {
            let args: Outcome<Vec<Value<'a>>> =
                more.iter().map(|arg| eval(arg, activation, budget)).collect();
            finish(called, &args?, budget)
        }
    }
}

fn finish<'a>(called: &Called, args: &[Value<'a>], budget: &mut Budget<'_>) -> Outcome<Value<'a>> {
    // What can be told from the arguments is charged before the work is done.
    budget.charge(called.charge.before(args))?;
    let result = (called.run)(args).map_err(|why| named(called, args, why))?;
    let after = called.charge.after(&result);
    if after > 0 {
        budget.charge(after)?;
    }
    Ok(result)
}

/// Functions that upstream finds by the type of their first argument, and those that look at their
/// arguments themselves. All others are found by the types of all arguments, which are then told.
const BY_FIRST: [&str; 12] =
    ["_+_", "_-_", "_*_", "_/_", "_%_", "_<_", "_<=_", "_>_", "_>=_", "!_", "-_", "size"];
const BY_THEMSELVES: [&str; 7] =
    ["contains", "startsWith", "endsWith", "matches", "@in", "_[_]", "_[?_]"];

/// Upstream's words for a function that does not take such arguments.
fn named(called: &Called, args: &[Value<'_>], why: EvaluationError) -> EvaluationError {
    let name = &*called.name;
    if why != EvaluationError::NoSuchOverload || BY_THEMSELVES.contains(&name) {
        return why;
    }
    if BY_FIRST.contains(&name) {
        return match args.first() {
            Some(first) if takes(name, first) => why,
            _ => EvaluationError::failed(format!("no such overload: {name}")),
        };
    }
    let types: Vec<_> = args.iter().map(Value::type_name).collect();
    EvaluationError::failed(format!("no such overload: {name}({})", types.join(", ")))
}

/// Whether an operator is one of the type of a value, whatever the other operand is.
fn takes(operator: &str, value: &Value<'_>) -> bool {
    let is_number = matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    let is_text = matches!(value, Value::String(_) | Value::Bytes(_));
    let is_time = matches!(value, Value::Timestamp(_) | Value::Duration(_));
    match operator {
        "_+_" => is_number || is_text || is_time || value.items().is_some(),
        "_-_" => is_number || is_time,
        "_*_" | "_/_" => is_number,
        "_%_" => matches!(value, Value::Int(_) | Value::Uint(_)),
        "_<_" | "_<=_" | "_>_" | "_>=_" => {
            is_number || is_text || is_time || matches!(value, Value::Bool(_))
        }
        _ => false,
    }
}
