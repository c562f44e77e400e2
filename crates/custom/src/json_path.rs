//! The paths of printer columns: a subset of JSONPath, as `kubectl` has it.
//!
//! Fields, quoted fields, indexes, slices, wildcards, unions of indexes, filters that compare a
//! field with a literal, and recursive descent.

use std::cmp::Ordering;

use serde_json::Value;

/// Longer paths are refused.
const LENGTH_MAX: usize = 4096;
/// Values that a path may lead to on its way.
const FOUND_MAX: usize = 10_000;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Descend,
    Indexes(Vec<i64>),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: JsonPath,
    /// `None` asks whether the left is there.
    comparison: Option<(Comparison, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Path(JsonPath),
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} in JSON path {path:?}")]
pub struct JsonPathError {
    path: String,
    why: &'static str,
}

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let refuse = |why| JsonPathError { path: text.to_owned(), why };
        if text.len() > LENGTH_MAX {
            return Err(refuse("too many characters"));
        }
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let inner = inner.unwrap_or(text).trim();
        let inner = inner.strip_prefix(['$', '@']).unwrap_or(inner);
        let mut parser = Parser { rest: inner };
        let mut steps = Vec::new();
        while !parser.rest.is_empty() {
            parser.step(&mut steps).map_err(refuse)?;
        }
        Ok(Self(steps))
    }

    /// The values it leads to.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.follow(value, &mut next);
                if next.len() >= FOUND_MAX {
                    break;
                }
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Step::Wildcard, Value::Object(map)) => out.extend(map.values()),
            (Step::Wildcard, Value::Array(items)) => out.extend(items),
            (Step::Descend, _) => descend(value, out),
            (Step::Indexes(indexes), Value::Array(items)) => {
                let at = |index: &i64| items.get(position(*index, items.len())?);
                out.extend(indexes.iter().filter_map(at));
            }
            (Step::Slice { start, end, step }, Value::Array(items)) => {
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let clamp =
                    |index: i64| (if index < 0 { index + length } else { index }).clamp(0, length);
                let (mut at, end) = (clamp(start.unwrap_or(0)), clamp(end.unwrap_or(length)));
                while at < end {
                    out.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
                    at += step.max(&1);
                }
            }
            (Step::Filter(filter), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| filter.holds(item)));
            }
            (Step::Filter(filter), Value::Object(map)) => {
                out.extend(map.values().filter(|item| filter.holds(item)));
            }
            _ => {}
        }
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    if out.len() >= FOUND_MAX {
        return;
    }
    out.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| descend(value, out)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, out)),
        _ => {}
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        return usize::try_from(index).ok();
    }
    length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let left = self.left.find(item);
        let Some((comparison, right)) = &self.comparison else { return !left.is_empty() };
        let right = match right {
            Operand::Literal(value) => Some(value),
            Operand::Path(path) => path.find(item).first().copied(),
        };
        let (Some(left), Some(right)) = (left.first(), right) else { return false };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64().unwrap_or(f64::NAN).partial_cmp(&b.as_f64().unwrap_or(f64::NAN))
            }
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => (*a == b).then_some(Ordering::Equal),
        };
        match comparison {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => {
                matches!(order, Some(Ordering::Greater | Ordering::Equal))
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), &'static str> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            steps.push(Step::Descend);
            self.rest = rest;
            if self.rest.starts_with('[') || self.rest.is_empty() {
                return Ok(());
            }
            return self.name(steps);
        }
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            if self.rest.starts_with('[') || self.rest.is_empty() {
                return Ok(());
            }
            return self.name(steps);
        }
        if self.rest.starts_with('[') {
            return self.bracket(steps);
        }
        self.name(steps)
    }

    fn name(&mut self, steps: &mut Vec<Step>) -> Result<(), &'static str> {
        let mut name = String::new();
        let mut letters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => name.extend(letters.next().map(|(_, escaped)| escaped)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => Err("empty name"),
            "*" => {
                steps.push(Step::Wildcard);
                Ok(())
            }
            _ => {
                steps.push(Step::Field(name));
                Ok(())
            }
        }
    }

    fn bracket(&mut self, steps: &mut Vec<Step>) -> Result<(), &'static str> {
        let end = closing(self.rest).ok_or("unterminated array")?;
        let inside = self.rest[1..end].trim();
        self.rest = &self.rest[end + 1..];
        if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
            steps.push(Step::Filter(parse_filter(filter.trim())?));
        } else if inside == "*" {
            steps.push(Step::Wildcard);
        } else if let Some(name) = quoted(inside) {
            steps.push(Step::Field(name));
        } else if inside.contains(':') {
            let mut parts = inside.split(':').map(|part| match part.trim() {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| "invalid array index"),
            });
            let mut next = || parts.next().unwrap_or(Ok(None));
            let (start, end, step) = (next()?, next()?, next()?);
            steps.push(Step::Slice { start, end, step: step.unwrap_or(1) });
        } else {
            let indexes = inside.split(',').map(|index| index.trim().parse());
            let indexes: Result<Vec<i64>, _> = indexes.collect();
            steps.push(Step::Indexes(indexes.map_err(|_| "invalid array index")?));
        }
        Ok(())
    }
}

