//! Match conditions of webhooks and policies.
//!
//! Upstream: `apiserver/pkg/admission/plugin/webhook/matchconditions`.

use cel::admission::Sees;
use cel::{Environment, MATCH_CONDITIONS_BUDGET};
use serde::Deserialize;

use crate::evaluate::Expression;
use crate::input::Input;

/// One condition, as objects have it.
#[derive(Clone, Debug, Deserialize)]
pub struct Condition {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// What must be true.
    #[serde(default)]
    pub expression: String,
}

/// Conditions that all must hold.
#[derive(Debug)]
pub struct Conditions {
    environment: Environment,
    expressions: Vec<Expression>,
}

impl Conditions {
    /// Compiles conditions.
    pub fn new(conditions: &[Condition], has_params: bool) -> Self {
        let sees = Sees { params: has_params, authorizer: true, patches: false };
        let environment = Environment::admission(sees);
        let of = |condition: &Condition| Expression::compile(&environment, &condition.expression);
        let expressions = conditions.iter().map(of).collect();
        Self { environment, expressions }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }

    /// Whether all hold. One that does not comes before those that fail.
    ///
    /// # Errors
    /// What went wrong in those that fail.
    pub fn hold(&self, input: &Input<'_>) -> Result<bool, String> {
        if self.is_empty() {
            return Ok(true);
        }
        // Upstream does not show them the namespace.
        let input = Input { namespace: None, ..*input };
        let mut activation = input.activation(&self.environment);
        let mut budget = input.budget(MATCH_CONDITIONS_BUDGET);
        let mut failures = Vec::new();
        for expression in &self.expressions {
            match expression.evaluate(&mut activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(_) => {}
                Err(crate::evaluate::Failure::Budget) => {
                    return Err(crate::evaluate::OUT_OF_BUDGET.to_owned());
                }
                Err(failure) => failures.push(failure.text()),
            }
        }
        match &failures[..] {
            [] => Ok(true),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}
