//! The tree of an expression. Macros are expanded; what loops is one [`Fold`].

use std::sync::Arc;

use crate::source::Offset;

/// An expression, its place, and its number: what the checker finds out is kept by number.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) at: Offset,
    pub(crate) id: u32,
    /// How many expressions lie within each other, this one included.
    pub(crate) height: u16,
    pub(crate) kind: ExprKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Literal(Literal),
    /// A name; with a leading dot it is not that of a local variable.
    Name {
        name: String,
        is_global: bool,
    },
    Select(Box<Select>),
    Call(Box<Call>),
    List(Vec<Item>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<StructField>,
    },
    Fold(Box<Fold>),
    Bind(Box<Bind>),
    /// What could not be read; a mistake was reported.
    Missing,
}

impl ExprKind {
    /// One more than that of the tallest expression in it.
    pub(crate) fn height(&self) -> u16 {
        let tallest = match self {
            Self::Literal(_) | Self::Name { .. } | Self::Missing => 0,
            Self::Select(select) => select.operand.height,
            Self::Call(call) => tallest(call.args.iter().chain(&call.target)),
            Self::List(items) => tallest(items.iter().map(|item| &item.value)),
            Self::Map(entries) => {
                tallest(entries.iter().flat_map(|entry| [&entry.key, &entry.value]))
            }
            Self::Struct { fields, .. } => tallest(fields.iter().map(|field| &field.value)),
            Self::Fold(fold) => tallest([&fold.range, &fold.step].into_iter().chain(&fold.filter)),
            Self::Bind(bind) => tallest([&bind.value, &bind.body]),
        };
        tallest.saturating_add(1)
    }
}

fn tallest<'e>(inner: impl IntoIterator<Item = &'e Expr>) -> u16 {
    inner.into_iter().map(|expr| expr.height).max().unwrap_or(0)
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Clone, Debug)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: String,
    /// `has(operand.field)`.
    pub(crate) is_test: bool,
    /// `operand.?field`.
    pub(crate) is_optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) target: Option<Expr>,
    pub(crate) args: Vec<Expr>,
}

/// An item of a list; optional ones may turn out to be none.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Expr,
    pub(crate) is_optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) is_optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct StructField {
    pub(crate) at: Offset,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) is_optional: bool,
}

/// What a loop over a list or map makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// A list of what the step makes of each item.
    List,
    /// A map with the same keys.
    Map,
    /// A map of the entries that the step makes.
    MapEntry,
}

#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) kind: FoldKind,
    pub(crate) range: Expr,
    pub(crate) first: String,
    pub(crate) second: Option<String>,
    pub(crate) filter: Option<Expr>,
    pub(crate) step: Expr,
}

/// A value with a name, for the second expression alone.
#[derive(Clone, Debug)]
pub(crate) struct Bind {
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) body: Expr,
}

/// Names of the operators, as mistakes have them.
pub(crate) mod operator {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const IN: &str = "@in";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPTIONAL_INDEX: &str = "_[?_]";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const NOT_EQUALS: &str = "_!=_";
    pub(crate) const ADD: &str = "_+_";
}