/// Where the bracket that opens a text is closed.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            _ if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inner = text[1..].strip_suffix(quote)?;
    let mut out = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            other => out.push(other),
        }
    }
    Some(out)
}

fn parse_filter(text: &str) -> Result<Filter, &'static str> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let side = |text: &str| -> Result<JsonPath, &'static str> {
        JsonPath::parse(text).map_err(|error| error.why)
    };
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, _) => {
                let found = OPERATORS.iter().find(|(word, _)| text[at..].starts_with(word));
                let Some((word, comparison)) = found else { continue };
                let right = text[at + word.len()..].trim();
                let operand = match quoted(right) {
                    Some(text) => Operand::Literal(Value::String(text)),
                    None if right.starts_with('@') => Operand::Path(side(right)?),
                    None => Operand::Literal(
                        serde_json::from_str(right).map_err(|_| "unrecognized operand")?,
                    ),
                };
                let left = side(text[..at].trim())?;
                return Ok(Filter { left, comparison: Some((*comparison, operand)) });
            }
        }
    }
    Ok(Filter { left: side(text)?, comparison: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(path: &str, expected: &[Value]) {
        let object = json!({"spec": {"a": 1, "a.b": 2, "l": [{"p": 1, "n": "x"}, {"p": 2, "n": "y"},
            {"p": 3}]}, "status": {"conditions": [{"type": "Ready", "status": "True"},
            {"type": "Other", "status": "False"}]}});
        let found = JsonPath::parse(path).unwrap();
        let found: Vec<Value> = found.find(&object).into_iter().cloned().collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_lead_to_values() {
        check(".spec.a", &[json!(1)]);
        check(".spec['a.b']", &[json!(2)]);
        check(r".spec.a\.b", &[json!(2)]);
        check(".spec.l[*].p", &[json!(1), json!(2), json!(3)]);
        check(".spec.l[0].p", &[json!(1)]);
        check(".spec.l[-1].p", &[json!(3)]);
        check(".spec.l[0:2].p", &[json!(1), json!(2)]);
        check(".spec.l[0,2].p", &[json!(1), json!(3)]);
        check(r#".status.conditions[?(@.type=="Ready")].status"#, &[json!("True")]);
        check(".spec.l[?(@.p>=2)].p", &[json!(2), json!(3)]);
        check(".spec.l[?(@.n)].n", &[json!("x"), json!("y")]);
        check(".spec.missing", &[]);
        check("..p", &[json!(1), json!(2), json!(3)]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".a[", ".a[x]", ".a[?(@.b==)]"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert!(JsonPath::parse(&".a".repeat(LENGTH_MAX)).is_err());
    }
}
