//! What functions may cost, and how large their results may be.

use super::{CHECK, EntrySize, Estimator, Range};
use crate::syntax::ast::{Call, Expr, ExprKind, Literal};
use crate::types::Type;

/// Cost and size.
type Estimate = (Range, Option<Range>);

const ONE: Range = Range { min: 1, max: 1 };
/// Bytes of an address.
const ADDRESS: Range = Range { min: 4, max: 16 };

impl<'e> Estimator<'e> {
    /// The cost of one overload of a call, its arguments included.
    pub(super) fn overload(
        &mut self,
        expr: &Expr,
        call: &Call,
        target: Option<&Expr>,
        overload: &str,
        costs: &[Range],
    ) -> Estimate {
        let sum = costs.iter().fold(Range::exactly(0), |sum, cost| sum.plus(*cost));
        let args = &call.args[..];
        match (overload, costs) {
            ("logical_and" | "logical_or", [left, right]) => {
                let max = left.plus(*right).max;
                return (Range { min: left.min, max }, None);
            }
            ("conditional", [condition, yes, no]) => {
                let size = self.size_or_unknown(&args[1]).or(self.size_or_unknown(&args[2]));
                self.join_entries(expr, &args[1], &args[2]);
                return (condition.plus(yes.or(*no)), Some(size));
            }
            _ => {}
        }
        let (cost, size) = match self.library(call, target, overload) {
            Some(estimate) => estimate,
            None => self.standard(expr, args, target, overload),
        };
        (cost.plus(sum), size)
    }

    fn join_entries(&mut self, expr: &Expr, a: &Expr, b: &Expr) {
        if let (Some(a), Some(b)) = (self.entry_size(a), self.entry_size(b)) {
            let entry = EntrySize { key: a.key.or(b.key), value: a.value.or(b.value) };
            self.entries.insert(expr.id, entry);
        }
    }

    /// Functions of the language.
    fn standard(
        &mut self,
        expr: &Expr,
        args: &[Expr],
        target: Option<&Expr>,
        overload: &str,
    ) -> Estimate {
        let size = |at: usize| args.get(at).map_or(ONE, |arg| self.size_or_unknown(arg));
        let target = || target.map_or(ONE, |target| self.size_or_unknown(target));
        let cost = match overload {
            "string_to_bytes" => {
                let size = size(0);
                let max = size.max.saturating_mul(4);
                return (size.tenths(1), Some(Range { min: size.min, max }));
            }
            "bytes_to_string" => {
                let size = size(0);
                return (size.tenths(1), Some(Range { min: size.min / 4, max: size.max }));
            }
            "strings_quote" => {
                let size = size(0);
                let double = |size: u64| size.saturating_mul(2).saturating_add(2);
                let quoted = Range { min: size.min.saturating_add(2), max: double(size.max) };
                return (size.tenths(1), Some(quoted));
            }
            "string_format" => {
                let target = target();
                return (target.tenths(1), Some(target.plus(size(0))));
            }
            "starts_with_string" | "ends_with_string" => size(0).tenths(1),
            "in_list" => size(1),
            "matches_string" => {
                let text = target().plus(ONE).tenths(1);
                text.times(size(0).fourth())
            }
            "contains_string" => target().tenths(1).times(size(0).tenths(1)),
            "add_string" | "add_bytes" | "add_list" => {
                let both = size(0).plus(size(1));
                self.join_entries(expr, &args[0], &args[1]);
                let cost = if overload == "add_list" { ONE } else { both.tenths(1) };
                return (cost, Some(both));
            }
            "compare_string" | "compare_bytes" | "equals" | "not_equals" => {
                let max = size(0).max.min(size(1).max);
                Range { min: max.min(1), max }.tenths(1)
            }
            _ => ONE,
        };
        (cost, None)
    }

