//! The order of merged lists: what the patch names comes in the patch's order, the rest keeps the
//! server's.

use serde_json::Value;

use super::{DIRECTIVE, Object, SET_ORDER, Shape, bad_type, merge_member_list, no_merge_key};
use super::{discard_nulls, without_directives};
use crate::PatchError;
use crate::go_print::go_print;

/// Merges the lists for which the patch has a `$setElementOrder/` and takes both out of the patch.
pub(super) fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    shape: Shape<'_>,
) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(wanted) = patch.remove(&directive) else { continue };
        let key = &directive[SET_ORDER.len()..];
        let Value::Array(wanted) = wanted else {
            return Err(bad_type(&Value::Array(Vec::new()), &wanted));
        };
        let before = list_of(original.get(key))?;
        let change = list_of(patch.get(key))?;
        let merge_key = shape.field(key).map_or("", |field| &*field.patch_merge_key).to_owned();
        check_order(change.as_deref().unwrap_or_default(), &wanted, &merge_key)?;
        let server_order = before.clone().unwrap_or_default();
        let merged = match (before, change) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(change)) => {
                let mut added = Value::Array(change);
                discard_nulls(&mut added);
                match without_directives(added) {
                    Some(Value::Array(items)) => items,
                    _ => continue,
                }
            }
            (Some(before), Some(change)) => merge_member_list(before, change, key, false, shape)?,
        };
        patch.remove(key);
        let arranged = arrange(merged, &wanted, &server_order, &merge_key);
        original.insert(key.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

fn list_of(value: Option<&Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(other) => Err(bad_type(&Value::Array(Vec::new()), other)),
    }
}

/// The items of the patch must be in the order they are said to be in.
fn check_order(change: &[Value], wanted: &[Value], merge_key: &str) -> Result<(), PatchError> {
    if change.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Value> = change.iter().filter(|item| item.get(DIRECTIVE).is_none()).collect();
    if let (false, Some(Value::Object(item))) =
        (merge_key.is_empty(), kept.iter().find(|item| item.get(merge_key).is_none()))
    {
        return Err(no_merge_key(item, merge_key));
    }
    let mut rest = wanted.iter();
    if kept.iter().all(|item| rest.any(|at| same(item, at, merge_key))) {
        return Ok(());
    }
    let print = |items: &[Value]| go_print(&Value::Array(items.to_vec()));
    Err(PatchError::Unmergeable(format!(
        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
        print(change),
        print(wanted)
    )))
}

/// Sorts what the patch names by the patch, the rest by the server, and interleaves the two so that
/// the server's order is kept where both are known to it.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server_order: &[Value],
    merge_key: &str,
) -> Vec<Value> {
    let position =
        |list: &[Value], item: &Value| list.iter().position(|other| same(item, other, merge_key));
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(wanted, item).is_some());
    named.sort_by_key(|item| position(wanted, item));
    rest.sort_by_key(|item| position(server_order, item).unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let server_first = match (rest.peek(), named.peek()) {
            (Some(left), Some(right)) => {
                match (position(server_order, left), position(server_order, right)) {
                    (Some(left), Some(right)) => left < right,
                    _ => false,
                }
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return arranged,
        };
        arranged.extend(if server_first { rest.next() } else { named.next() });
    }
}

fn same(a: &Value, b: &Value, merge_key: &str) -> bool {
    if merge_key.is_empty() {
        return a == b;
    }
    match (a.get(merge_key), b.get(merge_key)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}
