//! Policies that refuse.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy/validating`.

use cel::admission::Sees;
use cel::{Activation, Budget, Environment, RUNTIME_BUDGET, Value};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::conditions::{Condition, Conditions};
use crate::evaluate::{Expression, Failure, Variables};
use crate::input::Input;
use crate::params::ParamKind;

/// Most bytes of a message that an expression makes.
const MAX_MESSAGE: usize = 5 * 1024;
/// Most bytes of an audit annotation.
const MAX_ANNOTATION: usize = 10 * 1024;

/// A policy, compiled.
#[derive(Debug)]
pub struct Validating {
    /// Whether what goes wrong refuses the request.
    pub fails_closed: bool,
    /// What its parameters are.
    pub param_kind: Option<ParamKind>,
    conditions: Conditions,
    compiled: Result<Compiled, String>,
}

#[derive(Debug)]
struct Compiled {
    variables: Variables,
    rules: Environment,
    messages: Environment,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    computed: Option<Expression>,
    reason: String,
}

/// One validation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Which of the policy's validations.
    pub index: usize,
    /// Why.
    pub message: String,
    /// The reason of the answer; empty for upstream's default.
    pub reason: String,
    /// What kind of failure it is, as upstream's metrics name it.
    pub error: &'static str,
}

/// Nothing failed, the validation does not hold.
const NO_ERROR: &str = "no_error";
/// An expression failed.
const INVALID: &str = "invalid_error";
/// All expressions together cost too much.
const BUDGET: &str = "out_of_budget";

/// Something for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Without the name of the policy.
    pub key: String,
    /// What to note.
    pub value: String,
}

