//! Label selectors: the text of a query parameter, and the object form in specs.
//!
//! Grammar and error texts: upstream `apimachinery/pkg/labels/selector.go`.

mod parser;

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use crate::{Header, names};

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelOperator {
    /// The value is one of those given (also `=` and `==`).
    In,
    /// The label is absent, or its value is none of those given (also `!=`).
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The value is a larger integer.
    GreaterThan,
    /// The value is a smaller integer.
    LessThan,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// How it compares.
    pub operator: LabelOperator,
    /// With what.
    pub values: BTreeSet<String>,
    /// Whether it was written with `=` or `!=`, and so is printed.
    exact: bool,
}

/// A selector: all requirements must hold, none selects everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
    nothing: bool,
}

/// A text or object is not a label selector.
#[derive(Debug, thiserror::Error)]
pub enum LabelSelectorError {
    /// Not of the grammar; upstream's text.
    #[error("{0}")]
    Parse(String),
    /// A key, value or number of values is not allowed; upstream's text.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// The object form has an operator that does not exist.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// The object form is not of the right shape.
    #[error("label selector has the wrong shape")]
    Shape(#[source] serde_json::Error),
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the text form: `a=b,c!=d,e in (f,g),!h,i`.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        let mut requirements = parser::parse(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads the object form; absent selects nothing, empty selects everything.
    ///
    /// # Errors
    /// When the object is malformed.
    pub fn from_object(object: Option<&serde_json::Value>) -> Result<Self, LabelSelectorError> {
        let Some(object) = object.filter(|object| !object.is_null()) else {
            return Ok(Self::nothing());
        };
        let object = ObjectForm::deserialize(object).map_err(LabelSelectorError::Shape)?;
        let mut requirements = Vec::new();
        for (key, value) in object.match_labels.unwrap_or_default() {
            requirements.push(LabelRequirement::new(key, LabelOperator::In, [value])?.exact());
        }
        for expression in object.match_expressions.unwrap_or_default() {
            let operator = match expression.operator.as_str() {
                "In" => LabelOperator::In,
                "NotIn" => LabelOperator::NotIn,
                "Exists" => LabelOperator::Exists,
                "DoesNotExist" => LabelOperator::DoesNotExist,
                _ => return Err(LabelSelectorError::Operator(expression.operator)),
            };
            let values = expression.values.unwrap_or_default();
            requirements.push(LabelRequirement::new(expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// A selector of labels that must all be there with these values.
    pub fn from_labels<K: Into<String>, V: Into<String>>(
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut requirements: Vec<_> = labels
            .into_iter()
            .map(|(key, value)| LabelRequirement {
                key: key.into(),
                operator: LabelOperator::In,
                values: BTreeSet::from([value.into()]),
                exact: true,
            })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// The requirements, by key.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether nothing can be selected.
    pub fn selects_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether an object with these labels is selected.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|wanted| wanted.matches(label(&wanted.key)))
    }

    /// Whether an object is selected.
    pub fn matches_header(&self, header: &Header) -> bool {
        self.matches(|key| header.label(key))
    }

    /// Whether an object with this `metadata.labels` is selected.
    pub fn matches_value(&self, labels: &serde_json::Value) -> bool {
        self.matches(|key| labels.get(key).and_then(serde_json::Value::as_str))
    }

    /// The label and value that everything selected must have, if one requirement says so.
    pub fn exact_requirement(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|wanted| match wanted.operator {
            LabelOperator::In if wanted.values.len() == 1 => {
                Some((wanted.key.as_str(), wanted.values.first()?.as_str()))
            }
            _ => None,
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl LabelRequirement {
    /// A requirement.
    ///
    /// # Errors
    /// When the key or a value is not allowed, or there are too many or too few values.
    pub fn new(
        key: impl Into<String>,
        operator: LabelOperator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, LabelSelectorError> {
        let wanted =
            Self { key: key.into(), operator, values: values.into_iter().collect(), exact: false };
        match wanted.check() {
            None => Ok(wanted),
            Some(finding) => Err(LabelSelectorError::Requirement(finding)),
        }
    }

    fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    fn check(&self) -> Option<String> {
        let wrong = names::qualified_name(&self.key);
        if !wrong.is_empty() {
            return Some(format!("key: Invalid value: {:?}: {}", self.key, wrong.join("; ")));
        }
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let count = match self.operator {
            LabelOperator::In | LabelOperator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            LabelOperator::GreaterThan | LabelOperator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(count) = count {
            let printed = serde_json::to_string(&values).unwrap_or_default();
            return Some(format!("values: Invalid value: {printed}: {count}"));
        }
        for (at, value) in values.iter().enumerate() {
            let numeric =
                matches!(self.operator, LabelOperator::GreaterThan | LabelOperator::LessThan);
            if numeric && value.parse::<i64>().is_err() {
                return Some(format!(
                    "values[{at}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value \
                     must be an integer"
                ));
            }
        }
        values.iter().enumerate().find_map(|(at, value)| {
            let wrong = names::label_value(value);
            let (key, wrong) = (&self.key, (!wrong.is_empty()).then(|| wrong.join("; "))?);
            Some(format!("values[{at}][{key}]: Invalid value: {value:?}: {wrong}"))
        })
    }

    /// Whether a label's value, or its absence, is what is wanted.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
            LabelOperator::GreaterThan => self.compare(value).is_some_and(|(a, b)| a > b),
            LabelOperator::LessThan => self.compare(value).is_some_and(|(a, b)| a < b),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let values = values.join(",");
        let key = &self.key;
        match self.operator {
            LabelOperator::In if self.exact => write!(f, "{key}={values}"),
            LabelOperator::NotIn if self.exact => write!(f, "{key}!={values}"),
            LabelOperator::In => write!(f, "{key} in ({values})"),
            LabelOperator::NotIn => write!(f, "{key} notin ({values})"),
            LabelOperator::Exists => write!(f, "{key}"),
            LabelOperator::DoesNotExist => write!(f, "!{key}"),
            LabelOperator::GreaterThan => write!(f, "{key}>{values}"),
            LabelOperator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectForm {
    match_labels: Option<std::collections::BTreeMap<String, String>>,
    match_expressions: Option<Vec<Expression>>,
}

#[derive(Deserialize)]
struct Expression {
    #[serde(default)]
    key: String,
    #[serde(default)]
    operator: String,
    values: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &[(&str, &str)], expected: bool) {
        let parsed = LabelSelector::parse(selector).unwrap();
        let label = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        assert_eq!(parsed.matches(label), expected, "{selector} on {labels:?}");
        let again = LabelSelector::parse(&parsed.to_string()).unwrap();
        assert_eq!(again.to_string(), parsed.to_string());
    }

    #[test]
    fn terms_select_what_upstream_selects() {
        let labels = [("a", "1"), ("b", "x"), ("e", "")];
        for (selector, expected) in [
            ("", true),
            ("a=1", true),
            ("a==1,b!=y", true),
            ("a", true),
            ("!a", false),
            ("!c", true),
            ("c!=1", true),
            ("a in (1,2)", true),
            ("a notin (1,2)", false),
            ("c notin (1)", true),
            ("a>0", true),
            ("a<1", false),
            ("b>0", false),
            ("e=", true),
            ("e in ()", true),
            (" a = 1 , b in ( x , y ) ", true),
            ("in", false),
        ] {
            check(selector, &labels, expected);
        }
    }

    #[test]
    fn errors_are_in_upstream_words() {
        for (selector, expected) in [
            ("a=1=2", "found '=', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            ("a in 1", "unable to parse requirement: found '1' expected: '('"),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_object_form_distinguishes_absent_and_empty() {
        assert!(LabelSelector::from_object(None).unwrap().selects_nothing());
        assert!(LabelSelector::from_object(Some(&serde_json::json!({}))).unwrap().is_empty());
        let object = serde_json::json!({"matchLabels": {"a": "1"},
            "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["y", "z"]}]});
        let selector = LabelSelector::from_object(Some(&object)).unwrap();
        assert_eq!(selector.to_string(), "a=1,b notin (y,z)");
        assert_eq!(selector.exact_requirement(), Some(("a", "1")));
    }
}
