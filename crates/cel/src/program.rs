//! What an expression was compiled into.

use std::sync::Arc;

use crate::activation::Activation;
use crate::budget::Budget;
use crate::error::EvaluationError;
use crate::estimate::Range;
use crate::plan::Node;
use crate::types::Type;
use crate::value::Value;

/// A compiled expression. Clones share it.
#[derive(Clone)]
pub struct Program {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    result: Type,
    cost: Range,
    /// The variables it looks at.
    variables: Vec<String>,
}

impl Program {
    pub(crate) fn new(node: Node, result: Type, cost: Range, variables: Vec<String>) -> Self {
        Self { inner: Arc::new(Inner { node, result, cost, variables }) }
    }

    /// Whether it looks at a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.inner.variables.iter().any(|known| known == variable)
    }

    /// The type of its value.
    pub fn result(&self) -> &Type {
        &self.inner.result
    }

    /// What it may cost at the least and at the most, by the sizes its environment declares.
    pub fn estimate(&self) -> Range {
        self.inner.cost
    }

    /// Its value.
    ///
    /// # Errors
    /// When the expression fails, or costs more than one evaluation may. What it cost is taken from
    /// the budget either way.
    pub fn evaluate<'a>(
        &self,
        activation: &mut Activation<'a>,
        budget: &mut Budget<'_>,
    ) -> Result<Value<'a>, EvaluationError> {
        budget.enter();
        activation.locals.clear();
        activation.depth = 0;
        let found = self.run(activation, budget);
        budget.leave();
        found
    }

    pub(crate) fn run<'a>(
        &self,
        activation: &mut Activation<'a>,
        budget: &mut Budget<'_>,
    ) -> Result<Value<'a>, EvaluationError> {
        crate::eval::eval(&self.inner.node, activation, budget)
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("result", &self.inner.result).finish_non_exhaustive()
    }
}
