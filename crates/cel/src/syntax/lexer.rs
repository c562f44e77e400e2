//! From text to tokens.

use super::literal;
use crate::source::{Mistake, Offset, Place};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Int,
    Uint,
    Float,
    String,
    Bytes,
    Identifier,
    /// A name in backquotes.
    Quoted,
    /// An operator, a bracket, or one of the words `in`, `true`, `false` and `null`.
    Mark(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    pub(crate) text: &'t str,
    pub(crate) at: Offset,
}

/// Longest first.
const MARKS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!",
    "?", ":", "+", "*", "/", "%",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

struct Lexer<'t> {
    rest: &'t str,
    at: Offset,
    tokens: Vec<Token<'t>>,
    mistakes: Vec<Mistake>,
}

/// Tokens, the last of which is the end, and what is none.
pub(crate) fn tokens(text: &str) -> (Vec<Token<'_>>, Vec<Mistake>) {
    let mut lexer = Lexer { rest: text, at: 0, tokens: Vec::new(), mistakes: Vec::new() };
    while lexer.skip_blanks() {
        lexer.next();
    }
    let end = Token { kind: Kind::End, text: "<EOF>", at: lexer.at };
    lexer.tokens.push(end);
    (lexer.tokens, lexer.mistakes)
}

impl<'t> Lexer<'t> {
    /// Whether anything is left.
    fn skip_blanks(&mut self) -> bool {
        loop {
            let blank = self.rest.len()
                - self.rest.trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']).len();
            self.take(blank);
            if !self.rest.starts_with("//") {
                return !self.rest.is_empty();
            }
            let line = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(line);
        }
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        let chars = Offset::try_from(taken.chars().count()).unwrap_or(Offset::MAX);
        self.at = self.at.saturating_add(chars);
        self.rest = rest;
        taken
    }

    fn push(&mut self, kind: Kind, bytes: usize) {
        let at = self.at;
        let text = self.take(bytes);
        self.tokens.push(Token { kind, text, at });
    }

    fn next(&mut self) {
        if let Some(quoted) = literal::scan(self.rest) {
            return match quoted {
                Ok((kind, bytes)) => self.push(kind, bytes),
                Err(bytes) => self.unknown(bytes),
            };
        }
        if let Some((kind, bytes)) = number(self.rest) {
            return self.push(kind, bytes);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if word > 0 {
            let text = &self.rest[..word];
            let mark = WORDS.iter().find(|known| **known == text);
            return self.push(mark.map_or(Kind::Identifier, |mark| Kind::Mark(mark)), word);
        }
        if let Some(bytes) = quoted_name(self.rest) {
            return self.push(Kind::Quoted, bytes);
        }
        match MARKS.iter().find(|mark| self.rest.starts_with(**mark)) {
            Some(mark) => self.push(Kind::Mark(mark), mark.len()),
            None => self.unknown(self.rest.chars().next().map_or(0, char::len_utf8)),
        }
    }

    fn unknown(&mut self, bytes: usize) {
        let at = Place::At(self.at);
        let text = format!("Syntax error: token recognition error at: '{}'", self.take(bytes));
        self.mistakes.push(Mistake { at, text });
    }
}

fn quoted_name(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('`')?;
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "_.-/ ".contains(c);
    let len = inner.find(|c| !is_inner(c))?;
    (len > 0 && inner[len..].starts_with('`')).then_some(len + 2)
}

/// The number that a text begins with.
fn number(text: &str) -> Option<(Kind, usize)> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let hex = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let whole = digits(0);
    let exponent = |from: usize| {
        let is_e = matches!(bytes.get(from), Some(b'e' | b'E'));
        let sign = usize::from(matches!(bytes.get(from + 1), Some(b'+' | b'-')));
        let count = if is_e { digits((from + 1 + sign).min(bytes.len())) } else { 0 };
        if count > 0 { 1 + sign + count } else { 0 }
    };
    if bytes.get(whole) == Some(&b'.') {
        let fraction = digits(whole + 1);
        if fraction > 0 {
            let end = whole + 1 + fraction;
            return Some((Kind::Float, end + exponent(end)));
        }
    }
    if whole == 0 {
        return None;
    }
    let power = exponent(whole);
    if power > 0 {
        return Some((Kind::Float, whole + power));
    }
    let end = match bytes {
        [b'0', b'x', ..] if hex(2) > 0 => 2 + hex(2),
        _ => whole,
    };
    match bytes.get(end) {
        Some(b'u' | b'U') => Some((Kind::Uint, end + 1)),
        _ => Some((Kind::Int, end)),
    }
}
