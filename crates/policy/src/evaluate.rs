//! Single expressions, and how their failures read.

use cel::{Activation, Budget, Environment, Program, Value};

/// An expression that was compiled, or why it could not be.
#[derive(Debug)]
pub(crate) struct Expression {
    text: String,
    program: Result<Program, String>,
}

/// Why there is no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This expression failed.
    Expression(String),
    /// All expressions together cost too much, so that no other is evaluated.
    Budget,
}

/// What is said when all expressions together cost too much.
pub(crate) const OUT_OF_BUDGET: &str = "validation failed due to running out of cost budget, no \
                                        further validation rules will be run";

impl Failure {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Expression(text) => text,
            Self::Budget => OUT_OF_BUDGET.to_owned(),
        }
    }
}

impl Expression {
    pub(crate) fn compile(environment: &Environment, text: &str) -> Self {
        let program = environment.compile(text).map_err(|why| why.to_string());
        Self { text: text.to_owned(), program }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn program(&self) -> Result<&Program, &str> {
        self.program.as_ref().map_err(String::as_str)
    }

    pub(crate) fn evaluate<'a>(
        &self,
        activation: &mut Activation<'a>,
        budget: &mut Budget<'_>,
    ) -> Result<Value<'a>, Failure> {
        let program = self.program().map_err(|why| {
            Failure::Expression(format!("compilation error: compilation failed: {why}"))
        })?;
        let found = program.evaluate(activation, budget);
        if budget.is_exhausted() {
            return Err(Failure::Budget);
        }
        found.map_err(|why| {
            Failure::Expression(format!("expression '{}' resulted in error: {why}", self.text))
        })
    }
}

/// Variables, each of which sees those before it.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    programs: Vec<Program>,
}

impl Variables {
    /// Compiles variables; other environments learn their types.
    ///
    /// # Errors
    /// Why one cannot be compiled, which validation lets no policy have.
    pub(crate) fn compile<'v>(
        variables: impl Iterator<Item = (&'v str, &'v str)>,
        own: &mut Environment,
        others: &mut [&mut Environment],
    ) -> Result<Self, String> {
        let mut programs = Vec::new();
        for (name, text) in variables {
            let program = own
                .compile(text)
                .map_err(|why| format!("composited variable {name:?} fails to compile: {why}"))?;
            let ty = program.result();
            *own = std::mem::take(own).with_composed(name, ty.clone());
            for other in &mut *others {
                **other = std::mem::take(&mut **other).with_composed(name, ty.clone());
            }
            programs.push(program);
        }
        Ok(Self { programs })
    }

    /// Lets an activation evaluate them.
    pub(crate) fn bind<'a>(&'a self, activation: Activation<'a>) -> Activation<'a> {
        activation.compose(&self.programs)
    }
}
