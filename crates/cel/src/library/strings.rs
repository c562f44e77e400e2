//! Functions about strings: those of the language, and version 2 of cel-go's extension.
//!
//! Places in strings count characters.

use super::{no_overload, only_text};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::{Text, Value};

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        contains_string: <string>.contains(string) -> bool
        starts_with_string: <string>.startsWith(string) -> bool
        ends_with_string: <string>.endsWith(string) -> bool
        string_char_at_int: <string>.charAt(int) -> string
        string_index_of_string: <string>.indexOf(string) -> int
        string_index_of_string_int: <string>.indexOf(string, int) -> int
        string_last_index_of_string: <string>.lastIndexOf(string) -> int
        string_last_index_of_string_int: <string>.lastIndexOf(string, int) -> int
        list_join: <list(string)>.join() -> string
        list_join_string: <list(string)>.join(string) -> string
        string_lower_ascii: <string>.lowerAscii() -> string
        string_upper_ascii: <string>.upperAscii() -> string
        string_replace_string_string: <string>.replace(string, string) -> string
        string_replace_string_string_int: <string>.replace(string, string, int) -> string
        string_split_string: <string>.split(string) -> list(string)
        string_split_string_int: <string>.split(string, int) -> list(string)
        string_substring_int: <string>.substring(int) -> string
        string_substring_int_int: <string>.substring(int, int) -> string
        string_trim: <string>.trim() -> string
        strings_quote: strings.quote(string) -> string
    ",
    functions: &[
        ("contains", |args| test(args, |text, part| text.contains(part))),
        ("startsWith", |args| test(args, |text, part| text.starts_with(part))),
        ("endsWith", |args| test(args, |text, part| text.ends_with(part))),
        ("charAt", char_at),
        ("join", join),
        ("lowerAscii", |args| Ok(Value::string(only_text(args)?.to_ascii_lowercase()))),
        ("upperAscii", |args| Ok(Value::string(only_text(args)?.to_ascii_uppercase()))),
        ("replace", replace),
        ("split", split),
        ("substring", substring),
        ("trim", |args| Ok(Value::string(only_text(args)?.trim()))),
        ("strings.quote", |args| Ok(Value::string(quote(only_text(args)?)))),
    ],
};

/// Longest text that `replace` and `join` make.
const MAX_LENGTH: usize = 16 << 20;

fn test<'a>(args: &[Value<'a>], fits: fn(&str, &str) -> bool) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(fits(text, part))),
        _ => no_overload(),
    }
}

fn out_of_range<T>(at: i64) -> Outcome<T> {
    Err(EvaluationError::failed(format!("index out of range: {at}")))
}

/// The byte at which a character begins; the end of the text counts.
fn offset(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    if text.is_ascii() {
        return (at <= text.len()).then_some(at);
    }
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(byte, _)| byte).chain(ends).nth(at)
}

fn count(text: &str) -> i64 {
    i64::try_from(crate::value::text::characters(text)).unwrap_or(i64::MAX)
}

fn char_at<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::String(text), Value::Int(at)] = args else { return no_overload() };
    match offset(text, *at) {
        Some(byte) => {
            let c = text[byte..].chars().next().map(String::from).unwrap_or_default();
            Ok(Value::string(c))
        }
        None => out_of_range(*at),
    }
}

/// `indexOf` and `lastIndexOf` about strings.
pub(super) fn index_of<'a>(args: &[Value<'a>], is_last: bool) -> Outcome<Value<'a>> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, Some(*from)),
        _ => return no_overload(),
    };
    let found = match (is_last, from) {
        (false, from) => {
            let from = from.unwrap_or(0);
            let Some(start) = offset(text, from) else { return out_of_range(from) };
            text[start..].find(&**part).map(|at| at + start)
        }
        (true, None) => text.rfind(&**part),
        (true, Some(from)) => {
            let Some(start) = offset(text, from) else { return out_of_range(from) };
            let end = text.len().min(start + part.len());
            // An end within a character is before anything that begins there.
            (0..=end)
                .rev()
                .find(|end| text.is_char_boundary(*end))
                .and_then(|end| text[..end].rfind(&**part))
        }
    };
    Ok(Value::Int(found.map_or(-1, |at| count(&text[..at]))))
}

fn join<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (list, separator) = match args {
        [list] => (list, ""),
        [list, Value::String(separator)] => (list, &**separator),
        _ => return no_overload(),
    };
    let mut out = String::new();
    for (at, item) in list.items().ok_or(EvaluationError::NoSuchOverload)?.enumerate() {
        let Value::String(item) = &item else { return no_overload() };
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
        bounded(out.len())?;
    }
    Ok(Value::string(out))
}

fn bounded(len: usize) -> Outcome<()> {
    if len > MAX_LENGTH { Err(EvaluationError::CostLimitExceeded) } else { Ok(()) }
}

fn replace<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => {
            (text, old, new, *limit)
        }
        _ => return no_overload(),
    };
    let times = text.matches(&**old).count();
    bounded(text.len().saturating_add(times.saturating_mul(new.len())))?;
    let replaced = match usize::try_from(limit) {
        Ok(limit) => text.replacen(&**old, new, limit),
        Err(_) => text.replace(&**old, new),
    };
    Ok(Value::string(replaced))
}

fn split<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => {
            (text, separator, *limit)
        }
        _ => return no_overload(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<String> = if limit == 0 {
        Vec::new()
    } else if separator.is_empty() {
        let mut chars = text.chars();
        let mut parts: Vec<String> = chars.by_ref().take(limit - 1).map(String::from).collect();
        let rest = chars.as_str();
        if !rest.is_empty() {
            parts.push(rest.to_owned());
        }
        parts
    } else {
        text.splitn(limit, &**separator).map(str::to_owned).collect()
    };
    Ok(Value::list(parts.into_iter().map(Value::string).collect()))
}

fn substring<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, from, to) = match args {
        [Value::String(text), Value::Int(from)] => (text, *from, None),
        [Value::String(text), Value::Int(from), Value::Int(to)] => (text, *from, Some(*to)),
        _ => return no_overload(),
    };
    if let Some(to) = to.filter(|to| *to < from) {
        let text = format!("invalid substring range. start: {from}, end: {to}");
        return Err(EvaluationError::failed(text));
    }
    let Some(start) = offset(text, from) else { return out_of_range(from) };
    let end = match to {
        None => text.len(),
        Some(to) => match offset(text, to) {
            Some(end) => end,
            None => return out_of_range(to),
        },
    };
    Ok(match text {
        Text::Borrowed(text) => Value::String(Text::Borrowed(&text[start..end])),
        Text::Shared(text) => Value::string(&text[start..end]),
    })
}

/// In quotes, with escapes.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as mistakes show it.
pub(crate) fn plain(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double(*value),
        other => other.type_name().to_string(),
    }
}

/// A double as Go prints it with as many digits as it takes.
pub(crate) fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let (sign, exponent) = (if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs());
    format!("{mantissa}e{sign}{exponent:02}")
}
