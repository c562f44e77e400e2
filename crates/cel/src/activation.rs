//! What variables stand for while a program runs.

use crate::budget::Budget;
use crate::environment::Environment;
use crate::error::{EvaluationError, Outcome};
use crate::program::Program;
use crate::value::Value;

/// Most lists and maps within each other in the value of a composed variable.
const MAX_NESTING: usize = 300;

/// How much deeper a composed variable is than an expression within another: it takes more stack.
const COMPOSED_DEPTH: usize = 8;

/// What the variables of an environment stand for. Composed variables are evaluated when they are
/// first asked for, and once.
pub struct Activation<'a> {
    pub(crate) values: Vec<Option<Value<'a>>>,
    composed: Vec<(&'a Program, Option<Outcome<Value<'a>>>)>,
    names: Vec<String>,
    /// Variables of loops.
    pub(crate) locals: Vec<Value<'a>>,
    /// How deep the evaluation is.
    pub(crate) depth: usize,
}

impl<'a> Activation<'a> {
    /// For programs of an environment, without values so far.
    pub fn new(environment: &Environment) -> Self {
        let names: Vec<String> = environment.names().map(str::to_owned).collect();
        let values = vec![None; names.len()];
        Self { values, composed: Vec::new(), names, locals: Vec::new(), depth: 0 }
    }

    /// Gives a variable a value; names that the environment does not have are passed over.
    pub fn set(&mut self, name: &str, value: Value<'a>) {
        if let Some(at) = self.names.iter().position(|known| known == name) {
            self.values[at] = Some(value);
        }
    }

    /// With the value too.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    /// The programs of composed variables, in the order in which the environment has them.
    #[must_use]
    pub fn compose(mut self, programs: impl IntoIterator<Item = &'a Program>) -> Self {
        self.composed = programs.into_iter().map(|program| (program, None)).collect();
        self
    }

    pub(crate) fn value(&self, at: usize) -> Outcome<Value<'a>> {
        match self.values.get(at) {
            Some(Some(value)) => Ok(value.clone()),
            _ => {
                let name = self.names.get(at).map_or("", String::as_str);
                Err(EvaluationError::NoSuchAttribute(name.into()))
            }
        }
    }

    /// The value of a composed variable. What it cost counts on its own.
    pub(crate) fn composed(&mut self, at: usize, budget: &mut Budget<'_>) -> Outcome<Value<'a>> {
        let Some((program, found)) = self.composed.get(at) else {
            return Err(EvaluationError::NoSuchAttribute("variables".into()));
        };
        if let Some(found) = found {
            return found.clone();
        }
        let program = *program;
        let outer = budget.enter();
        let locals = std::mem::take(&mut self.locals);
        self.depth += COMPOSED_DEPTH;
        let mut found = program.run(self, budget);
        self.depth -= COMPOSED_DEPTH;
        self.locals = locals;
        budget.leave();
        budget.resume(outer);
        if found.as_ref().is_ok_and(|value| !value.is_nested_at_most(MAX_NESTING)) {
            found = Err(EvaluationError::failed("value is nested too deeply"));
        }
        if let Some((_, slot)) = self.composed.get_mut(at) {
            *slot = Some(found.clone());
        }
        found
    }
}
