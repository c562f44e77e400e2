//! Regular expressions as Go reads them, with limits.
//!
//! Both engines are linear in the text. Where the syntax differs a pattern is rewritten: Go's
//! classes know only ASCII, and brackets and braces that are not special stand for themselves.

use regex::{Regex, RegexBuilder};

/// The size of a compiled expression, in bytes.
const SIZE_MAX: usize = 2 << 20;
/// Groups within groups; Go allows a thousand.
const NEST_MAX: u32 = 250;

/// Compiles; `None` when it is no expression, or a very large one.
pub(crate) fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&rewritten(pattern))
        .size_limit(SIZE_MAX)
        .dfa_size_limit(SIZE_MAX)
        .nest_limit(NEST_MAX)
        .build()
        .ok()
}

fn rewritten(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(letter) = rest.chars().next() {
        let tail = &rest[letter.len_utf8()..];
        rest = tail;
        match letter {
            '\\' => {
                let Some(escaped) = tail.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &tail[escaped.len_utf8()..];
                escape(escaped, in_class, &mut out);
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // A closing bracket that comes first stands for itself.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
            }
            '[' => match rest.starts_with(':').then(|| rest.find(":]")).flatten() {
                Some(end) => {
                    out.push('[');
                    out.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                }
                None => out.push_str("\\["),
            },
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(letter);
            }
            '{' if !in_class && !is_repetition(rest) => out.push_str("\\{"),
            '}' if !in_class && !closes_repetition(&out) => out.push_str("\\}"),
            other => out.push(other),
        }
    }
    out
}

fn escape(letter: char, in_class: bool, out: &mut String) {
    let words = "0-9A-Za-z_";
    let spaces = "\\t\\n\\f\\r ";
    let class = match letter {
        'd' | 'D' => "0-9",
        'w' | 'W' => words,
        's' | 'S' => spaces,
        'b' => return out.push_str("(?-u:\\b)"),
        'B' => return out.push_str("(?-u:\\B)"),
        other => {
            out.push('\\');
            return out.push(other);
        }
    };
    match (letter.is_ascii_uppercase(), in_class) {
        (true, _) => out.push_str(&format!("[^{class}]")),
        (false, true) => out.push_str(class),
        (false, false) => out.push_str(&format!("[{class}]")),
    }
}

/// Whether what follows a brace is `2}`, `2,}` or `2,3}`.
fn is_repetition(rest: &str) -> bool {
    let Some((counts, _)) = rest.split_once('}') else { return false };
    let (low, high) = counts.split_once(',').unwrap_or((counts, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

/// Whether a brace opens a repetition in what is written so far, or an escape such as `\x{41}`.
fn closes_repetition(out: &str) -> bool {
    let Some(open) = out.rfind('{') else { return false };
    !out[..open].ends_with('\\') && !out[open..].contains('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        let compiled = compile(pattern).unwrap_or_else(|| panic!("{pattern} does not compile"));
        assert_eq!(compiled.is_match(text), expected, "{pattern} on {text}");
    }

    #[test]
    fn classes_know_only_ascii() {
        check("^\\d+$", "12", true);
        check("^\\d+$", "١٢", false);
        check("^[\\w-]+$", "a_b-c", true);
        check("^\\S+$", "a b", false);
    }

    #[test]
    fn brackets_and_braces_stand_for_themselves_where_go_says_so() {
        check("^[a[]$", "[", true);
        check("^a{b}$", "a{b}", true);
        check("^a{2}$", "aa", true);
        check("^[]a]$", "]", true);
        check("^[[:alpha:]]$", "x", true);
        check("^a{,3}$", "a{,3}", true);
        check("^[a&&b]+$", "&", true);
    }

    #[test]
    fn very_large_expressions_are_refused() {
        assert!(compile("((a{1000}){1000}){1000}").is_none());
        assert!(compile("(").is_none());
    }
}
