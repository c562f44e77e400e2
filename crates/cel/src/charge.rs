//! What functions cost when they run.
//!
//! Upstream: cel-go's `interpreter/runtimecost.go` and `apiserver/pkg/cel/library/cost.go`.

use crate::value::Value;

/// An authorizer is asked at most twice per expression.
pub(crate) const CHECK_COST: u64 = 350_000;

/// How a function is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Nothing to look at.
    One,
    /// A question to an authorizer.
    Check,
    /// A tenth of a text, at the place of the argument, so many times.
    Text(usize, u64),
    /// The number of items of the second argument, when it is a list.
    Contained,
    /// The shorter of two texts.
    Compare,
    /// Both texts.
    Add,
    /// A text and a regular expression.
    Matches,
    /// Two texts.
    Contains,
    /// Everything in the first argument.
    Traverse,
    /// Every pair of items of two lists.
    Pairs,
    /// Every pair of items of a list.
    Square,
    /// A part of what comes out.
    Result,
    /// The number of items that come out.
    Items,
    /// A text twice. Upstream does not charge for what comes out, which may be very much longer.
    Replace,
    /// A pattern, and a little of what is printed with it, for the same reason.
    Format,
    /// The number of items of the first argument.
    List,
    /// The bytes of an address, and a text that has to be read for it.
    Address,
}

impl Charge {
    pub(crate) fn of(function: &str) -> Self {
        match function {
            "check" => Self::Check,
            "startsWith" | "endsWith" => Self::Text(1, 1),
            "url"
            | "isURL"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "ip"
            | "isIP"
            | "cidr"
            | "isCIDR"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver"
            | "string"
            | "bytes"
            | "validate"
            | "jsonpatch.escapeKey"
            | "strings.quote" => Self::Text(0, 1),
            "format" => Self::Format,
            "split" | "ip.isCanonical" => Self::Text(0, 2),
            "replace" => Self::Replace,
            "@in" => Self::Contained,
            "_<_" | "_<=_" | "_>_" | "_>=_" => Self::Compare,
            "_+_" => Self::Add,
            "matches" | "find" | "findAll" => Self::Matches,
            "contains" => Self::Contains,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "flatten" => {
                Self::Traverse
            }
            "sets.contains" | "sets.intersects" | "sets.equivalent" => Self::Pairs,
            "distinct" | "sort" | "@sortByAssociatedKeys" => Self::Square,
            "join" => Self::Result,
            "lists.range" => Self::Items,
            "slice" | "reverse" => Self::List,
            "containsIP" | "containsCIDR" => Self::Address,
            _ => Self::One,
        }
    }

    /// The cost that shows before the function runs.
    pub(crate) fn before(self, args: &[Value<'_>]) -> u64 {
        let size = |at: usize| args.get(at).and_then(Value::size).unwrap_or(1);
        match self {
            Self::One | Self::Result | Self::Items => 1,
            Self::Format => tenth(size(0)),
            Self::Replace => tenth(size(0).saturating_mul(2)),
            Self::Check => CHECK_COST,
            Self::Text(at, times) => tenth(size(at).saturating_mul(times)),
            Self::Contained => match args.get(1) {
                Some(Value::List(_) | Value::JsonList(..)) => size(1),
                _ => 1,
            },
            Self::Compare => tenth(size(0).min(size(1))),
            Self::Add => match args.first() {
                Some(Value::String(_) | Value::Bytes(_)) => tenth(size(0).saturating_add(size(1))),
                // Upstream takes this for one step; here long lists are copied.
                _ => 1 + size(0).saturating_add(size(1)) / 100,
            },
            Self::Matches => match args.get(1) {
                Some(Value::String(pattern)) => {
                    tenth(size(0).saturating_add(1)).saturating_mul(pattern_cost(pattern))
                }
                _ => 1,
            },
            Self::Contains => match args.first() {
                Some(Value::String(_)) => tenth(size(0)).saturating_mul(tenth(size(1))),
                _ => 1,
            },
            Self::Traverse => args.first().map_or(0, traversal),
            Self::Pairs => 1_u64.saturating_add(size(0).saturating_mul(size(1))),
            Self::Square => 1_u64.saturating_add(size(0).saturating_mul(size(0))),
            Self::List => size(0).max(1),
            Self::Address => {
                let own = size(0);
                let text = match args.get(1) {
                    Some(Value::String(text)) => text_cost(text),
                    _ => 0,
                };
                tenth(own * 2) + tenth(own) + text + 1
            }
        }
    }

    /// The cost that shows only in what comes out.
    pub(crate) fn after(self, result: &Value<'_>) -> u64 {
        let size = || result.size().unwrap_or(0);
        match self {
            Self::Result => tenth(size().saturating_mul(2)),
            Self::Items => size(),
            Self::Format | Self::Replace => size() / 1_000,
            _ => 0,
        }
    }
}

/// Looking at a character costs a tenth.
pub(crate) fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

/// What a text costs that a regular expression is applied to.
pub(crate) fn text_cost(text: &str) -> u64 {
    let size = u64::try_from(crate::value::text::characters(text)).unwrap_or(u64::MAX);
    tenth(size.saturating_add(1))
}

/// What a regular expression costs: four characters are taken for a step of it.
pub(crate) fn pattern_cost(pattern: &str) -> u64 {
    let size = u64::try_from(crate::value::text::characters(pattern)).unwrap_or(u64::MAX);
    size.div_ceil(4)
}

/// Comparing two values: the smaller one.
pub(crate) fn equality(a: &Value<'_>, b: &Value<'_>) -> u64 {
    tenth(a.size().unwrap_or(1).min(b.size().unwrap_or(1)))
}

/// Looking at everything in a value.
fn traversal(value: &Value<'_>) -> u64 {
    if let Some(items) = value.items() {
        return items.map(|item| traversal(&item)).fold(0, u64::saturating_add);
    }
    if let Some(entries) = value.entries() {
        let both = entries.iter().map(|(key, value)| traversal(key) + traversal(value));
        return both.fold(0, u64::saturating_add);
    }
    match value {
        Value::String(text) => u64::try_from(text.len() / 10).unwrap_or(u64::MAX),
        Value::Bytes(bytes) => u64::try_from(bytes.len() / 10).unwrap_or(u64::MAX),
        _ => 1,
    }
}
