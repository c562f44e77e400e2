//! Calls that are not calls: what loops, tests and binds.

use super::ast::{Bind, Call, Expr, ExprKind, Fold, FoldKind, operator};
use super::parser::Parser;
use crate::source::Offset;

/// A call without a target.
pub(super) fn global(parser: &mut Parser<'_>, at: Offset, name: String, args: Vec<Expr>) -> Expr {
    if name == "has" && args.len() == 1 {
        return has(parser, at, args);
    }
    let call = Call { function: name, target: None, args };
    parser.expr(at, ExprKind::Call(Box::new(call)))
}

fn has(parser: &mut Parser<'_>, at: Offset, mut args: Vec<Expr>) -> Expr {
    match args.pop().map(|arg| (arg.at, arg.kind)) {
        Some((_, ExprKind::Select(mut select))) if !select.is_optional => {
            select.is_test = true;
            parser.expr(at, ExprKind::Select(select))
        }
        arg => {
            let place = arg.map_or(at, |(place, _)| place);
            parser.mistake(place, "invalid argument to has() macro");
            parser.expr(at, ExprKind::Missing)
        }
    }
}

/// A call of a method.
pub(super) fn member(
    parser: &mut Parser<'_>,
    at: Offset,
    target: Expr,
    name: String,
    args: Vec<Expr>,
) -> Expr {
    let kind = match (&*name, args.len()) {
        ("all", 2 | 3) => FoldKind::All,
        ("exists", 2 | 3) => FoldKind::Exists,
        ("exists_one", 2) | ("existsOne", 2 | 3) => FoldKind::ExistsOne,
        ("map", 2 | 3) | ("filter", 2) | ("transformList", 3 | 4) => FoldKind::List,
        ("transformMap", 3 | 4) => FoldKind::Map,
        ("transformMapEntry", 3 | 4) => FoldKind::MapEntry,
        ("sortBy", 2) => return sort_by(parser, at, target, args),
        ("optMap" | "optFlatMap", 2) => return optional(parser, at, target, &name, args),
        _ => {
            let call = Call { function: name, target: Some(target), args };
            return parser.expr(at, ExprKind::Call(Box::new(call)));
        }
    };
    let has_two = name.starts_with("transform") || (args.len() == 3 && name != "map");
    fold(parser, at, target, &name, kind, has_two, args)
}

fn fold(
    parser: &mut Parser<'_>,
    at: Offset,
    range: Expr,
    name: &str,
    kind: FoldKind,
    has_two: bool,
    args: Vec<Expr>,
) -> Expr {
    let mut args = args.into_iter();
    let first = variable(parser, args.next(), name, has_two);
    let second = if has_two { variable(parser, args.next(), name, true) } else { None };
    let (Some(first), Some(step)) = (first, args.next()) else {
        return parser.expr(at, ExprKind::Missing);
    };
    if has_two && second.is_none() {
        return parser.expr(at, ExprKind::Missing);
    }
    if second.as_ref() == Some(&first) {
        parser.mistake(at, format!("duplicate variable name: {first}"));
    }
    let (filter, step) = match args.next() {
        Some(transform) => (Some(step), transform),
        None if name == "filter" => {
            let kind = ExprKind::Name { name: first.clone(), is_global: false };
            let item = parser.expr(at, kind);
            (Some(step), item)
        }
        None => (None, step),
    };
    let fold = Fold { kind, range, first, second, filter, step };
    parser.expr(at, ExprKind::Fold(Box::new(fold)))
}

/// The name that an argument gives.
fn variable(
    parser: &mut Parser<'_>,
    arg: Option<Expr>,
    function: &str,
    has_two: bool,
) -> Option<String> {
    let arg = arg?;
    match arg.kind {
        ExprKind::Name { name, is_global: false } => {
            if name == "__result__" {
                parser.mistake(arg.at, "iteration variable overwrites accumulator variable");
            }
            return Some(name);
        }
        ExprKind::Missing => {}
        _ => parser.mistake(
            arg.at,
            match function {
                "map" | "filter" | "transformList" | "transformMap" | "transformMapEntry"
                    if !has_two =>
                {
                    "argument is not an identifier"
                }
                _ => "argument must be a simple name",
            },
        ),
    }
    None
}

/// `list.sortBy(name, key)`: the list in the order of what `key` makes of each item.
fn sort_by(parser: &mut Parser<'_>, at: Offset, list: Expr, args: Vec<Expr>) -> Expr {
    let held = "@list";
    let name = |parser: &mut Parser<'_>| {
        parser.expr(at, ExprKind::Name { name: held.to_owned(), is_global: false })
    };
    let range = name(parser);
    let keys = fold(parser, at, range, "map", FoldKind::List, false, args);
    let function = "@sortByAssociatedKeys".to_owned();
    let call = Call { function, target: Some(name(parser)), args: vec![keys] };
    let body = parser.expr(at, ExprKind::Call(Box::new(call)));
    parser.expr(at, ExprKind::Bind(Box::new(Bind { name: held.to_owned(), value: list, body })))
}

/// `target.optMap(name, body)`: the body about the value, if there is one.
fn optional(
    parser: &mut Parser<'_>,
    at: Offset,
    target: Expr,
    function: &str,
    args: Vec<Expr>,
) -> Expr {
    let mut args = args.into_iter();
    let (name, body) = (args.next(), args.next());
    let name = match name.map(|name| (name.at, name.kind)) {
        Some((_, ExprKind::Name { name, is_global: false })) => name,
        other => {
            let place = other.map_or(at, |(place, _)| place);
            parser
                .mistake(place, format!("{function}() variable name must be a simple identifier"));
            return parser.expr(at, ExprKind::Missing);
        }
    };
    let Some(body) = body else { return parser.expr(at, ExprKind::Missing) };
    // The target is named, so that it is evaluated once.
    let held = "@target";
    let of = |parser: &mut Parser<'_>, method: &str| {
        let kind = ExprKind::Name { name: held.to_owned(), is_global: false };
        let target = Some(parser.expr(at, kind));
        let call = Call { function: method.to_owned(), target, args: Vec::new() };
        parser.expr(at, ExprKind::Call(Box::new(call)))
    };
    let (present, value) = (of(parser, "hasValue"), of(parser, "value"));
    let bound = Bind { name, value, body };
    let mut some = parser.expr(at, ExprKind::Bind(Box::new(bound)));
    if function == "optMap" {
        some = parser.call(at, "optional.of", vec![some]);
    }
    let none = parser.call(at, "optional.none", Vec::new());
    let chosen = parser.call(at, operator::CONDITIONAL, vec![present, some, none]);
    let bound = Bind { name: held.to_owned(), value: target, body: chosen };
    parser.expr(at, ExprKind::Bind(Box::new(bound)))
}
