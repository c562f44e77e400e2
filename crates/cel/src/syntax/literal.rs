//! Strings and bytes in quotes, and what they stand for.

use super::lexer::Kind;

/// The quoted literal that a text begins with: its kind and length, or how much of it is no
/// literal. `None` when it begins with none.
pub(super) fn scan(text: &str) -> Option<Result<(Kind, usize), usize>> {
    let prefix = text.find(|c: char| !"rRbB".contains(c)).filter(|len| *len <= 2)?;
    let marks = text[..prefix].to_ascii_lowercase();
    if !matches!(&*marks, "" | "r" | "b" | "br" | "rb") {
        return None;
    }
    let quoted = &text[prefix..];
    let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let kind = if marks.contains('b') { Kind::Bytes } else { Kind::String };
    let is_raw = marks.contains('r');
    let triple: String = [quote; 3].iter().collect();
    let (open, is_triple) = if quoted.starts_with(&triple) { (3, true) } else { (1, false) };
    let close = &triple[..open];
    let mut at = prefix + open;
    loop {
        let rest = &text[at..];
        let Some(c) = rest.chars().next() else {
            // Three quotes that are never closed are an empty string and another that is not.
            if is_triple {
                return Some(Ok((kind, prefix + 2)));
            }
            return Some(Err(at));
        };
        if rest.starts_with(close) {
            return Some(Ok((kind, at + close.len())));
        }
        if !is_triple && matches!(c, '\n' | '\r') {
            return Some(Err(at));
        }
        at += match c {
            '\\' if !is_raw => match escape(&rest[1..]) {
                Ok((_, len)) => 1 + len,
                Err(len) => return Some(Err((at + 1 + len).min(text.len()))),
            },
            _ => c.len_utf8(),
        };
    }
}

/// What an escape stands for.
enum Escaped {
    Char(char),
    /// A byte in bytes, a character in strings.
    Byte(u8),
}

/// The escape after a backslash, and its length; or how much of the text shows that it is none.
fn escape(text: &str) -> Result<(Escaped, usize), usize> {
    let first = text.chars().next().ok_or(0_usize)?;
    let simple = match first {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' | '\'' | '"' | '`' | '?' => first,
        'x' | 'X' => return number(text, 1, 2, 16),
        'u' => return number(text, 1, 4, 16),
        'U' => return number(text, 1, 8, 16),
        '0'..='3' => return number(text, 0, 3, 8),
        other => return Err(other.len_utf8()),
    };
    Ok((Escaped::Char(simple), first.len_utf8()))
}

fn number(text: &str, skip: usize, len: usize, radix: u32) -> Result<(Escaped, usize), usize> {
    let digits = text[skip..].chars().take_while(|c| c.is_digit(radix)).take(len).count();
    let after = text[skip + digits..].chars().next().map_or(0, char::len_utf8);
    if digits < len {
        return Err(skip + digits + after);
    }
    let value = u32::from_str_radix(&text[skip..skip + len], radix).unwrap_or(u32::MAX);
    let escaped = match u8::try_from(value) {
        Ok(byte) if len < 4 => Escaped::Byte(byte),
        _ => Escaped::Char(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)),
    };
    Ok((escaped, skip + len))
}

/// The bytes that a token of a string or bytes stands for.
pub(super) fn unquote(token: &str, is_bytes: bool) -> Vec<u8> {
    let prefix = token.find(['"', '\'']).unwrap_or(0);
    let is_raw = token[..prefix].contains(['r', 'R']);
    let quoted = &token[prefix..];
    let is_triple =
        quoted.len() >= 6 && (quoted.starts_with("\"\"\"") || quoted.starts_with("'''"));
    let open = if is_triple { 3 } else { 1 };
    let inner = quoted.get(open..quoted.len().saturating_sub(open)).unwrap_or("");
    if is_raw {
        return inner.as_bytes().to_vec();
    }
    let (mut out, mut rest) = (Vec::with_capacity(inner.len()), inner);
    let push = |out: &mut Vec<u8>, c: char| {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    };
    while let Some(c) = rest.chars().next() {
        if c == '\\'
            && let Ok((escaped, len)) = escape(&rest[1..])
        {
            match escaped {
                Escaped::Byte(byte) if is_bytes => out.push(byte),
                Escaped::Byte(byte) => push(&mut out, char::from(byte)),
                Escaped::Char(c) => push(&mut out, c),
            }
            rest = &rest[1 + len..];
            continue;
        }
        // Lines end as they do in Unix, whatever the text came from.
        if c == '\r' {
            rest = rest[1..].strip_prefix('\n').unwrap_or(&rest[1..]);
            out.push(b'\n');
            continue;
        }
        push(&mut out, c);
        rest = &rest[c.len_utf8()..];
    }
    out
}
