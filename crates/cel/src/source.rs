//! The text of an expression, places in it, and what is wrong with it.

use std::fmt;

/// A place in a text: a number of characters from its beginning.
pub(crate) type Offset = u32;

/// Most mistakes that are told, and longest line that is shown. Upstream: cel-go's `common`.
const MAX_TOLD: usize = 100;
const MAX_LINE: usize = 16_384;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) at: Place,
    pub(crate) text: String,
}

/// Where a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In no place: the text as a whole.
    Nowhere,
    /// A character.
    At(Offset),
}

/// Everything that is wrong with an expression. Its text is upstream's, one mistake per paragraph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors {
    text: String,
}

impl CompileErrors {
    pub(crate) fn new(source: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.at);
        mistakes.dedup();
        let told = mistakes.iter().take(MAX_TOLD);
        let mut printed: Vec<String> = told.map(|mistake| print(source, mistake)).collect();
        if let Some(more) = mistakes.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            printed.push(format!("{more} more errors were truncated"));
        }
        Self { text: printed.join("\n") }
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CompileErrors {}

/// Upstream's form: place and message, then the line, then a pointer to the character.
fn print(source: &str, mistake: &Mistake) -> String {
    let Place::At(offset) = mistake.at else {
        return format!("ERROR: <input>:-1:0: {}", mistake.text);
    };
    let (line, column) = position(source, offset);
    let text = source.split('\n').nth(line).unwrap_or("");
    if source.is_empty() {
        return format!("ERROR: <input>:1:0: {}", mistake.text);
    }
    let mut out = format!("ERROR: <input>:{}:{}: {}", line + 1, column + 1, mistake.text);
    if text.len() > MAX_LINE {
        return out;
    }
    let is_wide = |c: char| c.len_utf8() > 1;
    let shown: String = text.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    out.push_str("\n | ");
    out.push_str(&shown);
    out.push_str("\n | ");
    out.extend(text.chars().take(column).map(|c| if is_wide(c) { '．' } else { '.' }));
    let is_pointed_wide = text.chars().nth(column).is_some_and(is_wide);
    out.push(if is_pointed_wide { '＾' } else { '^' });
    out
}

/// Line and column, both from zero.
fn position(source: &str, offset: Offset) -> (usize, usize) {
    let (mut line, mut column) = (0, 0);
    for c in source.chars().take(usize::try_from(offset).unwrap_or(usize::MAX)) {
        if c == '\n' {
            line += 1;
            column = 0;
        } else {
            column += 1;
        }
    }
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_point_at_their_character() {
        let at = |source: &str, offset| {
            let mistake = Mistake { at: Place::At(offset), text: "m".to_owned() };
            CompileErrors::new(source, vec![mistake]).to_string()
        };
        assert_eq!(at("ab", 1), "ERROR: <input>:1:2: m\n | ab\n | .^");
        assert_eq!(at("a\n\tb", 3), "ERROR: <input>:2:2: m\n |  b\n | .^");
        assert_eq!(at("é!", 1), "ERROR: <input>:1:2: m\n | é!\n | ．^");
        assert_eq!(at("", 0), "ERROR: <input>:1:0: m");
    }
}
