//! What expressions may use.

use std::collections::BTreeMap;
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
    /// Places of programs that are evaluated when `variables.name` is first asked for.
    composed: BTreeMap<String, usize>,
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
        self.variables_fields();
        self
    }

    /// With `variables.name`, whose value is that of a program; see [`crate::Activation::compose`].
    #[must_use]
    pub fn with_composed(mut self, name: &str, ty: Type) -> Self {
        let at = self.composed.len();
        self.composed.insert(name.to_owned(), at);
        if let Some(fields) = self.variables_fields() {
            fields.insert(name, Declaration::of(ty));
        }
        self
    }

    /// The fields of `variables`, which is declared with the first of them.
    fn variables_fields(&mut self) -> Option<&mut Fields> {
        if self.declaration("variables").is_none() {
            let none: [(&str, Declaration); 0] = [];
            let fields = Fields::plain("kubernetes.variables", none);
            self.variables.push(("variables".to_owned(), Arc::new(Declaration::object(fields))));
        }
        let mut variables = self.variables.iter_mut();
        let (_, declaration) = variables.find(|(name, _)| name == "variables")?;
        Arc::make_mut(declaration).fields_mut()
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
        self.composed.get(name).copied()
    }

    /// Whether a variable has this name and more after a dot.
    pub(crate) fn has_names_below(&self, name: &str) -> bool {
        let mut names = self.names();
        names.any(|known| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
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
