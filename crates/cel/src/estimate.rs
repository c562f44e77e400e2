//! What an expression may cost, before it runs.
//!
//! Upstream: cel-go's `checker/cost.go` and `apiserver/pkg/cel/library/cost.go`. Rules of custom
//! resources are refused by this estimate, so that it must be the same.

mod function;

use std::collections::HashMap;

use crate::charge::CHECK_COST;
use crate::check::{Checked, Reference};
use crate::declaration::{Declaration, Shape};
use crate::environment::Environment;
use crate::syntax::ast::{Call, Expr, ExprKind, Fold, FoldKind, Literal, Select};
use crate::types::Type;

/// From the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl Range {
    pub(crate) const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    pub(crate) fn exactly(value: u64) -> Self {
        Self { min: value, max: value }
    }

    pub(crate) fn plus(self, other: Range) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Range) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Either of them.
    pub(crate) fn or(self, other: Range) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// So many parts of ten.
    pub(crate) fn tenths(self, parts: u64) -> Self {
        let of = |value: u64| {
            let product = u128::from(value) * u128::from(parts);
            // What is unbounded stays so.
            if value == u64::MAX {
                return u64::MAX / 10;
            }
            u64::try_from(product.div_ceil(10)).unwrap_or(u64::MAX)
        };
        Self { min: of(self.min), max: of(self.max) }
    }

    /// A fourth, as a regular expression's length counts.
    pub(crate) fn fourth(self) -> Self {
        Self { min: self.min.div_ceil(4), max: self.max.div_ceil(4) }
    }
}

/// The estimate for a checked tree.
pub(crate) fn cost(environment: &Environment, expr: &Expr, checked: &Checked) -> Range {
    let mut estimator = Estimator {
        environment,
        checked,
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        declared: HashMap::new(),
    };
    estimator.cost(expr)
}

/// Sizes of keys and values of a list or map.
#[derive(Clone, Copy)]
struct EntrySize {
    key: Range,
    value: Range,
}

/// A variable of a loop.
struct Local<'e> {
    name: String,
    declared: Option<&'e Declaration>,
    size: Option<Range>,
    entries: Option<EntrySize>,
}

struct Estimator<'e> {
    environment: &'e Environment,
    checked: &'e Checked,
    locals: Vec<Local<'e>>,
    /// Sizes that were found out, by number of the expression.
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, EntrySize>,
    /// What is declared of an expression.
    declared: HashMap<u32, &'e Declaration>,
}

