//! A scanner of JSON whose errors are worded as Go's `encoding/json` words them.

use std::borrow::Cow;

use serde_json::Number;

/// Go's own limit on nesting while it only scans.
const MAX_SCAN_DEPTH: usize = 10_000;

/// A syntax error, in Go's words.
pub(super) type Syntax = String;

#[derive(Clone)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

/// The text of a number and where it may go.
pub(super) struct NumberText<'a>(pub(super) &'a str);

impl NumberText<'_> {
    /// As Kubernetes decodes a number of unknown type: integer if it is one, else double.
    pub(super) fn to_number(&self) -> Option<Number> {
        if let Ok(integer) = self.0.parse::<i64>() {
            return Some(integer.into());
        }
        Number::from_f64(self.0.parse().ok()?)
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte that is not white space, not consumed.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// The next byte at the start of a value.
    pub(super) fn peek_value(&mut self) -> Result<u8, Syntax> {
        match self.peek() {
            None => Err(end_of_input()),
            Some(byte @ (b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9')) => Ok(byte),
            Some(_) => Err(self.unexpected("looking for beginning of value")),
        }
    }

    pub(super) fn unexpected(&self, context: &str) -> Syntax {
        match self.bytes.get(self.at) {
            Some(byte) => format!("invalid character {} {context}", quote(*byte)),
            None => end_of_input(),
        }
    }

    /// Consumes the opening bracket; whether the collection is empty (then also the closing one).
    pub(super) fn open(&mut self, close: u8) -> bool {
        self.at += 1;
        if self.peek() == Some(close) {
            self.at += 1;
            return true;
        }
        false
    }

    /// After an item: whether another one follows.
    pub(super) fn next_item(&mut self, close: u8) -> Result<bool, Syntax> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ if close == b'}' => Err(self.unexpected("after object key:value pair")),
            _ => Err(self.unexpected("after array element")),
        }
    }

    /// A key and its colon.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string; the scanner stands on its opening quote.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Syntax> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(String::from_utf8_lossy(&self.bytes[start..at]));
                }
                Some(b'\\') => return self.escaped_string(start, at),
                Some(0..=0x1f) => {
                    self.at = at;
                    return Err(self.unexpected("in string literal"));
                }
                Some(_) => at += 1,
                None => return Err(end_of_input()),
            }
        }
    }

    fn escaped_string(&mut self, start: usize, at: usize) -> Result<Cow<'a, str>, Syntax> {
        let mut out = String::from_utf8_lossy(&self.bytes[start..at]).into_owned();
        self.at = at;
        loop {
            let plain = self.at;
            while self.bytes.get(self.at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            out.push_str(&String::from_utf8_lossy(&self.bytes[plain..self.at]));
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.unexpected("in string literal")),
                None => return Err(end_of_input()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        let Some(byte) = self.bytes.get(self.at) else { return Err(end_of_input()) };
        let simple = match byte {
            b'"' | b'\\' | b'/' => char::from(*byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode_escape(&mut self) -> Result<char, Syntax> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        // A high surrogate wants a low one after it; alone it is replaced.
        let back = self.at;
        if self.bytes[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Syntax> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.bytes.get(self.at).and_then(|byte| char::from(*byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// A number; the scanner stands on its first byte.
    pub(super) fn number(&mut self) -> Result<NumberText<'a>, Syntax> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.at_digit() {
                return Err(self.unexpected("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.at_digit() {
                return Err(self.unexpected("in exponent of numeric literal"));
            }
            self.digits();
        }
        // Only ASCII was accepted.
        Ok(NumberText(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("0")))
    }

    fn at_digit(&self) -> bool {
        self.bytes.get(self.at).is_some_and(u8::is_ascii_digit)
    }

    fn digits(&mut self) {
        while self.at_digit() {
            self.at += 1;
        }
    }

    /// `true`, `false` or `null`; the scanner stands on its first letter.
    pub(super) fn literal(&mut self, word: &'static str) -> Result<(), Syntax> {
        for expected in word.bytes() {
            if self.bytes.get(self.at) != Some(&expected) {
                let context = format!("in literal {word} (expecting {})", quote(expected));
                return Err(self.unexpected(&context));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Passes over a key and its colon.
    fn skip_key(&mut self) -> Result<(), Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        self.skip_string()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over a string, whose text nobody wants.
    fn skip_string(&mut self) -> Result<(), Syntax> {
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(self.unexpected("in string literal")),
                Some(_) => self.at += 1,
                None => return Err(end_of_input()),
            }
        }
    }

    /// Passes over any value without recursion; its text.
    pub(super) fn skip(&mut self) -> Result<&'a [u8], Syntax> {
        self.peek_value()?;
        let start = self.at;
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek_value()? {
                bracket @ (b'{' | b'[') => {
                    if open.len() >= MAX_SCAN_DEPTH {
                        return Err(self.unexpected("exceeded max depth"));
                    }
                    let close = bracket + 2;
                    if !self.open(close) {
                        open.push(close);
                        if close == b'}' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                b'"' => self.skip_string()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => {
                    self.number()?;
                }
            }
            loop {
                let Some(close) = open.last().copied() else {
                    return Ok(&self.bytes[start..self.at]);
                };
                if self.next_item(close)? {
                    if close == b'}' {
                        self.skip_key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("after top-level value")),
        }
    }
}

fn end_of_input() -> Syntax {
    "unexpected end of JSON input".to_owned()
}

/// A byte as Go's JSON errors quote it: as the character with that code.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}