/// What a policy says about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What does not hold. The binding says what comes of it.
    pub denials: Vec<Denial>,
    /// What refuses the request whatever the binding says: annotations that cannot be made.
    pub refusals: Vec<String>,
    /// What to note.
    pub annotations: Vec<Annotation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    failure_policy: Option<String>,
    param_kind: Option<ParamKind>,
    match_conditions: Vec<Condition>,
    variables: Vec<Variable>,
    validations: Vec<ValidationSpec>,
    audit_annotations: Vec<AnnotationSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ValidationSpec {
    expression: String,
    message: String,
    message_expression: String,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AnnotationSpec {
    key: String,
    value_expression: String,
}

impl Validating {
    /// Compiles the `spec` of a policy. One that cannot be read checks nothing.
    pub fn new(spec: &Json) -> Self {
        let spec: Spec = serde_json::from_value(spec.clone()).unwrap_or_default();
        let has_params = spec.param_kind.is_some();
        Self {
            fails_closed: spec.failure_policy.as_deref() != Some("Ignore"),
            conditions: Conditions::new(&spec.match_conditions, has_params),
            compiled: Compiled::new(&spec, has_params),
            param_kind: spec.param_kind,
        }
    }

    /// What the policy says about a request that its rules and those of a binding match.
    pub fn validate(&self, input: &Input<'_>) -> Outcome {
        match self.conditions.hold(input) {
            Ok(true) => {}
            Ok(false) => return Outcome::default(),
            Err(why) => return self.failed(why, INVALID),
        }
        let compiled = match &self.compiled {
            Ok(compiled) => compiled,
            Err(why) => return self.failed(why.clone(), "compile_error"),
        };
        match compiled.denials(input, self.fails_closed) {
            Ok(denials) => compiled.annotate(denials, input, self.fails_closed),
            Err(failure) => self.failed(failure.text(), BUDGET),
        }
    }

    fn failed(&self, message: String, error: &'static str) -> Outcome {
        if !self.fails_closed {
            return Outcome::default();
        }
        let denial = Denial { index: 0, message, reason: String::new(), error };
        Outcome { denials: vec![denial], ..Outcome::default() }
    }
}

impl Compiled {
    fn new(spec: &Spec, has_params: bool) -> Result<Self, String> {
        let sees = Sees { params: has_params, authorizer: true, patches: false };
        let mut rules = Environment::admission(sees);
        let mut messages = Environment::admission(Sees { authorizer: false, ..sees });
        let variables = spec.variables.iter().map(|v| (v.name.as_str(), v.expression.as_str()));
        let variables = Variables::compile(variables, &mut rules, &mut [&mut messages])?;
        let validations = spec.validations.iter().map(|validation| {
            let computed = &validation.message_expression;
            Validation {
                expression: Expression::compile(&rules, &validation.expression),
                message: validation.message.trim().to_owned(),
                computed: (!computed.is_empty()).then(|| Expression::compile(&messages, computed)),
                reason: validation.reason.clone().unwrap_or_default(),
            }
        });
        let validations = validations.collect();
        let annotations = spec.audit_annotations.iter();
        let annotations = annotations
            .map(|a| (a.key.clone(), Expression::compile(&rules, &a.value_expression)))
            .collect();
        Ok(Self { variables, rules, messages, validations, annotations })
    }

    fn activation<'a>(&'a self, environment: &Environment, input: &Input<'a>) -> Activation<'a> {
        self.variables.bind(input.activation(environment))
    }

    fn denials(&self, input: &Input<'_>, fails_closed: bool) -> Result<Vec<Denial>, Failure> {
        let mut activation = self.activation(&self.rules, input);
        let mut budget = input.budget(RUNTIME_BUDGET);
        let mut denials = Vec::new();
        let mut failed = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            match validation.expression.evaluate(&mut activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(true) => {}
                Ok(_) => failed.push((index, validation)),
                Err(Failure::Budget) => return Err(Failure::Budget),
                Err(_) if !fails_closed => {}
                Err(failure) => {
                    let (message, reason) = (failure.text(), String::new());
                    denials.push(Denial { index, message, reason, error: INVALID });
                }
            }
        }
        if !failed.is_empty() {
            let mut activation = self.activation(&self.messages, input);
            for (index, validation) in failed {
                let message = validation.message(&mut activation, &mut budget);
                let reason = validation.reason.clone();
                denials.push(Denial { index, message, reason, error: NO_ERROR });
            }
        }
        denials.sort_by_key(|denial| denial.index);
        Ok(denials)
    }

    fn annotate(&self, denials: Vec<Denial>, input: &Input<'_>, fails_closed: bool) -> Outcome {
        let mut outcome = Outcome { denials, ..Outcome::default() };
        if self.annotations.is_empty() {
            return outcome;
        }
        let mut activation = self.activation(&self.rules, input);
        let mut budget = input.budget(RUNTIME_BUDGET);
        for (key, expression) in &self.annotations {
            match expression.evaluate(&mut activation, &mut budget) {
                Ok(Value::Null) => {}
                Ok(value) => match value.as_str().map(str::trim) {
                    Some("") => {}
                    Some(text) => {
                        let value = cut(text, MAX_ANNOTATION).to_owned();
                        outcome.annotations.push(Annotation { key: key.clone(), value });
                    }
                    None => outcome.refusals.push(format!(
                        "valueExpression '{}' resulted in unsupported return type: {}. Return \
                         type must be either string or null.",
                        expression.text(),
                        value.type_text()
                    )),
                },
                Err(_) if !fails_closed => {}
                Err(failure) => outcome.refusals.push(failure.text()),
            }
        }
        outcome
    }
}

impl Validation {
    /// What the expression for it makes, or the text for it, or the validation itself.
    fn message(&self, activation: &mut Activation<'_>, budget: &mut Budget<'_>) -> String {
        if let Some(computed) = &self.computed {
            match computed.evaluate(activation, budget) {
                Ok(value) => {
                    let text = value.as_str().map(str::trim).unwrap_or_default();
                    if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
                        return text.to_owned();
                    }
                }
                Err(Failure::Budget) => {
                    return format!("failed messageExpression: {}", Failure::Budget.text());
                }
                Err(Failure::Expression(_)) => {}
            }
        }
        if self.message.is_empty() {
            return format!("failed expression: {}", self.expression.text().trim());
        }
        self.message.clone()
    }
}

