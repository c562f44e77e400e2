//! Regular expressions, which take time in proportion to the text.

use std::cell::RefCell;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::no_overload;
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        matches: matches(string, string) -> bool
        matches_string: <string>.matches(string) -> bool
        string_find_string: <string>.find(string) -> string
        string_find_all_string: <string>.findAll(string) -> list(string)
        string_find_all_string_int: <string>.findAll(string, int) -> list(string)
    ",
    functions: &[("matches", matches), ("find", find), ("findAll", find_all)],
};

/// Most bytes of a compiled expression.
const MAX_COMPILED: usize = 1 << 20;
/// Most expressions that a thread remembers; literals are compiled with their program.
const MAX_REMEMBERED: usize = 16;

thread_local! {
    static REMEMBERED: RefCell<Vec<(String, Arc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

/// Compiles an expression.
///
/// # Errors
/// When it is none, or needs too much memory.
pub(crate) fn compile(pattern: &str) -> Result<Arc<Regex>, regex::Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).nest_limit(250);
    builder.build().map(Arc::new)
}

/// Compiles an expression that is not known before it is needed.
fn remembered(pattern: &str) -> Outcome<Arc<Regex>> {
    REMEMBERED.with_borrow_mut(|remembered| {
        if let Some((_, regex)) = remembered.iter().find(|(known, _)| known == pattern) {
            return Ok(regex.clone());
        }
        let regex = compile(pattern).map_err(|why| {
            EvaluationError::failed(format!("error parsing regexp: {why}: `{pattern}`"))
        })?;
        if remembered.len() == MAX_REMEMBERED {
            remembered.remove(0);
        }
        remembered.push((pattern.to_owned(), regex.clone()));
        Ok(regex)
    })
}

fn matches<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            Ok(Value::Bool(remembered(pattern)?.is_match(text)))
        }
        _ => no_overload(),
    }
}

fn find<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            let regex = remembered(pattern)?;
            Ok(Value::string(regex.find(text).map_or("", |found| found.as_str())))
        }
        _ => no_overload(),
    }
}

fn find_all<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, usize::MAX),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => {
            (text, pattern, usize::try_from(*limit).unwrap_or(usize::MAX))
        }
        _ => return no_overload(),
    };
    let regex = remembered(pattern)?;
    let found = regex.find_iter(text).take(limit).map(|found| Value::string(found.as_str()));
    Ok(Value::list(found.collect()))
}
