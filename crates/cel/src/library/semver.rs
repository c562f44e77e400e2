//! Semantic versions.

use std::cmp::Ordering;

use super::{OpaqueValue, no_overload};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_to_semver: semver(string) -> semver
        string_bool_to_semver: semver(string, bool) -> semver
        is_semver_string: isSemver(string) -> bool
        is_semver_string_bool: isSemver(string, bool) -> bool
        semver_is_greater_than: <semver>.isGreaterThan(semver) -> bool
        semver_is_less_than: <semver>.isLessThan(semver) -> bool
        semver_compare_to: <semver>.compareTo(semver) -> int
        semver_major: <semver>.major() -> int
        semver_minor: <semver>.minor() -> int
        semver_patch: <semver>.patch() -> int
    ",
    functions: &[
        ("semver", |args| match parse(args)? {
            Ok(version) => Ok(Value::opaque(OpaqueValue::Semver(version))),
            Err(why) => Err(EvaluationError::failed(why)),
        }),
        ("isSemver", |args| Ok(Value::Bool(parse(args)?.is_ok()))),
        ("major", |args| part(args, 0)),
        ("minor", |args| part(args, 1)),
        ("patch", |args| part(args, 2)),
    ],
};

/// A version.
#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl Semver {
    /// The order of versions, in which what was built does not count.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

fn parse(args: &[Value<'_>]) -> Outcome<Result<Semver, &'static str>> {
    match args {
        [Value::String(text)] => Ok(read(text)),
        [Value::String(text), Value::Bool(false)] => Ok(read(text)),
        [Value::String(text), Value::Bool(true)] => Ok(read(&normalized(text))),
        _ => no_overload(),
    }
}

/// Without a leading `v` and zeros, and with three numbers.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut parts: Vec<&str> = core
        .split('.')
        .map(|part| {
            let short = part.trim_start_matches('0');
            if short.is_empty() && !part.is_empty() { "0" } else { short }
        })
        .collect();
    while parts.len() < 3 && rest.is_empty() {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
}

fn read(text: &str) -> Result<Semver, &'static str> {
    if text.is_empty() {
        return Err("Version string empty");
    }
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (text, None),
    };
    let parts: Vec<&str> = core.split('.').collect();
    let [major, minor, patch] = parts[..] else {
        return Err("No Major.Minor.Patch elements found");
    };
    let numbers = [number(major)?, number(minor)?, number(patch)?];
    let pre = match pre {
        Some(pre) => pre.split('.').map(identifier).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() || !part.bytes().all(is_identifier) {
            return Err("Invalid character(s) found in build meta data");
        }
    }
    Ok(Semver { numbers, pre })
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn number(text: &str) -> Result<u64, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("Invalid character(s) found in version number");
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("Version number must not contain leading zeroes");
    }
    text.parse().map_err(|_| "Version number is too large")
}

fn identifier(text: &str) -> Result<Identifier, &'static str> {
    if text.is_empty() {
        return Err("Prerelease is empty");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text).map(Identifier::Number);
    }
    if text.bytes().all(is_identifier) {
        return Ok(Identifier::Text(text.to_owned()));
    }
    Err("Invalid character(s) found in prerelease")
}

fn part<'a>(args: &[Value<'a>], at: usize) -> Outcome<Value<'a>> {
    let [Value::Opaque(value)] = args else { return no_overload() };
    let OpaqueValue::Semver(version) = &**value else { return no_overload() };
    Ok(Value::Int(i64::try_from(version.numbers[at]).unwrap_or(i64::MAX)))
}
