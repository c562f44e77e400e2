//! Keys of maps that were made. Numbers are the same key when they are equal, whatever their type.

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::{Entries, Text, Value};

/// A key of a map.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A string.
    String(Text<'a>),
}

impl<'a> Key<'a> {
    /// The key that a value is; a double is one when it is a whole number.
    pub(crate) fn of(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(value) => Some(Self::Int(*value)),
            Value::Uint(value) => Some(Self::Uint(*value)),
            Value::String(text) => Some(Self::String(text.clone())),
            Value::Double(value) => crate::operate::whole(*value).map(Self::Int),
            _ => None,
        }
    }

    pub(crate) fn to_value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(text.clone()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) | Self::Uint(_) => 1,
            Self::String(_) => 2,
        }
    }

    fn number(&self) -> i128 {
        match self {
            Self::Int(value) => i128::from(*value),
            Self::Uint(value) => i128::from(*value),
            _ => 0,
        }
    }
}

/// The order of keys, which does not depend on how long they live.
trait AnyKey {
    fn key(&self) -> &Key<'_>;
}

impl AnyKey for Key<'_> {
    fn key(&self) -> &Key<'_> {
        self
    }
}

impl<'k, 'a: 'k> Borrow<dyn AnyKey + 'k> for Key<'a> {
    fn borrow(&self) -> &(dyn AnyKey + 'k) {
        self
    }
}

fn compare(a: &Key<'_>, b: &Key<'_>) -> Ordering {
    match (a, b) {
        (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
        (Key::String(a), Key::String(b)) => (**a).cmp(&**b),
        _ => a.rank().cmp(&b.rank()).then_with(|| a.number().cmp(&b.number())),
    }
}

impl Ord for dyn AnyKey + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.key(), other.key())
    }
}

impl PartialOrd for dyn AnyKey + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn AnyKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn AnyKey + '_ {}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

/// Looks up a key that need not live as long as the map.
pub(crate) fn get<'m, 'a>(entries: &'m Entries<'a>, key: &Key<'_>) -> Option<&'m Value<'a>> {
    entries.get(key as &dyn AnyKey)
}
