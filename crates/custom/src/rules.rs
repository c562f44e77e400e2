//! `x-kubernetes-validations`: rules about values, written as expressions.
//!
//! A tree like that of the schema, with nothing in it but what leads to rules. A rule about the old
//! value is asked only where there is one; other rules are let pass where nothing has changed.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use cel::{
    Activation, Budget, Declaration, Environment, EvaluationError, Program, RUNTIME_BUDGET, Type,
    Value as Seen,
};
use serde::Deserialize;
use serde_json::Value;
use validation::{FieldError, Path};

use crate::structural::{Additional, Structural};
use crate::validate::{correlated, is_same, nowhere};

/// A node of a schema at or below which there are rules.
#[derive(Debug)]
pub(crate) struct Rules {
    declaration: Option<Declaration>,
    here: Vec<Rule>,
    properties: Vec<(String, Rules)>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Rule {
    written: Written,
    environment: Environment,
    /// Why it is none, if it is none.
    program: Result<Program, String>,
    message: Option<Program>,
    uses_old: bool,
}

/// A rule as it stands in a definition.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    rule: String,
    message: String,
    message_expression: String,
    reason: String,
    field_path: String,
    optional_old_self: bool,
}

/// What rules find, and what they only warn of.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong.
    pub findings: Vec<FieldError>,
    /// What was wrong before, and has not changed.
    pub warnings: Vec<String>,
}

impl Rules {
    /// Compiles the rules of a schema; `None` when there are none.
    pub(crate) fn compile(schema: &Value, is_root: bool) -> Option<Self> {
        let below = |value: Option<&Value>| value.and_then(|schema| Self::compile(schema, false));
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties: Vec<(String, Rules)> = properties
            .into_iter()
            .flatten()
            .filter_map(|(name, schema)| Some((name.clone(), below(Some(schema))?)))
            .collect();
        let items = below(schema.get("items")).map(Box::new);
        let additional = below(schema.get("additionalProperties")).map(Box::new);
        let written = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let written = written.map_or(&[][..], Vec::as_slice);
        if written.is_empty() && properties.is_empty() && items.is_none() && additional.is_none() {
            return None;
        }
        let is_declared = !written.is_empty();
        let declaration = is_declared.then(|| Declaration::from_schema(schema, is_root)).flatten();
        let here = declaration.as_ref().map_or_else(Vec::new, |declaration| {
            written.iter().filter_map(|rule| Rule::compile(rule, declaration)).collect()
        });
        Some(Self { declaration, here, properties, items, additional })
    }

    /// What the rules say of an object. `old` is what it was before.
    pub(crate) fn check(
        &self,
        object: &Value,
        old: Option<&Value>,
        schema: &Structural,
    ) -> Verdict {
        let mut check = Check {
            verdict: Verdict::default(),
            budget: Budget::new(RUNTIME_BUDGET),
            is_over: false,
        };
        check.node(self, schema, object, old, None);
        check.verdict
    }
}

impl Rule {
    fn compile(written: &Value, declaration: &Declaration) -> Option<Self> {
        let written: Written = serde_json::from_value(written.clone()).ok()?;
        let old = match written.optional_old_self {
            true => Declaration::of(Type::optional(declaration.ty())),
            false => declaration.clone(),
        };
        let environment = Environment::new().with("self", declaration.clone()).with("oldSelf", old);
        let program = environment.compile(&written.rule).map_err(|error| error.to_string());
        let text = written.message_expression.trim();
        let message = (!text.is_empty()).then(|| environment.compile(text).ok()).flatten();
        let uses_old = program.as_ref().is_ok_and(|program| program.uses("oldSelf"));
        Some(Self { written, environment, program, message, uses_old })
    }

    fn text(&self) -> &str {
        self.written.rule.trim()
    }

    fn message(&self) -> String {
        match self.written.message.trim() {
            "" => format!("failed rule: {}", self.text()),
            message => message.to_owned(),
        }
    }
}

struct Check {
    verdict: Verdict,
    budget: Budget<'static>,
    /// No further rule is asked.
    is_over: bool,
}

/// A value that rules are asked about.
struct Asked<'a> {
    schema: &'a Structural,
    value: &'a Value,
    old: Option<&'a Value>,
    path: Option<&'a Path>,
}

