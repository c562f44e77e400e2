//! Field selectors: `a=b,c!=d`.
//!
//! Grammar and error texts: upstream `apimachinery/pkg/fields/selector.go`.

use std::fmt;

/// How a field requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldOperator {
    /// `=` or `==`.
    Equals,
    /// `!=`.
    NotEquals,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The field's path.
    pub key: String,
    /// How it compares.
    pub operator: FieldOperator,
    /// With what.
    pub value: String,
}

/// A selector over a few fields of an object; all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

/// A text is not a field selector; upstream's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole selector.
        selector: String,
        /// The term.
        term: String,
    },
    /// A value has an escape that does not exist.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A value has a separator that is not escaped.
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(char),
}

impl FieldSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let Some((key, operator, value)) = split_term(term) else {
                let (selector, term) = (text.to_owned(), term.to_owned());
                return Err(FieldSelectorError::Term { selector, term });
            };
            let value = unescape(value)?;
            // Nothing that is nothing: upstream selects everything by it.
            if key.is_empty() && value.is_empty() {
                continue;
            }
            requirements.push(FieldRequirement { key: key.to_owned(), operator, value });
        }
        Ok(Self { requirements })
    }

    /// Replaces keys, as a kind's conversion of field labels does.
    ///
    /// # Errors
    /// What `convert` returns.
    pub fn convert<E>(mut self, convert: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        for requirement in &mut self.requirements {
            requirement.key = convert(&requirement.key)?;
        }
        Ok(self)
    }

    /// The requirements in their order.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object is selected; a field it does not have is the empty string.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|wanted| {
            let value = field(&wanted.key).unwrap_or("");
            (value == wanted.value) == (wanted.operator == FieldOperator::Equals)
        })
    }

    /// The value a field must have, if the selector says so.
    pub fn exact(&self, key: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|wanted| wanted.key == key && wanted.operator == FieldOperator::Equals)
            .map(|wanted| wanted.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, wanted) in self.requirements.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let operator = if wanted.operator == FieldOperator::Equals { "=" } else { "!=" };
            let value = wanted.value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            write!(f, "{comma}{}{operator}{value}", wanted.key)?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, FieldOperator, &str)> {
    for (at, _) in term.char_indices() {
        let rest = &term[at..];
        for (symbol, operator) in [
            ("!=", FieldOperator::NotEquals),
            ("==", FieldOperator::Equals),
            ("=", FieldOperator::Equals),
        ] {
            if let Some(value) = rest.strip_prefix(symbol) {
                return Some((&term[..at], operator, value));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(FieldSelectorError::Escape(format!("\\{c}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_and_matched() {
        let selector = FieldSelector::parse(r"a=1,b!=2,c==x\,y").unwrap();
        assert_eq!(selector.to_string(), r"a=1,b!=2,c=x\,y");
        let fields = |key: &str| match key {
            "a" => Some("1"),
            "c" => Some("x,y"),
            _ => None,
        };
        assert!(selector.matches(fields));
        assert_eq!(selector.exact("a"), Some("1"));
        assert_eq!(selector.exact("b"), None);
        assert!(FieldSelector::parse("=").unwrap().is_empty());
    }

    #[test]
    fn errors_are_in_upstream_words() {
        assert_eq!(
            FieldSelector::parse("a").unwrap_err().to_string(),
            "invalid selector: 'a'; can't understand 'a'"
        );
    }
}
