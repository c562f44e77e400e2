//! What Go finds wrong with a regular expression.
//!
//! Only the syntax is looked at, far enough for the texts of the common mistakes.
//!
//! Upstream: Go's `regexp/syntax`.

/// The largest count of a repetition.
const REPEAT_MAX: u32 = 1000;

/// What is wrong, in Go's words.
pub(crate) fn error(pattern: &str) -> Option<String> {
    let mut scan = Scan { pattern, rest: pattern, depth: 0, can_repeat: false, repeated: None };
    let why = scan.run().err()?;
    Some(format!("error parsing regexp: {why}"))
}

struct Scan<'a> {
    pattern: &'a str,
    rest: &'a str,
    /// Groups that are open.
    depth: usize,
    /// Whether there is something that a repetition would repeat.
    can_repeat: bool,
    /// The text from a repetition on that has just been read.
    repeated: Option<&'a str>,
}

impl<'a> Scan<'a> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(letter) = self.rest.chars().next() {
            let start = self.rest;
            self.rest = &start[letter.len_utf8()..];
            let repeated = self.repeated.take();
            match letter {
                '\\' => self.escape(start)?,
                '[' => self.class(start)?,
                '(' => self.group(start)?,
                ')' if self.depth == 0 => {
                    return Err(format!("unexpected ): `{}`", self.pattern));
                }
                ')' => {
                    self.depth -= 1;
                    self.can_repeat = true;
                }
                '|' => self.can_repeat = false,
                '*' | '+' | '?' => self.repetition(start, 1, repeated)?,
                '{' => match counts(start) {
                    Some((length, low, high)) => {
                        let is_valid = low <= REPEAT_MAX
                            && high.is_none_or(|high| (low..=REPEAT_MAX).contains(&high));
                        if !is_valid {
                            return Err(format!("invalid repeat count: `{}`", &start[..length]));
                        }
                        self.repetition(start, length, repeated)?;
                    }
                    None => self.can_repeat = true,
                },
                _ => self.can_repeat = true,
            }
        }
        if self.depth > 0 {
            return Err(format!("missing closing ): `{}`", self.pattern));
        }
        Ok(())
    }

    fn repetition(
        &mut self,
        start: &'a str,
        length: usize,
        repeated: Option<&'a str>,
    ) -> Result<(), String> {
        self.rest = &start[length..];
        // It may be lazy.
        self.rest = self.rest.strip_prefix('?').unwrap_or(self.rest);
        let end = self.pattern.len() - self.rest.len();
        if let Some(before) = repeated {
            let from = self.pattern.len() - before.len();
            let shown = &self.pattern[from..end];
            return Err(format!("invalid nested repetition operator: `{shown}`"));
        }
        if !self.can_repeat {
            let shown = &self.pattern[self.pattern.len() - start.len()..end];
            return Err(format!("missing argument to repetition operator: `{shown}`"));
        }
        self.repeated = Some(start);
        Ok(())
    }

    fn escape(&mut self, start: &'a str) -> Result<(), String> {
        let Some(letter) = self.rest.chars().next() else {
            return Err("trailing backslash at end of expression: ``".to_owned());
        };
        let length = 1 + letter.len_utf8();
        let is_known = !letter.is_alphanumeric() || "0afnrtvxpPdDsSwWbBAzQEC".contains(letter);
        if !is_known {
            return Err(format!("invalid escape sequence: `{}`", &start[..length]));
        }
        self.rest = &start[length..];
        self.can_repeat = true;
        if letter == 'Q' {
            // Everything up to `\E` is text.
            let end = self.rest.find("\\E").map_or(self.rest.len(), |at| at + 2);
            self.rest = &self.rest[end..];
        }
        Ok(())
    }

    fn group(&mut self, start: &'a str) -> Result<(), String> {
        self.depth += 1;
        self.can_repeat = false;
        let Some(rest) = self.rest.strip_prefix('?') else { return Ok(()) };
        let name = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<'));
        if let Some(name) = name {
            let end = name.find('>').unwrap_or(0);
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if end == 0 || !name[..end].chars().all(is_word) {
                let shown = start.find('>').map_or(start, |at| &start[..=at]);
                return Err(format!("invalid named capture: `{shown}`"));
            }
            self.rest = &name[end + 1..];
            return Ok(());
        }
        let flags = rest.find(|c: char| !"imsU-".contains(c)).unwrap_or(rest.len());
        match rest[flags..].chars().next() {
            Some(':') => self.rest = &rest[flags + 1..],
            Some(')') if flags > 0 => {
                self.depth -= 1;
                self.rest = &rest[flags + 1..];
            }
            Some(other) => {
                let length = 2 + flags + other.len_utf8();
                let shown = &start[..length];
                return Err(format!("invalid or unsupported Perl syntax: `{shown}`"));
            }
            None => return Err(format!("missing closing ): `{}`", self.pattern)),
        }
        Ok(())
    }

    fn class(&mut self, start: &'a str) -> Result<(), String> {
        self.can_repeat = true;
        let mut rest = self.rest.strip_prefix('^').unwrap_or(self.rest);
        let mut is_first = true;
        loop {
            let Some(letter) = rest.chars().next() else {
                return Err(format!("missing closing ]: `{start}`"));
            };
            if letter == ']' && !is_first {
                self.rest = &rest[1..];
                return Ok(());
            }
            is_first = false;
            if let Some(end) = rest.strip_prefix("[:").and_then(|rest| rest.find(":]")) {
                rest = &rest[end + 4..];
                continue;
            }
            let (low, after) = one(rest);
            rest = after;
            let Some(tail) = rest.strip_prefix('-') else { continue };
            if tail.is_empty() || tail.starts_with(']') {
                continue;
            }
            let (high, after_high) = one(tail);
            if let (Some(low), Some(high)) = (low, high)
                && high < low
            {
                return Err(format!("invalid character class range: `{low}-{high}`"));
            }
            rest = after_high;
        }
    }
}

/// One member of a class and what follows it; escapes are not compared.
fn one(text: &str) -> (Option<char>, &str) {
    let mut letters = text.chars();
    let first = letters.next();
    if first != Some('\\') {
        return (first, letters.as_str());
    }
    letters.next();
    (None, letters.as_str())
}

/// The length and the counts of `{2}`, `{2,}` or `{2,3}`.
fn counts(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let end = text.find('}')?;
    let inside = &text[1..end];
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let low = number(low)?;
    let high = if high.is_empty() { None } else { Some(number(high)?) };
    Some((end + 1, low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &str) {
        let found = error(pattern).map(|text| text["error parsing regexp: ".len()..].to_owned());
        assert_eq!(found.unwrap_or_default(), expected, "{pattern}");
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_go() {
        check("(", "missing closing ): `(`");
        check("a)", "unexpected ): `a)`");
        check("[a", "missing closing ]: `[a`");
        check("[z-a]", "invalid character class range: `z-a`");
        check("*a", "missing argument to repetition operator: `*`");
        check("a**", "invalid nested repetition operator: `**`");
        check("a{1001}", "invalid repeat count: `{1001}`");
        check("a{3,2}", "invalid repeat count: `{3,2}`");
        check("\\y", "invalid escape sequence: `\\y`");
        check("a\\", "trailing backslash at end of expression: ``");
        check("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    }

    #[test]
    fn expressions_are_left_alone() {
        for pattern in [
            "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "(?i)a|b*?",
            "(?P<n>a)(?:b){2,3}",
            "[]a]",
            "[[:alpha:]-]",
            "a{,3}",
            "\\Q(*\\E",
            "[\\w.-]+@",
            "",
        ] {
            check(pattern, "");
        }
    }
}