impl Check {
    fn node(
        &mut self,
        rules: &Rules,
        schema: &Structural,
        value: &Value,
        old: Option<&Value>,
        path: Option<&Path>,
    ) {
        if value.is_null() || self.is_over {
            return;
        }
        if let Some(declaration) = &rules.declaration {
            let asked = Asked { schema, value, old, path };
            for rule in &rules.here {
                self.rule(rule, declaration, &asked);
                if self.is_over {
                    return;
                }
            }
        }
        let root = Path::default();
        let here = path.unwrap_or(&root);
        match value {
            Value::Object(map) => {
                // Of a map that is one value, no part has been there before.
                let old = old.filter(|_| !schema.is_atomic_map);
                for (name, value) in map {
                    let found = rules.properties.iter().find(|(known, _)| known == name);
                    let before = old.and_then(|old| old.get(name));
                    match (found, schema.property(name), &rules.additional, &schema.additional) {
                        (Some((_, below)), Some(of), ..) => {
                            self.node(below, of, value, before, Some(&here.member(name)));
                        }
                        (None, None, Some(below), Additional::Schema(of)) => {
                            self.node(below, of, value, before, Some(&here.key(name)));
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(items) => {
                let (Some(below), Some(of)) = (&rules.items, &schema.items) else { return };
                let before = old.and_then(Value::as_array);
                for (at, item) in items.iter().enumerate() {
                    let old = before.and_then(|before| correlated(schema, item, before));
                    self.node(below, of, item, old, Some(&here.index(at)));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, declaration: &Declaration, asked: &Asked<'_>) {
        let is_optional = rule.written.optional_old_self;
        if rule.uses_old && asked.old.is_none() && !is_optional {
            return;
        }
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => return self.report(asked, format!("rule compile error: {why}")),
        };
        let seen = |value| Seen::json(value, Some(declaration));
        let old = match (asked.old, is_optional) {
            (Some(old), true) => Seen::some(seen(old)),
            (None, true) => Seen::Optional(None),
            (Some(old), false) => seen(old),
            (None, false) => Seen::Null,
        };
        let mut activation =
            Activation::new(&rule.environment).with("self", seen(asked.value)).with("oldSelf", old);
        let outcome = program.evaluate(&mut activation, &mut self.budget);
        if self.budget.is_exhausted() {
            return self.exhausted(asked);
        }
        match outcome {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => {
                let message = match &rule.message {
                    Some(message) => self.message(rule, message, &mut activation, asked),
                    None => Some(rule.message()),
                };
                if let Some(message) = message {
                    self.violated(rule, asked, message);
                }
            }
            Err(error) => {
                let text = rule.text();
                let is_final = error.is_final();
                self.report(asked, match error {
                    EvaluationError::NoSuchOverload => format!(
                        "'{error}': call arguments did not match a supported operator, function \
                         or macro signature for rule: {text}"
                    ),
                    EvaluationError::CostLimitExceeded => format!(
                        "'{error}': no further validation rules will be run due to call cost \
                         exceeds limit for rule: {text}"
                    ),
                    error => format!("{error} evaluating rule: {text}"),
                });
                self.is_over = is_final;
            }
        }
    }

    /// What a message expression says; the plain message where it says nothing of use.
    fn message<'a>(
        &mut self,
        rule: &Rule,
        program: &'a Program,
        activation: &mut Activation<'a>,
        asked: &Asked<'_>,
    ) -> Option<String> {
        const LONGEST: usize = 5 << 10;
        let outcome = program.evaluate(activation, &mut self.budget);
        if self.budget.is_exhausted() {
            self.exhausted(asked);
            return None;
        }
        let text = outcome.ok().and_then(|value| value.as_str().map(|text| text.trim().to_owned()));
        let is_usable = |text: &String| {
            !text.is_empty() && text.len() <= LONGEST && !text.contains(['\n', '\r'])
        };
        Some(text.filter(is_usable).unwrap_or_else(|| rule.message()))
    }

    fn exhausted(&mut self, asked: &Asked<'_>) {
        self.is_over = true;
        let detail = "validation failed due to running out of cost budget, no further validation \
                      rules will be run";
        self.report(asked, detail.to_owned());
    }

    /// Something is wrong with the rule; told with the type of the value.
    fn report(&mut self, asked: &Asked<'_>, detail: String) {
        let ty = asked.schema.ty.map_or("", crate::JsonType::word);
        let path = asked.path.cloned().unwrap_or_else(nowhere);
        self.verdict.findings.push(FieldError::invalid(&path, ty, detail));
    }

    /// The value does not follow the rule.
    fn violated(&mut self, rule: &Rule, asked: &Asked<'_>, message: String) {
        let field = rule.written.field_path.trim().trim_start_matches('.');
        let path = match (asked.path, field) {
            (None, "") => nowhere(),
            (path, "") => path.cloned().unwrap_or_default(),
            (path, field) => path.cloned().unwrap_or_default().member(field),
        };
        let invalid = |value: &Value| {
            let finding = FieldError::invalid(&path, value.clone(), message.clone());
            let is_whole = value.is_object() || value.is_array();
            if is_whole { finding.without_value() } else { finding }
        };
        let finding = match rule.written.reason.as_str() {
            "FieldValueRequired" => FieldError::required(&path, message.clone()),
            "FieldValueForbidden" => FieldError::forbidden(&path, message.clone()),
            "FieldValueDuplicate" => FieldError::duplicate(&path, asked.value.clone()),
            _ => invalid(asked.value),
        };
        let is_unchanged = asked.old.is_some_and(|old| is_same(asked.schema, asked.value, old));
        if is_unchanged && !rule.uses_old {
            self.verdict.warnings.push(finding.to_string());
        } else {
            self.verdict.findings.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(spec: Value, object: &Value, old: Option<&Value>) -> Verdict {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let structural = Structural::compile(&schema).unwrap();
        Rules::compile(&schema, true).unwrap().check(object, old, &structural)
    }

    fn check(spec: Value, value: Value, old: Option<Value>, expected: &[&str]) {
        let old = old.map(|old| json!({ "spec": old }));
        let found = verdict(spec, &json!({ "spec": value }), old.as_ref());
        let found: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn rules_are_told_in_upstream_words() {
        let of = |rule: Value| json!({"type": "integer", "x-kubernetes-validations": [rule]});
        check(of(json!({"rule": "self > 0"})), json!(1), None, &[]);
        check(
            of(json!({"rule": "self > 0"})),
            json!(0),
            None,
            &["spec: Invalid value: 0: failed rule: self > 0"],
        );
        check(
            of(json!({"rule": "self > 0", "message": "no"})),
            json!(0),
            None,
            &["spec: Invalid value: 0: no"],
        );
        check(
            of(json!({"rule": "self > 0", "messageExpression": "'got ' + string(self)"})),
            json!(0),
            None,
            &["spec: Invalid value: 0: got 0"],
        );
        check(
            of(json!({"rule": "10 / self > 0"})),
            json!(0),
            None,
            &["spec: Invalid value: \"integer\": division by zero evaluating rule: 10 / self > 0"],
        );
    }

    #[test]
    fn reasons_and_places_can_be_chosen() {
        let spec = json!({"type": "object", "properties": {"a": {"type": "integer"},
            "b": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.a <= self.b",
            "message": "a is too large", "reason": "FieldValueForbidden", "fieldPath": ".a"}]});
        check(spec, json!({"a": 2, "b": 1}), None, &["spec.a: Forbidden: a is too large"]);
    }

    #[test]
    fn old_values_are_compared_where_there_are_any() {
        let fixed = json!({"type": "string", "x-kubernetes-validations":
            [{"rule": "self == oldSelf", "message": "fixed"}]});
        check(fixed.clone(), json!("a"), None, &[]);
        check(fixed, json!("b"), Some(json!("a")), &["spec: Invalid value: \"b\": fixed"]);
        let once = json!({"type": "string", "x-kubernetes-validations": [{"optionalOldSelf": true,
            "rule": "!oldSelf.hasValue() || oldSelf.value() == self", "message": "once"}]});
        check(once.clone(), json!("a"), None, &[]);
        check(once, json!("b"), Some(json!("a")), &["spec: Invalid value: \"b\": once"]);
    }

    #[test]
    fn items_are_told_apart_by_their_keys() {
        let spec = json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {
            "n": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations":
            [{"rule": "self == oldSelf", "message": "fixed"}]}}}});
        check(
            spec,
            json!([{"n": "b", "v": 2}, {"n": "a", "v": 2}]),
            Some(json!([{"n": "a", "v": 1}])),
            &["spec[1].v: Invalid value: 2: fixed"],
        );
    }

    #[test]
    fn what_has_not_changed_is_only_warned_of() {
        let spec = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]});
        let object = json!({"spec": 0});
        let found = verdict(spec, &object, Some(&object));
        assert!(found.findings.is_empty());
        assert_eq!(found.warnings, ["spec: Invalid value: 0: failed rule: self > 0"]);
    }

    #[test]
    fn the_object_itself_has_its_name() {
        let schema = json!({"type": "object", "x-kubernetes-validations":
            [{"rule": "!self.metadata.name.startsWith('bad')", "message": "bad name"}]});
        let structural = Structural::compile(&schema).unwrap();
        let object = json!({"apiVersion": "a.b/v1", "kind": "Foo", "metadata": {"name": "bad"}});
        let found = Rules::compile(&schema, true).unwrap().check(&object, None, &structural);
        let found: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["<nil>: Invalid value: bad name"]);
    }
}
