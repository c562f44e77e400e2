//! Loops over lists and maps.
//!
//! What a loop costs beside its expressions is what upstream's macros expand to: looking at the
//! accumulator, negating it, adding an item to a list.

use std::sync::Arc;

use crate::activation::Activation;
use crate::budget::Budget;
use crate::error::{EvaluationError, Outcome};
use crate::eval::{LIST_COST, eval, insert};
use crate::plan::Folded;
use crate::syntax::ast::FoldKind;
use crate::value::{Entries, Value};

/// What a loop makes, as it goes on.
enum Made<'a> {
    Bool(bool, Option<EvaluationError>),
    Count(u64),
    List(Vec<Value<'a>>),
    Map(Entries<'a>),
}

pub(crate) fn fold<'a>(
    folded: &Folded,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<Value<'a>> {
    let range = eval(&folded.range, activation, budget)?;
    let mut made = match folded.kind {
        FoldKind::All => Made::Bool(true, None),
        FoldKind::Exists => Made::Bool(false, None),
        FoldKind::ExistsOne => Made::Count(0),
        FoldKind::List => Made::List(Vec::new()),
        FoldKind::Map | FoldKind::MapEntry => Made::Map(Entries::new()),
    };
    let base = activation.locals.len();
    let outcome = run(folded, &range, &mut made, activation, budget);
    activation.locals.truncate(base);
    outcome?;
    // The accumulator is looked at once more.
    budget.charge(match (&folded.kind, &made) {
        (FoldKind::ExistsOne, _) => 2,
        (FoldKind::List, _) => 1 + LIST_COST,
        _ => 1,
    })?;
    match made {
        Made::Bool(_, Some(why)) => Err(why),
        Made::Bool(value, None) => Ok(Value::Bool(value)),
        Made::Count(count) => Ok(Value::Bool(count == 1)),
        Made::List(items) => Ok(Value::list(items)),
        Made::Map(entries) => Ok(Value::Map(Arc::new(entries))),
    }
}

fn run<'a>(
    folded: &Folded,
    range: &Value<'a>,
    made: &mut Made<'a>,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<()> {
    if let Some(items) = range.items() {
        for (at, item) in items.enumerate() {
            let at = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
            if !turn(folded, at, item, false, made, activation, budget)? {
                break;
            }
        }
        return Ok(());
    }
    let entries = range.entries().ok_or(EvaluationError::NoSuchOverload)?;
    for (key, value) in entries {
        if !turn(folded, key, value, true, made, activation, budget)? {
            break;
        }
    }
    Ok(())
}

/// One turn; whether to go on.
fn turn<'a>(
    folded: &Folded,
    key: Value<'a>,
    value: Value<'a>,
    is_map: bool,
    made: &mut Made<'a>,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<bool> {
    budget.charge(match folded.kind {
        FoldKind::All => 2,
        FoldKind::Exists => 3,
        _ => 0,
    })?;
    if let Made::Bool(value, None) = made
        && *value == (folded.kind == FoldKind::Exists)
    {
        return Ok(false);
    }
    let base = activation.locals.len();
    let kept = key.clone();
    if folded.has_two {
        activation.locals.push(key);
        activation.locals.push(value);
    } else {
        activation.locals.push(if is_map { key } else { value });
    }
    let outcome = step(folded, kept, made, activation, budget);
    activation.locals.truncate(base);
    outcome?;
    Ok(true)
}

fn step<'a>(
    folded: &Folded,
    key: Value<'a>,
    made: &mut Made<'a>,
    activation: &mut Activation<'a>,
    budget: &mut Budget<'_>,
) -> Outcome<()> {
    if let Some(filter) = &folded.filter {
        match eval(filter, activation, budget)? {
            Value::Bool(true) => {}
            Value::Bool(false) => return budget.charge(1),
            _ => return Err(EvaluationError::NoSuchOverload),
        }
    }
    match made {
        Made::Bool(value, why) => {
            budget.charge(1)?;
            let is_decisive = folded.kind == FoldKind::Exists;
            match eval(&folded.step, activation, budget) {
                Ok(Value::Bool(found)) if found == is_decisive => (*value, *why) = (found, None),
                Ok(Value::Bool(_)) => {}
                Err(other) if other.is_final() => return Err(other),
                other => {
                    // What decides later comes before a mistake now.
                    let other = other.err().unwrap_or(EvaluationError::NoSuchOverload);
                    why.get_or_insert(other);
                }
            }
            Ok(())
        }
        Made::Count(count) => match eval(&folded.step, activation, budget)? {
            Value::Bool(found) => {
                *count += u64::from(found);
                budget.charge(1 + u64::from(found))
            }
            _ => Err(EvaluationError::NoSuchOverload),
        },
        Made::List(items) => {
            let item = eval(&folded.step, activation, budget)?;
            // The accumulator, a list of one item, and both in one.
            budget.charge(2 + LIST_COST)?;
            items.push(item);
            Ok(())
        }
        Made::Map(entries) => {
            let item = eval(&folded.step, activation, budget)?;
            budget.charge(3)?;
            if folded.kind == FoldKind::Map {
                return insert(entries, &key, item);
            }
            for (key, value) in item.entries().ok_or(EvaluationError::NoSuchOverload)? {
                insert(entries, &key, value)?;
            }
            Ok(())
        }
    }
}
