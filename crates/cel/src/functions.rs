//! Functions: their declarations, and what runs them.
//!
//! A declaration is a line `id: name(parameters) -> result`; methods have the type of what they are
//! called on in angle brackets: `id: <type>.name(parameters) -> result`. `A` and `B` stand for any
//! type.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::error::Outcome;
use crate::library;
use crate::types::Type;
use crate::value::Value;

/// Runs a function; what a method is called on is the first argument.
pub(crate) type Run = for<'a> fn(&[Value<'a>]) -> Outcome<Value<'a>>;

/// Functions that belong together.
pub(crate) struct Library {
    pub(crate) declarations: &'static str,
    pub(crate) functions: &'static [(&'static str, Run)],
}

/// A function with all its overloads.
pub(crate) struct Function {
    pub(crate) overloads: Vec<Overload>,
    pub(crate) run: Option<Run>,
}

/// A function for arguments of certain types.
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) is_method: bool,
    pub(crate) parameters: Vec<Type>,
    pub(crate) result: Type,
}

/// Comparisons of numbers of different types, too.
const COMPARISONS: [(&str, &str); 4] =
    [("_<_", "less"), ("_<=_", "less_equals"), ("_>_", "greater"), ("_>=_", "greater_equals")];

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for library in library::LIBRARIES {
        for line in library.declarations.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some((name, overload)) = declaration(line) {
                entry(&mut functions, name).overloads.push(overload);
            }
        }
        for (name, run) in library.functions {
            entry(&mut functions, name).run = Some(*run);
        }
    }
    for (name, stem) in COMPARISONS {
        entry(&mut functions, name).overloads = comparisons(stem);
    }
    functions
});

fn entry<'f>(
    functions: &'f mut HashMap<&'static str, Function>,
    name: &'static str,
) -> &'f mut Function {
    functions.entry(name).or_insert_with(|| Function { overloads: Vec::new(), run: None })
}

/// A function by its name, with the names of those of a namespace in full.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

/// Every combination of types that can be compared. Only strings and bytes have ids that matter.
fn comparisons(stem: &'static str) -> Vec<Overload> {
    let numbers = [Type::Int, Type::Uint, Type::Double];
    let mixed = numbers.iter().flat_map(|a| numbers.iter().map(|b| (a.clone(), b.clone())));
    let same = [Type::Bool, Type::String, Type::Bytes, Type::Timestamp, Type::Duration];
    let same = same.into_iter().map(|ty| (ty.clone(), ty));
    mixed
        .chain(same)
        .map(|(a, b)| {
            let id = match a {
                Type::String => "compare_string",
                Type::Bytes => "compare_bytes",
                _ => stem,
            };
            Overload { id, is_method: false, parameters: vec![a, b], result: Type::Bool }
        })
        .collect()
}

/// Reads a line. The lines are the crate's own and checked by a test, so that one which cannot be
/// read is left out rather than reported.
fn declaration(line: &'static str) -> Option<(&'static str, Overload)> {
    let (id, rest) = line.split_once(": ")?;
    let (signature, result) = rest.split_once(" -> ")?;
    let (receiver, call) = match signature.strip_prefix('<') {
        Some(rest) => {
            let (receiver, call) = rest.split_once(">.")?;
            (Some(receiver), call)
        }
        None => (None, signature),
    };
    let (name, parameters) = call.strip_suffix(')')?.split_once('(')?;
    let mut types: Vec<Type> = receiver.map(ty).into_iter().collect::<Option<_>>()?;
    for parameter in split(parameters) {
        types.push(ty(parameter)?);
    }
    let overload =
        Overload { id, is_method: receiver.is_some(), parameters: types, result: ty(result)? };
    Some((name, overload))
}

/// At commas that are in no brackets.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        out.push(last);
    }
    out
}

fn ty(text: &'static str) -> Option<Type> {
    if let Some((name, inner)) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        let mut inner = split(inner).into_iter().map(ty).collect::<Option<Vec<_>>>()?.into_iter();
        let first = Arc::new(inner.next()?);
        return Some(match name {
            "list" => Type::List(first),
            "map" => Type::Map(first, Arc::new(inner.next()?)),
            "optional" => Type::Optional(first),
            "type" => Type::Type(first),
            _ => return None,
        });
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "A" => Type::Parameter(0),
        "B" => Type::Parameter(1),
        other => Type::Opaque(library::opaque(other)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declaration_can_be_read_and_is_run_by_something() {
        for library in library::LIBRARIES {
            for line in library.declarations.lines().map(str::trim).filter(|l| !l.is_empty()) {
                assert!(declaration(line).is_some(), "{line}");
            }
        }
        let operators = ["_?_:_", "_||_", "_&&_"];
        for (name, function) in FUNCTIONS.iter() {
            assert!(!function.overloads.is_empty(), "{name} is not declared");
            assert!(function.run.is_some() || operators.contains(name), "{name} is not run");
        }
    }
}
