//! Lists as sets.

use super::no_overload;
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        list_sets_contains_list: sets.contains(list(A), list(A)) -> bool
        list_sets_equivalent_list: sets.equivalent(list(A), list(A)) -> bool
        list_sets_intersects_list: sets.intersects(list(A), list(A)) -> bool
    ",
    functions: &[
        ("sets.contains", |args| both(args, contains)),
        ("sets.equivalent", |args| both(args, |a, b| contains(a, b) && contains(b, a))),
        ("sets.intersects", |args| both(args, |a, b| b.iter().any(|item| has(a, item)))),
    ],
};

fn both<'a>(args: &[Value<'a>], of: fn(&[Value<'a>], &[Value<'a>]) -> bool) -> Outcome<Value<'a>> {
    let [a, b] = args else { return no_overload() };
    let items = |list: &Value<'a>| -> Outcome<Vec<Value<'a>>> {
        Ok(list.items().ok_or(EvaluationError::NoSuchOverload)?.collect())
    };
    Ok(Value::Bool(of(&items(a)?, &items(b)?)))
}

fn has(items: &[Value<'_>], wanted: &Value<'_>) -> bool {
    items.iter().any(|item| item.equals(wanted))
}

fn contains(items: &[Value<'_>], wanted: &[Value<'_>]) -> bool {
    wanted.iter().all(|item| has(items, item))
}
