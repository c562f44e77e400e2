//! What expressions may use.

use std::sync::Arc;

use crate::check::{Reference, check};
use crate::declaration::{Declaration, Fields};
use crate::estimate;
use crate::plan::plan;
use crate::program::Program;
use crate::source::CompileErrors;
use crate::syntax::parse;
use crate::types::Type;

/// What expressions may use: variables, and upstream's 1.36 libraries.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(String, Arc<Declaration>)>,
    /// Programs under a name each, evaluated when `variables.name` is first asked for.
    composed: Vec<(String, Type)>,
    has_patch_types: bool,
}

impl Environment {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another variable. Its name may have dots.
    #[must_use]
    pub fn with(mut self, name: &str, declaration: impl Into<Arc<Declaration>>) -> Self {
        self.variables.push((name.to_owned(), declaration.into()));
        self
    }

    /// With `variables`, even if there are none so far.
    #[must_use]
    pub fn composing(mut self) -> Self {
        self.declare_composed();
        self
    }

    /// With `variables.name`, whose value is that of a program; see [`crate::Activation::compose`].
    #[must_use]
    pub fn with_composed(mut self, name: &str, ty: Type) -> Self {
        self.composed.push((name.to_owned(), ty));
        self.declare_composed();
        self
    }

    fn declare_composed(&mut self) {
        let known = self.composed.iter().map(|(name, ty)| (name, Declaration::of(ty.clone())));
        let fields = Fields::plain("kubernetes.variables", known);
        self.variables.retain(|(name, _)| name != "variables");
        self.variables.push(("variables".to_owned(), Arc::new(Declaration::object(fields))));
    }

    /// With `Object{…}`, `JSONPatch{…}` and the library for the latter, as policies that mutate.
    #[must_use]
    pub fn with_patch_types(mut self) -> Self {
        self.has_patch_types = true;
        self
    }

    /// Reads and checks an expression.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(&self, text: &str) -> Result<Program, CompileErrors> {
        let (expr, count) = parse(text)?;
        let checked =
            check(self, &expr, count).map_err(|mistakes| CompileErrors::new(text, mistakes))?;
        let cost = estimate::cost(self, &expr, &checked);
        let result = checked.types[usize::try_from(expr.id).unwrap_or(0)].clone();
        let plan = plan(self, &expr, &checked);
        let used = |at: &usize| checked.references.contains(&Reference::Variable(*at));
        let used = (0..self.variables.len()).filter(used);
        let variables = used.map(|at| self.variables[at].0.clone()).collect();
        Ok(Program::new(plan, result, cost, variables))
    }

    /// The names of its variables, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn variable(&self, name: &str) -> Option<(usize, Type)> {
        let at = self.variables.iter().position(|(known, _)| known == name)?;
        Some((at, self.variables[at].1.ty()))
    }

    pub(crate) fn declaration(&self, name: &str) -> Option<&Arc<Declaration>> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, declaration)| declaration)
    }

    /// The place of `variables.name`.
    pub(crate) fn composed(&self, name: &str) -> Option<usize> {
        self.composed.iter().position(|(known, _)| known == name)
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.has_patch_types || !name.starts_with("jsonpatch.")
    }

    /// A type whose objects can be made.
    pub(crate) fn constructible(&self, name: &str) -> Option<Type> {
        if !self.has_patch_types {
            return None;
        }
        if name == "JSONPatch" {
            let text = || Declaration::of(Type::String);
            let fields = [
                ("op", text()),
                ("path", text()),
                ("from", text()),
                ("value", Declaration::dynamic()),
            ];
            return Some(Type::Object(Arc::new(Fields::plain(name, fields))));
        }
        let is_object = name == "Object" || name.starts_with("Object.");
        is_object.then(|| Type::Object(Arc::new(Fields::open(name))))
    }
}
