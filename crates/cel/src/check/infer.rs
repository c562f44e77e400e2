//! Which types fit where others are expected, and what type parameters stand for.
//!
//! Anything fits where `dyn` is expected and the other way round; null fits where an object or an
//! opaque type is expected.

use std::sync::Arc;

use crate::types::Type;

/// What type variables stand for so far.
#[derive(Default)]
pub(super) struct Inference {
    bound: Vec<Option<Type>>,
    /// What variables stood for before, to take back what did not fit.
    trail: Vec<(usize, Option<Type>)>,
}

impl Inference {
    pub(super) fn fresh(&mut self) -> Type {
        let at = u32::try_from(self.bound.len()).unwrap_or(u32::MAX);
        self.bound.push(None);
        Type::Variable(at)
    }

    /// A declared type with variables in place of its parameters.
    pub(super) fn instantiate(ty: &Type, variables: &[Type]) -> Type {
        let of = |ty: &Arc<Type>| Arc::new(Self::instantiate(ty, variables));
        match ty {
            Type::Parameter(at) => variables.get(usize::from(*at)).cloned().unwrap_or(Type::Dyn),
            Type::List(item) => Type::List(of(item)),
            Type::Map(key, value) => Type::Map(of(key), of(value)),
            Type::Optional(inner) => Type::Optional(of(inner)),
            Type::Type(inner) => Type::Type(of(inner)),
            other => other.clone(),
        }
    }

    fn lookup(&self, variable: u32) -> Option<&Type> {
        let at = usize::try_from(variable).ok()?;
        self.bound.get(at)?.as_ref()
    }

    /// A type without those variables that stand for something; the others are `dyn`.
    pub(super) fn resolve(&self, ty: &Type) -> Type {
        let of = |ty: &Arc<Type>| Arc::new(self.resolve(ty));
        match ty {
            Type::Variable(at) => match self.lookup(*at) {
                Some(bound) => self.resolve(bound),
                None => Type::Dyn,
            },
            Type::List(item) => Type::List(of(item)),
            Type::Map(key, value) => Type::Map(of(key), of(value)),
            Type::Optional(inner) => Type::Optional(of(inner)),
            Type::Type(inner) => Type::Type(of(inner)),
            other => other.clone(),
        }
    }

    /// What a variable stands for at the end of a chain of variables.
    fn shallow(&self, ty: &Type) -> Type {
        let mut ty = ty.clone();
        while let Type::Variable(at) = ty
            && let Some(bound) = self.lookup(at)
        {
            ty = bound.clone();
        }
        ty
    }

    /// Whether values of the second type fit where the first is expected. When they do not, nothing
    /// is remembered.
    pub(super) fn assign(&mut self, expected: &Type, actual: &Type) -> bool {
        let fits = self.unify(expected, actual);
        self.settle(fits)
    }

    pub(super) fn assign_all(&mut self, expected: &[Type], actual: &[Type]) -> bool {
        let fits = expected.len() == actual.len()
            && expected.iter().zip(actual).all(|(a, b)| self.unify(a, b));
        self.settle(fits)
    }

    /// Keeps what was found out, or takes it back.
    fn settle(&mut self, fits: bool) -> bool {
        for (at, before) in self.trail.drain(..).rev() {
            if !fits {
                self.bound[at] = before;
            }
        }
        fits
    }

    fn set(&mut self, variable: u32, ty: Type) {
        if let Ok(at) = usize::try_from(variable)
            && at < self.bound.len()
        {
            let before = self.bound[at].replace(ty);
            self.trail.push((at, before));
        }
    }

    fn unify(&mut self, expected: &Type, actual: &Type) -> bool {
        let (raw_expected, raw_actual) = (expected, actual);
        let (expected, actual) = (self.shallow(expected), self.shallow(actual));
        match (&expected, &actual) {
            (Type::Variable(a), Type::Variable(b)) if a == b => true,
            (Type::Variable(at), other) | (other, Type::Variable(at)) => self.bind(*at, other),
            (a, b) if a.is_dyn() || b.is_dyn() => {
                self.generalize(raw_expected, b);
                self.generalize(raw_actual, a);
                true
            }
            (Type::Null, Type::Null) => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Object(_)
                    | Type::Opaque(_)
                    | Type::Timestamp
                    | Type::Duration
                    | Type::Optional(_)
            ),
            (Type::List(a), Type::List(b))
            | (Type::Optional(a), Type::Optional(b))
            | (Type::Type(a), Type::Type(b)) => self.unify(a, b),
            (Type::Map(a, b), Type::Map(c, d)) => self.unify(a, c) && self.unify(b, d),
            (a, b) => a.is_exactly(b),
        }
    }

    /// A variable that met `dyn` once stays `dyn`.
    fn generalize(&mut self, variable: &Type, met: &Type) {
        if met.is_dyn()
            && let Type::Variable(at) = variable
            && self.lookup(*at).is_some()
        {
            self.set(*at, Type::Dyn);
        }
    }

    fn bind(&mut self, variable: u32, ty: &Type) -> bool {
        if self.occurs(variable, ty) {
            return false;
        }
        self.set(variable, ty.clone());
        true
    }

    fn occurs(&self, variable: u32, ty: &Type) -> bool {
        match ty {
            Type::Variable(at) => {
                *at == variable || self.lookup(*at).is_some_and(|ty| self.occurs(variable, ty))
            }
            Type::List(a) | Type::Optional(a) | Type::Type(a) => self.occurs(variable, a),
            Type::Map(a, b) => self.occurs(variable, a) || self.occurs(variable, b),
            _ => false,
        }
    }
}