/// At most so many bytes, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use cel::{Authorizer, Check, Decision};
    use serde_json::json;

    use super::*;

    struct Nobody;

    impl Authorizer for Nobody {
        fn authorize(&self, _: &Check) -> Decision {
            Decision::default()
        }
    }

    fn outcome(spec: Json) -> Outcome {
        let (object, request) = (json!({"data": {"a": "bad"}}), json!({"dryRun": true}));
        let input = Input {
            object: Some(&object),
            old_object: None,
            request: &request,
            namespace: None,
            params: None,
            authorizer: &Nobody,
            resource: &Check::default(),
            interrupted: None,
        };
        Validating::new(&spec).validate(&input)
    }

    fn messages(spec: Json) -> Vec<String> {
        outcome(spec).denials.into_iter().map(|denial| denial.message).collect()
    }

    #[test]
    fn messages_come_from_the_expression_the_text_or_the_rule() {
        let rule = "object.data.a != 'bad'";
        let of = |message: &str, expression: &str| {
            messages(json!({"validations": [
                {"expression": rule, "message": message, "messageExpression": expression}]}))
        };
        assert_eq!(of("", ""), [format!("failed expression: {rule}")]);
        assert_eq!(of("text", ""), ["text"]);
        assert_eq!(of("text", "'is ' + object.data.a"), ["is bad"]);
        assert_eq!(of("text", "' '"), ["text"]);
        assert_eq!(of("text", "object.data.b"), ["text"]);
        assert_eq!(of("", "'a\\nb'"), [format!("failed expression: {rule}")]);
    }

    #[test]
    fn what_fails_refuses_unless_it_is_to_be_ignored() {
        let of = |policy: &str| {
            messages(json!({"failurePolicy": policy, "validations": [
                {"expression": "object.data.missing == 'x'"}, {"expression": "false"}]}))
        };
        let error = "expression 'object.data.missing == 'x'' resulted in error: no such key: \
                     missing";
        assert_eq!(of("Fail"), [error, "failed expression: false"]);
        assert_eq!(of("Ignore"), ["failed expression: false"]);
    }

    #[test]
    fn conditions_come_first() {
        let of = |condition: &str, policy: &str| {
            messages(json!({"failurePolicy": policy, "validations": [{"expression": "false"}],
                "matchConditions": [{"name": "c", "expression": condition}]}))
        };
        assert_eq!(of("object.data.a == 'bad'", "Fail"), ["failed expression: false"]);
        assert!(of("object.data.a == 'good'", "Fail").is_empty());
        assert!(of("object.data.b == 'good'", "Ignore").is_empty());
        assert!(of("object.data.b == 'good'", "Fail")[0].ends_with("no such key: b"));
    }

    #[test]
    fn variables_see_those_before_them() {
        let found = messages(json!({
            "variables": [{"name": "n", "expression": "size(object.data)"},
                {"name": "big", "expression": "variables.n > 0"}],
            "validations": [
                {"expression": "!variables.big", "messageExpression": "'n=' + string(variables.n)"}],
        }));
        assert_eq!(found, ["n=1"]);
    }

    #[test]
    fn annotations_are_texts_or_nothing() {
        let found = outcome(json!({
            "auditAnnotations": [{"key": "a", "valueExpression": "'v ' + object.data.a"},
                {"key": "b", "valueExpression": "null"},
                {"key": "c", "valueExpression": "object.data.none"}],
        }));
        assert_eq!(found.annotations, [Annotation { key: "a".into(), value: "v bad".into() }]);
        assert_eq!(
            found.refusals,
            ["expression 'object.data.none' resulted in error: no such key: none"]
        );
    }

    #[test]
    fn all_validations_share_a_budget() {
        let dear = "lists.range(900).all(x, lists.range(900).all(y, false || x >= 0))";
        let rules: Vec<_> = (0..20).map(|_| json!({"expression": dear})).collect();
        let found = messages(json!({"validations": rules}));
        assert!(found[0].contains("cost"), "{found:?}");
    }
}
