//! Expressions compared with kinds: a pure function.

use cel::admission;
use cel::{Declaration, Environment, Type};
use meta::GroupVersionKind;
use serde::Deserialize;
use serde_json::{Value, json};

/// What is read of the `spec` of a policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Policy {
    pub(super) match_constraints: Constraints,
    pub(super) param_kind: Option<ParamKind>,
    variables: Vec<Variable>,
    validations: Vec<Validation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Constraints {
    pub(super) resource_rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub(super) api_groups: Vec<String>,
    pub(super) api_versions: Vec<String>,
    pub(super) resources: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ParamKind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Validation {
    expression: String,
    message_expression: String,
}

/// The kinds that a policy is about.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) kinds: Vec<(GroupVersionKind, Declaration)>,
    pub(super) params: Option<Declaration>,
}

impl Checked {
    /// What does not fit, as the status has it.
    pub(super) fn warnings(&self, policy: &Policy) -> Vec<Value> {
        let environments: Vec<(String, Environment)> = self
            .kinds
            .iter()
            .map(|(kind, object)| (print(kind), self.environment(object, policy)))
            .collect();
        let mut warnings = Vec::new();
        for (at, validation) in policy.validations.iter().enumerate() {
            let texts = [
                ("expression", &validation.expression),
                ("messageExpression", &validation.message_expression),
            ];
            for (field, text) in texts {
                if field == "messageExpression" && text.is_empty() {
                    continue;
                }
                let found: Vec<String> = environments
                    .iter()
                    .filter_map(|(kind, environment)| {
                        let why = environment.compile(text).err()?;
                        Some(format!("{kind}: {why}\n"))
                    })
                    .collect();
                if !found.is_empty() {
                    let field = format!("spec.validations[{at}].{field}");
                    warnings.push(json!({"fieldRef": field, "warning": found.join("\n")}));
                }
            }
        }
        warnings
    }

    fn environment(&self, object: &Declaration, policy: &Policy) -> Environment {
        let mut environment = Environment::new()
            .with("namespaceObject", admission::namespace().clone())
            .with("request", admission::request().clone())
            .with("object", object.clone())
            .with("oldObject", object.clone())
            .with(
                "authorizer",
                Declaration::of(Type::Opaque("kubernetes.authorization.Authorizer")),
            )
            .composing();
        if policy.param_kind.is_some() {
            let params = self.params.clone().unwrap_or_else(Declaration::dynamic);
            environment = environment.with("params", params);
        }
        for variable in &policy.variables {
            let ty = environment.compile(&variable.expression);
            let ty = ty.map_or(Type::Dyn, |program| program.result().clone());
            environment = environment.with_composed(&variable.name, ty);
        }
        environment
    }
}

/// As Go prints it, with the empty group of the core.
fn print(kind: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

/// A kind in an OpenAPI v3 document.
pub(super) fn custom(document: &Value, kind: &GroupVersionKind) -> Option<Declaration> {
    let wanted = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let schemas = document["components"]["schemas"].as_object()?;
    let schema = schemas.values().find(|schema| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.contains(&wanted))
    })?;
    let metadata = schema::registry().type_named("meta/v1.ObjectMeta")?;
    Some(Declaration::custom(schema, Declaration::from_table(metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(spec: Value) -> Vec<Value> {
        let policy: Policy = serde_json::from_value(spec).unwrap();
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        let table = schema::registry().kind(&kind).unwrap();
        let kinds = vec![(kind, Declaration::from_table(table))];
        Checked { kinds, params: None }.warnings(&policy)
    }

    #[test]
    fn fields_that_a_kind_does_not_have_are_told() {
        let found = warnings(json!({"validations": [
            {"expression": "object.spec.replicas > 1"},
            {"expression": "object.spec.replicaz > 1", "messageExpression": "object.foo"}]}));
        assert_eq!(
            found,
            [
                json!({"fieldRef": "spec.validations[1].expression", "warning":
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'\n \
                     | object.spec.replicaz > 1\n | ...........^\n"}),
                json!({"fieldRef": "spec.validations[1].messageExpression", "warning":
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'foo'\n \
                     | object.foo\n | ......^\n"}),
            ]
        );
    }

    #[test]
    fn variables_have_types() {
        let found = warnings(json!({
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [{"expression": "variables.n == 'x'"}]}));
        assert!(found[0]["warning"].as_str().unwrap().contains("'(int, string)'"), "{found:?}");
    }

    #[test]
    fn custom_kinds_are_found_in_documents() {
        let document = json!({"components": {"schemas": {"x": {"type": "object",
            "x-kubernetes-group-version-kind": [{"group": "g", "version": "v1", "kind": "K"}],
            "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}});
        let found = custom(&document, &GroupVersionKind::new("g", "v1", "K")).unwrap();
        let environment = Environment::new().with("object", found);
        assert!(environment.compile("object.spec.n > 1 && has(object.metadata.labels)").is_ok());
        assert!(environment.compile("object.spec.m").is_err());
    }
}
