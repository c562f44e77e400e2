//! Equality and order.

use std::cmp::Ordering;

use super::{Key, Text, Value, key};
use crate::declaration::{Declaration, ListKind, Shape};
use crate::error::{EvaluationError, Outcome};

impl Value<'_> {
    /// Whether both are equal. Numbers of different types may be; values of different types are not.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::String(a), Value::String(b)) => **a == **b,
            (Self::Bytes(a), Value::Bytes(b)) => a == b,
            (Self::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Self::Duration(a), Value::Duration(b)) => a == b,
            (Self::Type(a), Value::Type(b)) => a == b,
            (Self::Opaque(a), Value::Opaque(b)) => a.equals(b),
            (Self::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Object(a), Value::Object(b)) => {
                a.ty == b.ty
                    && a.fields.len() == b.fields.len()
                    && a.fields.iter().all(|(k, v)| b.fields.get(k).is_some_and(|w| v.equals(w)))
            }
            (Self::Authorization(_), Value::Authorization(_)) => false,
            _ => match number_order(self, other) {
                Some(order) => order == Some(Ordering::Equal),
                None => lists_equal(self, other) || maps_equal(self, other),
            },
        }
    }

    /// The order of two values; `None` when one is not a number.
    pub(crate) fn order(&self, other: &Value<'_>) -> Outcome<Option<Ordering>> {
        Ok(match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
            (Self::Bytes(a), Value::Bytes(b)) => Some((**a).cmp(&**b)),
            (Self::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            _ => number_order(self, other).ok_or(EvaluationError::NoSuchOverload)?,
        })
    }
}

/// The order of two numbers; `None` when they are none, `Some(None)` for what is not a number.
fn number_order(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => Some(a.partial_cmp(b)),
        (Value::Double(a), b) => Some(compare_double(*a, whole(b)?)),
        (a, Value::Double(b)) => Some(compare_double(*b, whole(a)?).map(Ordering::reverse)),
        (a, b) => Some(Some(whole(a)?.cmp(&whole(b)?))),
    }
}

/// Exactly, without making the whole number a double.
fn compare_double(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates beyond any 64-bit number")]
    let floor = double.floor() as i128;
    Some(floor.cmp(&whole).then(if double.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Greater
    }))
}

fn lists_equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    let (Some(items), Some(others)) = (a.items(), b.items()) else { return false };
    if items.size_hint().0 != others.size_hint().0 {
        return false;
    }
    match list_kind(a).or_else(|| list_kind(b)) {
        Some(ListKind::Set) => same_items(items.collect(), others.collect(), Value::equals),
        Some(ListKind::Map(keys)) => {
            // Items are the same item when their keys are equal, and must be equal then.
            same_items(items.collect(), others.collect(), |a, b| {
                same_keys(a, b, keys) && a.equals(b)
            })
        }
        _ => items.zip(others).all(|(a, b)| a.equals(&b)),
    }
}

fn list_kind<'a>(value: &Value<'a>) -> Option<&'a ListKind> {
    match value {
        Value::JsonList(_, Some(Declaration { shape: Shape::List { kind, .. }, .. })) => Some(kind),
        _ => None,
    }
}

/// Whether two items of a list with keys have the same ones.
fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> bool {
    keys.iter().all(|key| {
        let key = Value::String(Text::Borrowed(key));
        match (a.entry(&key), b.entry(&key)) {
            (Ok(Some(a)), Ok(Some(b))) => a.equals(&b),
            (Ok(a), Ok(b)) => a.is_none() && b.is_none(),
            _ => false,
        }
    })
}

/// Whether every item has another one like it, in any order.
fn same_items<'a, 'b>(
    items: Vec<Value<'a>>,
    others: Vec<Value<'b>>,
    same: impl Fn(&Value<'a>, &Value<'b>) -> bool,
) -> bool {
    // Strings, of which most such lists are, are looked up.
    if items.iter().all(|item| matches!(item, Value::String(_)))
        && others.iter().all(|item| matches!(item, Value::String(_)))
    {
        let sorted = |values: &[Value<'_>]| {
            let mut texts: Vec<String> =
                values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            texts.sort_unstable();
            texts
        };
        return sorted(&items) == sorted(&others);
    }
    items.iter().all(|item| others.iter().any(|other| same(item, other)))
}

fn maps_equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    let (Some(entries), Some(size)) = (a.entries(), b.size()) else { return false };
    if !matches!(b, Value::Map(_) | Value::JsonMap(..)) || u64::try_from(entries.len()) != Ok(size)
    {
        return false;
    }
    entries.iter().all(|(key, value)| match b {
        Value::Map(others) => Key::of(key)
            .and_then(|key| key::get(others, &key))
            .is_some_and(|other| value.equals(other)),
        _ => matches!(b.entry(key), Ok(Some(other)) if value.equals(&other)),
    })
}

/// Two lists in one: items of a set that are there already are left out, items of a list with keys
/// take the place of those with the same keys.
pub(crate) fn concatenate<'a>(a: &Value<'a>, b: &Value<'a>) -> Option<Value<'a>> {
    let (mut items, others): (Vec<_>, _) = (a.items()?.collect(), b.items()?);
    match list_kind(a).or_else(|| list_kind(b)) {
        Some(ListKind::Set) => {
            for other in others {
                if !items.iter().any(|item| item.equals(&other)) {
                    items.push(other);
                }
            }
        }
        Some(ListKind::Map(keys)) => {
            for other in others {
                match items.iter_mut().find(|item| same_keys(item, &other, keys)) {
                    Some(item) => *item = other,
                    None => items.push(other),
                }
            }
        }
        _ => items.extend(others),
    }
    Some(Value::list(items))
}
