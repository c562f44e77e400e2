//! Lists: the library of Kubernetes, and version 3 of cel-go's extension.

use std::cmp::Ordering;

use super::{no_overload, strings};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::operate;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        list_int_is_sorted: <list(int)>.isSorted() -> bool
        list_uint_is_sorted: <list(uint)>.isSorted() -> bool
        list_double_is_sorted: <list(double)>.isSorted() -> bool
        list_bool_is_sorted: <list(bool)>.isSorted() -> bool
        list_duration_is_sorted: <list(duration)>.isSorted() -> bool
        list_timestamp_is_sorted: <list(timestamp)>.isSorted() -> bool
        list_string_is_sorted: <list(string)>.isSorted() -> bool
        list_bytes_is_sorted: <list(bytes)>.isSorted() -> bool
        list_int_sum: <list(int)>.sum() -> int
        list_uint_sum: <list(uint)>.sum() -> uint
        list_double_sum: <list(double)>.sum() -> double
        list_duration_sum: <list(duration)>.sum() -> duration
        list_int_min: <list(int)>.min() -> int
        list_uint_min: <list(uint)>.min() -> uint
        list_double_min: <list(double)>.min() -> double
        list_bool_min: <list(bool)>.min() -> bool
        list_duration_min: <list(duration)>.min() -> duration
        list_timestamp_min: <list(timestamp)>.min() -> timestamp
        list_string_min: <list(string)>.min() -> string
        list_bytes_min: <list(bytes)>.min() -> bytes
        list_int_max: <list(int)>.max() -> int
        list_uint_max: <list(uint)>.max() -> uint
        list_double_max: <list(double)>.max() -> double
        list_bool_max: <list(bool)>.max() -> bool
        list_duration_max: <list(duration)>.max() -> duration
        list_timestamp_max: <list(timestamp)>.max() -> timestamp
        list_string_max: <list(string)>.max() -> string
        list_bytes_max: <list(bytes)>.max() -> bytes
        list_a_index_of_int: <list(A)>.indexOf(A) -> int
        list_a_last_index_of_int: <list(A)>.lastIndexOf(A) -> int
        list_slice: <list(A)>.slice(int, int) -> list(A)
        list_flatten: <list(list(A))>.flatten() -> list(A)
        list_flatten_int: <list(dyn)>.flatten(int) -> list(dyn)
        list_distinct: <list(A)>.distinct() -> list(A)
        list_reverse: <list(A)>.reverse() -> list(A)
        list_int_sort: <list(int)>.sort() -> list(int)
        list_uint_sort: <list(uint)>.sort() -> list(uint)
        list_double_sort: <list(double)>.sort() -> list(double)
        list_bool_sort: <list(bool)>.sort() -> list(bool)
        list_duration_sort: <list(duration)>.sort() -> list(duration)
        list_timestamp_sort: <list(timestamp)>.sort() -> list(timestamp)
        list_string_sort: <list(string)>.sort() -> list(string)
        list_bytes_sort: <list(bytes)>.sort() -> list(bytes)
        list_int_sort_by: <list(A)>.@sortByAssociatedKeys(list(int)) -> list(A)
        list_uint_sort_by: <list(A)>.@sortByAssociatedKeys(list(uint)) -> list(A)
        list_double_sort_by: <list(A)>.@sortByAssociatedKeys(list(double)) -> list(A)
        list_bool_sort_by: <list(A)>.@sortByAssociatedKeys(list(bool)) -> list(A)
        list_duration_sort_by: <list(A)>.@sortByAssociatedKeys(list(duration)) -> list(A)
        list_timestamp_sort_by: <list(A)>.@sortByAssociatedKeys(list(timestamp)) -> list(A)
        list_string_sort_by: <list(A)>.@sortByAssociatedKeys(list(string)) -> list(A)
        list_bytes_sort_by: <list(A)>.@sortByAssociatedKeys(list(bytes)) -> list(A)
        lists_range: lists.range(int) -> list(int)
    ",
    functions: &[
        ("isSorted", is_sorted),
        ("sum", sum),
        ("min", |args| extreme(args, Ordering::Less)),
        ("max", |args| extreme(args, Ordering::Greater)),
        ("indexOf", |args| index_of(args, false)),
        ("lastIndexOf", |args| index_of(args, true)),
        ("slice", slice),
        ("flatten", flatten),
        ("distinct", distinct),
        ("reverse", reverse),
        ("sort", |args| sort(args.first(), args.first())),
        ("@sortByAssociatedKeys", |args| sort(args.first(), args.get(1))),
        ("lists.range", range),
    ],
};