impl<'e> Estimator<'e> {
    fn ty(&self, expr: &Expr) -> &'e Type {
        static DYN: Type = Type::Dyn;
        let at = usize::try_from(expr.id).unwrap_or(usize::MAX);
        self.checked.types.get(at).unwrap_or(&DYN)
    }

    fn overloads(&self, expr: &Expr) -> &'e [&'static str] {
        let at = usize::try_from(expr.id).unwrap_or(usize::MAX);
        self.checked.overloads.get(at).map_or(&[], Vec::as_slice)
    }

    fn local(&self, name: &str) -> Option<&Local<'e>> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            ExprKind::Literal(_) | ExprKind::Missing => Range::exactly(0),
            ExprKind::Name { name, .. } => {
                let declared = match self.local(name) {
                    Some(local) => local.declared,
                    None => self.environment.declaration(name).map(|declared| &**declared),
                };
                self.declare(expr, declared);
                Range::exactly(1)
            }
            ExprKind::Select(select) => self.select(expr, select),
            ExprKind::Call(call) => self.call(expr, call),
            ExprKind::List(items) => {
                let items: Vec<&Expr> = items.iter().map(|item| &item.value).collect();
                let (sum, size) = self.all(&items);
                let entry = EntrySize { key: Range::exactly(1), value: size };
                self.entries.insert(expr.id, entry);
                sum.plus(Range::exactly(10))
            }
            ExprKind::Map(entries) => {
                let keys: Vec<&Expr> = entries.iter().map(|entry| &entry.key).collect();
                let values: Vec<&Expr> = entries.iter().map(|entry| &entry.value).collect();
                let ((key_cost, key), (cost, value)) = (self.all(&keys), self.all(&values));
                self.entries.insert(expr.id, EntrySize { key, value });
                key_cost.plus(cost).plus(Range::exactly(30))
            }
            ExprKind::Struct { fields, .. } => {
                let values: Vec<&Expr> = fields.iter().map(|field| &field.value).collect();
                self.all(&values).0.plus(Range::exactly(40))
            }
            ExprKind::Fold(fold) => self.fold(expr, fold),
            ExprKind::Bind(bind) => {
                let cost = self.cost(&bind.value);
                let local = Local {
                    name: bind.name.clone(),
                    declared: self.declared.get(&bind.value.id).copied(),
                    size: self.size(&bind.value),
                    entries: self.entry_size(&bind.value),
                };
                self.locals.push(local);
                let body = self.cost(&bind.body);
                self.locals.pop();
                self.same_size(expr, &bind.body);
                // Upstream binds with a loop over an empty list.
                cost.plus(body).plus(Range::exactly(10))
            }
        }
    }

    /// The sum of costs, and the sizes that there are.
    fn all(&mut self, exprs: &[&Expr]) -> (Range, Range) {
        let mut sum = Range::exactly(0);
        let mut size = Range { min: if exprs.is_empty() { 0 } else { u64::MAX }, max: 0 };
        for expr in exprs {
            sum = sum.plus(self.cost(expr));
            size = size.or(self.size_or_unknown(expr));
        }
        (sum, size)
    }

    fn declare(&mut self, expr: &Expr, declared: Option<&'e Declaration>) {
        if let Some(declared) = declared {
            self.declared.insert(expr.id, declared);
        }
    }

    fn select(&mut self, expr: &Expr, select: &Select) -> Range {
        let at = usize::try_from(expr.id).unwrap_or(usize::MAX);
        if let Some(Reference::Variable(_) | Reference::Type(_)) = self.checked.references.get(at) {
            return Range::exactly(1);
        }
        let operand = self.cost(&select.operand);
        // Testing for a field costs nothing of its own.
        if select.is_test {
            return operand;
        }
        let declared = self.declared.get(&select.operand.id).copied();
        let declared = declared.and_then(|declared| match &declared.shape {
            Shape::Object(fields) => fields.field(&select.field).map(|field| &**field),
            Shape::Map { values, .. } => Some(&**values),
            _ => None,
        });
        self.declare(expr, declared);
        match self.ty(&select.operand) {
            Type::Map(..) | Type::Object(_) | Type::Variable(_) => operand.plus(Range::exactly(1)),
            _ => operand,
        }
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let range = self.cost(&fold.range);
        self.push_variables(fold);
        let filter = fold.filter.as_ref().map(|filter| self.cost(filter));
        let step = self.cost(&fold.step);
        let item_size = self.size(&fold.step);
        self.locals.truncate(self.locals.len() - 1 - usize::from(fold.second.is_some()));
        let one = Range::exactly(1);
        let (initial, turn, result) = match fold.kind {
            FoldKind::All => (0, Range { min: 3, max: step.max.saturating_add(3) }, 1),
            FoldKind::Exists => (0, Range { min: 4, max: step.max.saturating_add(4) }, 1),
            FoldKind::ExistsOne => (0, step.plus(Range { min: 1, max: 2 }), 2),
            FoldKind::List => (10, step.plus(Range::exactly(12)), 1),
            FoldKind::Map => (30, step.plus(Range::exactly(3)), 1),
            FoldKind::MapEntry => (30, step.plus(Range::exactly(2)), 1),
        };
        let turn = match filter {
            Some(filter) => filter.plus(turn.or(one)),
            None => turn,
        };
        let count = self.size_or_unknown(&fold.range);
        match fold.kind {
            FoldKind::List | FoldKind::Map | FoldKind::MapEntry => {
                self.sizes.insert(expr.id, count);
                if let Some(value) = item_size {
                    self.entries.insert(expr.id, EntrySize { key: one, value });
                }
            }
            _ => {
                self.sizes.insert(expr.id, one);
            }
        }
        let fixed = Range::exactly(initial + result);
        range.plus(fixed).plus(count.times(turn))
    }

    fn push_variables(&mut self, fold: &Fold) {
        let entries = self.entry_size(&fold.range);
        let is_list = match self.ty(&fold.range) {
            Type::Map(..) => false,
            _ => !matches!(
                self.declared.get(&fold.range.id).map(|declared| &declared.shape),
                Some(Shape::Map { .. })
            ),
        };
        let declared = self.declared.get(&fold.range.id).copied();
        let element = declared.and_then(Declaration::element).map(|element| &**element);
        let keys = declared.and_then(Declaration::keys).map(|keys| &**keys);
        let value_size = entries.map(|entry| entry.value);
        let key_size = entries.map(|entry| entry.key);
        let mut push = |name: &str, declared, size| {
            self.locals.push(Local { name: name.to_owned(), declared, size, entries: None });
        };
        match &fold.second {
            Some(second) => {
                push(&fold.first, keys, key_size);
                push(second, element, value_size);
            }
            None if is_list => push(&fold.first, element, value_size),
            None => push(&fold.first, keys, key_size),
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Range {
        if call.function == "dyn" && call.args.len() == 1 {
            let cost = self.cost(&call.args[0]);
            self.same_size(expr, &call.args[0]);
            return cost.plus(Range::exactly(1));
        }
        let args: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let is_namespaced = self.is_namespaced(expr);
        let target = call.target.as_ref().filter(|_| !is_namespaced);
        let mut sum = Range::exactly(0);
        if let Some(target) = target {
            sum = self.cost(target);
        }
        let mut total = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        let overloads = self.overloads(expr);
        if overloads.is_empty() {
            return Range::exactly(0);
        }
        for overload in overloads {
            let (cost, result) = self.overload(expr, call, target, overload, &args);
            total = total.or(cost);
            if let Some(result) = result {
                size = Some(size.map_or(result, |size| size.or(result)));
            }
            if matches!(*overload, "index_list" | "index_map")
                && let Some(operand) = call.args.first()
            {
                size = self.entry_size(operand).map(|entry| entry.value);
                let declared = self.declared.get(&operand.id).copied();
                let element = declared.and_then(Declaration::element).map(|element| &**element);
                self.declare(expr, element);
            }
        }
        if let Some(size) = size.or_else(|| self.size(expr)) {
            self.sizes.insert(expr.id, size);
        }
        sum.plus(total)
    }

    fn is_namespaced(&self, expr: &Expr) -> bool {
        let at = usize::try_from(expr.id).unwrap_or(usize::MAX);
        matches!(self.checked.references.get(at), Some(Reference::Function(_)))
    }

    fn same_size(&mut self, expr: &Expr, as_of: &Expr) {
        if let Some(size) = self.size(as_of) {
            self.sizes.insert(expr.id, size);
        }
        if let Some(entries) = self.entry_size(as_of) {
            self.entries.insert(expr.id, entries);
        }
        self.declare(expr, self.declared.get(&as_of.id).copied());
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            ExprKind::Name { name, .. } => self.local(name)?.entries,
            _ => None,
        }
    }

    fn size_or_unknown(&self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Range::exactly(size));
        }
        if let Some(declared) = self.declared.get(&expr.id) {
            return Some(declared_size(declared));
        }
        if is_scalar(self.ty(expr)) {
            return Some(Range::exactly(1));
        }
        match &expr.kind {
            ExprKind::Name { name, .. } => self.local(name)?.size,
            _ => None,
        }
    }
}

/// What a declaration says about sizes.
fn declared_size(declared: &Declaration) -> Range {
    let max = match (&declared.shape, declared.max) {
        (_, Some(max)) => max,
        (Shape::List { .. } | Shape::Map { .. }, None) => u64::MAX,
        (Shape::Plain(Type::String | Type::Bytes), None) => u64::MAX,
        _ => 0,
    };
    Range { min: 0, max }
}

fn literal_size(expr: &Expr) -> Option<u64> {
    let size = match &expr.kind {
        ExprKind::Literal(Literal::String(text)) => text.chars().count(),
        ExprKind::Literal(Literal::Bytes(bytes)) => bytes.len(),
        ExprKind::Literal(_) => 1,
        ExprKind::List(items) => items.len(),
        ExprKind::Map(entries) => entries.len(),
        _ => return None,
    };
    u64::try_from(size).ok()
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration => {
            true
        }
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}

/// The fixed cost of asking an authorizer.
const CHECK: Range = Range { min: CHECK_COST, max: CHECK_COST };
