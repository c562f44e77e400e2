//! Policies that change objects.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy/mutating`.

use cel::admission::Sees;
use cel::{Environment, RUNTIME_BUDGET};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::conditions::{Condition, Conditions};
use crate::evaluate::{Expression, Variables};
use crate::input::Input;
use crate::params::ParamKind;
use crate::validating::Variable;

/// A policy, compiled.
#[derive(Debug)]
pub struct Mutating {
    /// Whether what goes wrong refuses the request.
    pub fails_closed: bool,
    /// Whether it is run again when something else changed the object.
    pub is_reinvoked: bool,
    /// What its parameters are.
    pub param_kind: Option<ParamKind>,
    conditions: Conditions,
    compiled: Result<Compiled, String>,
}

#[derive(Debug)]
struct Compiled {
    variables: Variables,
    environment: Environment,
    mutations: Vec<(Form, Expression)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Configuration,
    Patch,
}

/// A change to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch {
    /// To be merged as server-side apply does it.
    Configuration(Json),
    /// Operations of a JSON patch.
    Operations(Json),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    failure_policy: Option<String>,
    reinvocation_policy: String,
    param_kind: Option<ParamKind>,
    match_conditions: Vec<Condition>,
    variables: Vec<Variable>,
    mutations: Vec<Mutation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mutation {
    apply_configuration: Option<Held>,
    json_patch: Option<Held>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Held {
    expression: String,
}

impl Mutating {
    /// Compiles the `spec` of a policy. One that cannot be read changes nothing.
    pub fn new(spec: &Json) -> Self {
        let spec: Spec = serde_json::from_value(spec.clone()).unwrap_or_default();
        let has_params = spec.param_kind.is_some();
        Self {
            fails_closed: spec.failure_policy.as_deref() != Some("Ignore"),
            is_reinvoked: spec.reinvocation_policy == "IfNeeded",
            conditions: Conditions::new(&spec.match_conditions, has_params),
            compiled: Compiled::new(&spec, has_params),
            param_kind: spec.param_kind,
        }
    }

    /// Whether the policy is about the request, beside its rules.
    ///
    /// # Errors
    /// What went wrong in its conditions.
    pub fn matches(&self, input: &Input<'_>) -> Result<bool, String> {
        match self.conditions.hold(input) {
            // What is to be ignored keeps the policy from being run.
            Err(_) if !self.fails_closed => Ok(false),
            other => other,
        }
    }

    /// How many changes it makes, one after the other.
    pub fn mutations(&self) -> usize {
        self.compiled.as_ref().map_or(1, |compiled| compiled.mutations.len())
    }

    /// A change to an object as those before have left it.
    ///
    /// # Errors
    /// What went wrong.
    pub fn mutate(&self, at: usize, input: &Input<'_>) -> Result<Patch, String> {
        let compiled = self.compiled.as_ref().map_err(Clone::clone)?;
        let Some((form, expression)) = compiled.mutations.get(at) else {
            return Err("no such mutation".to_owned());
        };
        let activation = input.activation(&compiled.environment);
        let mut activation = compiled.variables.bind(activation);
        let mut budget = input.budget(RUNTIME_BUDGET);
        let value = expression.evaluate(&mut activation, &mut budget);
        let value = value.map_err(crate::evaluate::Failure::text)?;
        let json = value.to_json().map_err(|why| why.to_string());
        match form {
            Form::Configuration => {
                value.check_type_names().map_err(|why| format!("type mismatch: {why}"))?;
                Ok(Patch::Configuration(json?))
            }
            Form::Patch => Ok(Patch::Operations(json?)),
        }
    }
}

impl Compiled {
    fn new(spec: &Spec, has_params: bool) -> Result<Self, String> {
        let sees = Sees { params: has_params, authorizer: true, patches: false };
        let mut own = Environment::admission(sees);
        let mut environment = Environment::admission(Sees { patches: true, ..sees });
        let variables = spec.variables.iter().map(|v| (v.name.as_str(), v.expression.as_str()));
        let variables = Variables::compile(variables, &mut own, &mut [&mut environment])?;
        let mutations = spec.mutations.iter().filter_map(|mutation| {
            let (form, held) = match (&mutation.apply_configuration, &mutation.json_patch) {
                (Some(held), _) => (Form::Configuration, held),
                (None, Some(held)) => (Form::Patch, held),
                (None, None) => return None,
            };
            Some((form, Expression::compile(&environment, &held.expression)))
        });
        let mutations = mutations.collect();
        Ok(Self { variables, environment, mutations })
    }
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

    fn patch(mutation: Json) -> Result<Patch, String> {
        let (object, request) = (json!({"data": {"a": "x"}}), json!({}));
        let spec = json!({"variables": [{"name": "v", "expression": "object.data.a + '!'"}],
            "mutations": [mutation]});
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
        Mutating::new(&spec).mutate(0, &input)
    }

    #[test]
    fn configurations_and_operations_are_made() {
        let found = patch(json!({"applyConfiguration": {
            "expression": "Object{metadata: Object.metadata{labels: {'v': variables.v}}}"}}));
        let expected = json!({"metadata": {"labels": {"v": "x!"}}});
        assert_eq!(found, Ok(Patch::Configuration(expected)));
        let found = patch(json!({"jsonPatch": {
            "expression": "[JSONPatch{op: 'add', path: '/data/b', value: variables.v}]"}}));
        let expected = json!([{"op": "add", "path": "/data/b", "value": "x!"}]);
        assert_eq!(found, Ok(Patch::Operations(expected)));
    }

    #[test]
    fn types_of_objects_must_be_those_of_their_fields() {
        let found = patch(json!({"applyConfiguration": {
            "expression": "Object{spec: Object.metadata{a: 1}}"}}));
        let why = found.unwrap_err();
        assert!(
            why.starts_with("type mismatch: unexpected type name \"Object.metadata\""),
            "{why}"
        );
    }
}
