//! Types of expressions, and mistakes about them.
//!
//! Upstream: cel-go's `checker`, with the options of Kubernetes: literals of lists and maps are of
//! one type, numbers of different types can be compared, and literal durations, timestamps and
//! regular expressions are read.

mod call;
mod infer;

use crate::environment::Environment;
use crate::source::{Mistake, Offset, Place};
use crate::syntax::ast::{
    Bind, Entry, Expr, ExprKind, Fold, FoldKind, Item, Literal, Select, StructField,
};
use crate::types::Type;
use infer::Inference;

/// What the names of types with dots begin with.
const NAMESPACES: [&str; 3] = ["google", "kubernetes", "net"];
/// Most parts of a type.
const MAX_TYPE_SIZE: usize = 1_000;

/// What is known of a tree: by number of the expression.
pub(crate) struct Checked {
    pub(crate) types: Vec<Type>,
    /// The overloads that a call may turn out to be.
    pub(crate) overloads: Vec<Vec<&'static str>>,
    pub(crate) references: Vec<Reference>,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reference {
    None,
    /// A variable of the environment.
    Variable(usize),
    /// A type by its name.
    Type(String),
    /// A function of a namespace, with its whole name; its target is no value.
    Function(String),
}

/// Finds the types of everything.
pub(crate) fn check(
    environment: &Environment,
    expr: &Expr,
    count: u32,
) -> Result<Checked, Vec<Mistake>> {
    let count = usize::try_from(count).unwrap_or(0);
    let mut checker = Checker {
        environment,
        types: vec![Type::Dyn; count],
        overloads: vec![Vec::new(); count],
        references: vec![Reference::None; count],
        scopes: Vec::new(),
        inference: Inference::default(),
        mixed: 0,
        mistakes: Vec::new(),
    };
    checker.check(expr);
    if !checker.mistakes.is_empty() {
        return Err(checker.mistakes);
    }
    let inference = checker.inference;
    let types = checker.types.iter().map(|ty| inference.resolve(ty)).collect();
    Ok(Checked { types, overloads: checker.overloads, references: checker.references })
}

struct Checker<'e> {
    environment: &'e Environment,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static str>>,
    references: Vec<Reference>,
    /// Variables of loops, innermost last.
    scopes: Vec<(String, Type)>,
    inference: Inference,
    /// How many calls are around that take lists of items of different types.
    mixed: usize,
    mistakes: Vec<Mistake>,
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

impl Checker<'_> {
    fn check(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            ExprKind::Literal(literal) => literal_type(literal),
            ExprKind::Name { name, is_global } => self.name(expr, name, *is_global),
            ExprKind::Select(select) => self.select(expr, select),
            ExprKind::Call(call) => self.call(expr, call),
            ExprKind::List(items) => self.list(items),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Struct { name, fields } => self.construct(expr, name, fields),
            ExprKind::Fold(fold) => self.fold(expr.at, fold),
            ExprKind::Bind(bind) => self.bind(bind),
            ExprKind::Missing => Type::Error,
        };
        // Types can double with every loop; such a large one is not worth knowing.
        let ty = if ty.is_within(MAX_TYPE_SIZE) { ty } else { Type::Dyn };
        self.types[index(expr.id)] = ty.clone();
        ty
    }

    fn mistake(&mut self, at: Offset, text: String) -> Type {
        self.mistakes.push(Mistake { at: Place::At(at), text });
        Type::Error
    }

    /// A type as mistakes print it.
    fn shown(&self, ty: &Type) -> String {
        self.inference.resolve(ty).short_name()
    }

    fn undeclared(&mut self, at: Offset, name: &str) -> Type {
        self.mistake(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn name(&mut self, expr: &Expr, name: &str, is_global: bool) -> Type {
        let local = self.scopes.iter().rev().find(|(known, _)| known == name && !is_global);
        if let Some((_, ty)) = local {
            return ty.clone();
        }
        match self.known(expr.id, name) {
            Some(ty) => ty,
            None => self.undeclared(expr.at, name),
        }
    }

    /// A variable of the environment or a type.
    fn known(&mut self, id: u32, name: &str) -> Option<Type> {
        if let Some((at, ty)) = self.environment.variable(name) {
            self.references[index(id)] = Reference::Variable(at);
            return Some(ty);
        }
        let ty = named_type(name)?;
        self.references[index(id)] = Reference::Type(name.to_owned());
        Some(Type::Type(ty.into()))
    }

    fn select(&mut self, expr: &Expr, select: &Select) -> Type {
        if !select.is_test
            && !select.is_optional
            && self.may_be_qualified(expr)
            && let Some(name) = self.qualified(expr)
            && let Some(ty) = self.known(expr.id, &name)
        {
            return ty;
        }
        let operand = self.check(&select.operand);
        let operand = self.inference.resolve(&operand);
        let (inner, is_optional) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &inner {
            Type::Dyn | Type::Error => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Object(fields) => match fields.field_type(&select.field) {
                Some(ty) => ty,
                None => {
                    return self.mistake(expr.at, format!("undefined field '{}'", select.field));
                }
            },
            other => {
                let text = format!("type '{}' does not support field selection", self.shown(other));
                return self.mistake(expr.at, text);
            }
        };
        if select.is_test {
            return Type::Bool;
        }
        match found {
            Type::Optional(_) => found,
            found if is_optional || select.is_optional => Type::optional(found),
            found => found,
        }
    }

    /// Whether names with dots begin as this expression does. Most do not, and the whole name of a
    /// long chain is not to be made at each of its links.
    fn may_be_qualified(&self, expr: &Expr) -> bool {
        let mut root = expr;
        while let ExprKind::Select(select) = &root.kind {
            root = &select.operand;
        }
        match &root.kind {
            ExprKind::Name { name, .. } => {
                NAMESPACES.contains(&name.as_str()) || self.environment.has_names_below(name)
            }
            _ => false,
        }
    }

    /// `a.b.c` as one name, unless it begins with a variable of a loop.
    fn qualified(&self, expr: &Expr) -> Option<String> {
        match &expr.kind {
            ExprKind::Name { name, is_global } => {
                let is_local = self.scopes.iter().any(|(known, _)| known == name);
                (*is_global || !is_local).then(|| name.clone())
            }
            ExprKind::Select(select) if !select.is_test && !select.is_optional => {
                let operand = self.qualified(&select.operand)?;
                Some(format!("{operand}.{}", select.field))
            }
            _ => None,
        }
    }

    fn list(&mut self, items: &[Item]) -> Type {
        let mut joined = None;
        for item in items {
            let ty = self.check(&item.value);
            let ty = self.unwrapped(ty, item.is_optional, item.value.at);
            joined = Some(self.join(joined, ty, item.value.at));
        }
        let item = joined.unwrap_or_else(|| self.inference.fresh());
        Type::list(item)
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(keys, key, entry.key.at));
            let value = self.check(&entry.value);
            let value = self.unwrapped(value, entry.is_optional, entry.value.at);
            values = Some(self.join(values, value, entry.value.at));
        }
        let key = keys.unwrap_or_else(|| self.inference.fresh());
        let value = values.unwrap_or_else(|| self.inference.fresh());
        Type::map(key, value)
    }

    /// What is in an optional item.
    fn unwrapped(&mut self, ty: Type, is_optional: bool, at: Offset) -> Type {
        if !is_optional {
            return ty;
        }
        match self.inference.resolve(&ty) {
            Type::Optional(inner) => (*inner).clone(),
            other if other.is_dyn() => other,
            other => {
                let expected = Type::optional(other.clone());
                let text = format!(
                    "expected type '{}' but found '{}'",
                    self.shown(&expected),
                    self.shown(&other)
                );
                self.mistake(at, text)
            }
        }
    }

    /// The one type of items of a literal.
    fn join(&mut self, joined: Option<Type>, next: Type, at: Offset) -> Type {
        let Some(joined) = joined else { return next };
        if joined.is_dyn() || next.is_dyn() {
            return Type::Dyn;
        }
        if self.inference.assign(&joined, &next) {
            // Null fits an object, and then it is a list of objects.
            return if matches!(joined, Type::Null) { next } else { joined };
        }
        if self.mixed > 0 {
            return Type::Dyn;
        }
        let text =
            format!("expected type '{}' but found '{}'", self.shown(&joined), self.shown(&next));
        self.mistake(at, text)
    }

    fn construct(&mut self, expr: &Expr, name: &str, fields: &[StructField]) -> Type {
        let Some(ty) = self.environment.constructible(name) else {
            for field in fields {
                self.check(&field.value);
            }
            return self.undeclared(expr.at, name);
        };
        let Type::Object(declared) = &ty else { return Type::Error };
        for field in fields {
            let actual = self.check(&field.value);
            let actual = self.unwrapped(actual, field.is_optional, field.value.at);
            let Some(expected) = declared.field_type(&field.name) else {
                self.mistake(field.at, format!("undefined field '{}'", field.name));
                continue;
            };
            if !self.inference.assign(&expected, &actual) {
                let text = format!(
                    "expected type of field '{}' is '{}' but provided type is '{}'",
                    field.name,
                    self.shown(&expected),
                    self.shown(&actual)
                );
                self.mistake(field.at, text);
            }
        }
        ty
    }

    fn bind(&mut self, bind: &Bind) -> Type {
        let value = self.check(&bind.value);
        self.scopes.push((bind.name.clone(), value));
        let body = self.check(&bind.body);
        self.scopes.pop();
        body
    }

    fn fold(&mut self, at: Offset, fold: &Fold) -> Type {
        let range = self.check(&fold.range);
        let range = self.inference.resolve(&range);
        let (key, item) = match &range {
            Type::List(item) => (Type::Int, (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            other if other.is_dyn() => (Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, \
                     map, or dynamic)",
                    self.shown(other)
                );
                self.mistake(fold.range.at, text);
                (Type::Error, Type::Error)
            }
        };
        match &fold.second {
            Some(second) => {
                self.scopes.push((fold.first.clone(), key.clone()));
                self.scopes.push((second.clone(), item));
            }
            None => {
                let single = if matches!(range, Type::Map(..)) { key.clone() } else { item };
                self.scopes.push((fold.first.clone(), single));
            }
        }
        let ty = self.folded(at, fold, key);
        self.scopes.truncate(self.scopes.len() - 1 - usize::from(fold.second.is_some()));
        ty
    }

    fn folded(&mut self, at: Offset, fold: &Fold, key: Type) -> Type {
        let filter = fold.filter.as_ref().map(|filter| self.check(filter));
        let step = self.check(&fold.step);
        let result = match fold.kind {
            FoldKind::List => Type::list(step.clone()),
            FoldKind::Map => Type::map(key, step.clone()),
            FoldKind::MapEntry => step.clone(),
            _ => Type::Bool,
        };
        let mut must_be_bool = |ty: &Type, operator: &str, before: &str, after: &str| {
            if !self.inference.assign(&Type::Bool, ty) {
                let shown = self.shown(ty);
                let text = format!(
                    "found no matching overload for '{operator}' applied to \
                     '({before}{shown}{after})'"
                );
                self.mistake(at, text);
            }
        };
        match fold.kind {
            FoldKind::All => must_be_bool(&step, "_&&_", "bool, ", ""),
            FoldKind::Exists => must_be_bool(&step, "_||_", "bool, ", ""),
            FoldKind::ExistsOne => must_be_bool(&step, "_?_:_", "", ", int, int"),
            _ => {}
        }
        if let Some(filter) = filter {
            let shown = result.short_name();
            must_be_bool(&filter, "_?_:_", "", &format!(", {shown}, {shown}"));
        }
        result
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// Types that have names as values.
fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(Type::Dyn.into()),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        other => Type::Opaque(
            crate::library::OPAQUES.iter().map(|(_, name)| *name).find(|n| *n == other)?,
        ),
    })
}