/// Longest list of numbers that is made at once.
const MAX_RANGE: usize = 1_000_000;

fn items<'a>(list: Option<&Value<'a>>) -> Outcome<Vec<Value<'a>>> {
    let items = list.and_then(|list| list.items()).ok_or(EvaluationError::NoSuchOverload)?;
    Ok(items.collect())
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let items = items(args.first())?;
    for pair in items.windows(2) {
        if pair[0].order(&pair[1])? == Some(Ordering::Greater) {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let mut items = items(args.first())?.into_iter();
    // An empty list says nothing of its type at this point.
    let Some(mut total) = items.next() else { return Ok(Value::Int(0)) };
    for item in items {
        total = operate::add(&[total, item])?;
    }
    Ok(total)
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering) -> Outcome<Value<'a>> {
    let name = if wanted == Ordering::Less { "min" } else { "max" };
    let mut items = items(args.first())?.into_iter();
    let Some(mut found) = items.next() else {
        return Err(EvaluationError::failed(format!("{name} called on empty list")));
    };
    for item in items {
        if item.order(&found)? == Some(wanted) {
            found = item;
        }
    }
    Ok(found)
}

fn index_of<'a>(args: &[Value<'a>], is_last: bool) -> Outcome<Value<'a>> {
    let [list, wanted] = args else { return strings::index_of(args, is_last) };
    if matches!(list, Value::String(_)) {
        return strings::index_of(args, is_last);
    }
    let items = items(Some(list))?;
    let found = if is_last {
        items.iter().rposition(|item| item.equals(wanted))
    } else {
        items.iter().position(|item| item.equals(wanted))
    };
    Ok(Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

fn slice<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [list, Value::Int(from), Value::Int(to)] = args else { return no_overload() };
    let items = items(Some(list))?;
    let failed = |text: String| Err(EvaluationError::failed(text));
    let (Ok(start), Ok(end)) = (usize::try_from(*from), usize::try_from(*to)) else {
        return failed(format!("cannot slice({from}, {to}), negative indexes not supported"));
    };
    if start > end {
        return failed(format!(
            "cannot slice({from}, {to}), start index must be less than or equal to end index"
        ));
    }
    match items.get(start..end) {
        Some(part) => Ok(Value::list(part.to_vec())),
        None => failed(format!("cannot slice({from}, {to}), list is length {}", items.len())),
    }
}

fn flatten<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let depth = match args {
        [_] => 1,
        [_, Value::Int(depth)] if *depth < 0 => {
            return Err(EvaluationError::failed("level must be non-negative"));
        }
        [_, Value::Int(depth)] => *depth,
        _ => return no_overload(),
    };
    let mut out = Vec::new();
    flatten_into(&mut out, items(args.first())?, depth);
    Ok(Value::list(out))
}

fn flatten_into<'a>(out: &mut Vec<Value<'a>>, items: Vec<Value<'a>>, depth: i64) {
    for item in items {
        match item.items() {
            Some(inner) if depth > 0 => {
                let inner = inner.collect();
                flatten_into(out, inner, depth - 1);
            }
            _ => out.push(item),
        }
    }
}

fn distinct<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in items(args.first())? {
        if !out.iter().any(|known| known.equals(&item)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}

fn reverse<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let mut items = items(args.first())?;
    items.reverse();
    Ok(Value::list(items))
}

/// A list in the order of keys, which must be of one type that has an order.
fn sort<'a>(list: Option<&Value<'a>>, keys: Option<&Value<'a>>) -> Outcome<Value<'a>> {
    let (items, keys) = (items(list)?, items(keys)?);
    if items.len() != keys.len() {
        return Err(EvaluationError::failed("list elements must have a key each"));
    }
    if let Some(first) = keys.first() {
        let ty = first.type_name();
        if keys.iter().any(|key| key.type_name() != ty) {
            return Err(EvaluationError::failed("list elements must have the same type"));
        }
        first.order(first)?;
    }
    let mut pairs: Vec<_> = keys.into_iter().zip(items).collect();
    let order = |a: &Value<'_>, b: &Value<'_>| a.order(b).ok().flatten().unwrap_or(Ordering::Equal);
    pairs.sort_by(|(a, _), (b, _)| order(a, b));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Int(count)] = args else { return no_overload() };
    if usize::try_from(*count).is_ok_and(|count| count > MAX_RANGE) {
        return Err(EvaluationError::CostLimitExceeded);
    }
    Ok(Value::list((0..*count).map(Value::Int).collect()))
}