    /// Functions of Kubernetes and of cel-go's extensions; `None` for those of the language.
    fn library(&self, call: &Call, target: Option<&Expr>, overload: &str) -> Option<Estimate> {
        let args = &call.args[..];
        let size = |at: usize| args.get(at).map_or(Range::UNKNOWN, |arg| self.size_or_unknown(arg));
        let target_size = || target.map_or(Range::UNKNOWN, |target| self.size_or_unknown(target));
        let plain = |cost: Range| Some((cost, None));
        match (&*call.function, target) {
            ("check", _) => plain(CHECK),
            (
                "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace"
                | "name" | "allowed" | "reason" | "error" | "errored" | "fieldSelector"
                | "labelSelector",
                _,
            )
            | (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast",
                _,
            )
            | (
                "sign" | "asInteger" | "isInteger" | "asApproximateFloat" | "isGreaterThan"
                | "isLessThan" | "compareTo" | "add" | "sub" | "major" | "minor" | "patch",
                Some(_),
            ) => plain(ONE),
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(list)) => {
                plain(self.traversal(list))
            }
            ("url" | "isURL", None) if args.len() == 1 => plain(size(0).tenths(1)),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(_)) => {
                let size = target_size();
                Some((size.tenths(1), Some(size)))
            }
            ("replace", Some(_)) if args.len() >= 2 => {
                let text = target_size();
                Some((text.tenths(2), Some(replaced(text, size(0), size(1)))))
            }
            ("split", Some(_)) => {
                let text = target_size();
                let limit = args.get(1).and_then(literal_int);
                let parts = Range { min: 0, max: limit.unwrap_or(text.max) };
                Some((text.tenths(2), Some(parts)))
            }
            ("join", Some(list)) => {
                let (count, item) = (target_size(), self.element_size(list));
                let between = |count: u64| count.saturating_sub(1);
                let separators = Range { min: between(count.min), max: between(count.max) };
                let separator = if args.is_empty() { Range::exactly(0) } else { size(0) };
                let joined = count.times(item).plus(separator.times(separators));
                Some((joined.tenths(1), Some(joined)))
            }
            ("find" | "findAll", Some(_)) => {
                let text = target_size();
                let cost = text.plus(ONE).tenths(1).times(size(0).fourth());
                Some((cost, Some(Range { min: 0, max: text.max })))
            }
            ("isCanonical", None) => plain(size(0).tenths(2)),
            ("containsIP", Some(_)) => {
                let text = if overload.ends_with("string") { size(0) } else { Range::exactly(0) };
                plain(ADDRESS.plus(ADDRESS).tenths(1).plus(text.tenths(1)))
            }
            ("containsCIDR", Some(_)) => {
                let text = if overload.ends_with("string") { size(0) } else { Range::exactly(0) };
                let both = ADDRESS.plus(ADDRESS).tenths(1);
                plain(both.plus(ADDRESS.tenths(1)).plus(ONE).plus(text.tenths(1)))
            }
            ("contains" | "intersects" | "equivalent", None) if args.len() == 2 => {
                plain(size(0).times(size(1)).plus(ONE))
            }
            ("distinct" | "sort" | "sortBy", Some(_)) => {
                let size = target_size();
                Some((size.times(size).plus(ONE), Some(size)))
            }
            ("flatten" | "slice" | "reverse", Some(_)) => {
                let size = target_size();
                Some((size.plus(ONE), Some(size)))
            }
            _ => None,
        }
    }

    /// One for each item, and the texts among them.
    fn traversal(&self, list: &Expr) -> Range {
        match self.ty(list) {
            Type::List(item) => {
                let mut each = ONE;
                if matches!(**item, Type::String | Type::Bytes) {
                    each = each.plus(self.element_size(list).tenths(1));
                }
                self.size_or_unknown(list).times(each)
            }
            // A string, of which an index is asked.
            _ => self.size_or_unknown(list).tenths(1),
        }
    }

    /// The size of items by what is declared of them.
    fn element_size(&self, list: &Expr) -> Range {
        let declared = self.declared.get(&list.id).and_then(|declared| declared.element());
        declared.map_or(Range::UNKNOWN, |declared| super::declared_size(declared))
    }
}

fn literal_int(expr: &Expr) -> Option<u64> {
    match &expr.kind {
        ExprKind::Literal(Literal::Int(value)) => u64::try_from(*value).ok(),
        _ => None,
    }
}

/// How long a text may be after every `old` in it became `new`.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let (longest, kept_max) = if old.min == 0 {
        // An empty text is found around every character.
        (text.max.saturating_add(1), text.max)
    } else if new.max <= old.min {
        (0, text.max)
    } else {
        (text.max.div_ceil(old.min), 0)
    };
    let (shortest, kept_min) = if old.max == 0 {
        (text.min.saturating_add(1), text.min)
    } else if old.max <= new.min {
        (0, text.min)
    } else {
        (text.min.div_ceil(old.max), 0)
    };
    Range {
        min: shortest.saturating_mul(new.min).saturating_add(kept_min),
        max: longest.saturating_mul(new.max).saturating_add(kept_max),
    }
}
