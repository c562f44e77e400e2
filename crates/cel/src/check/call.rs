//! Which overload a call is.

use std::fmt::Write as _;

use super::infer::Inference;
use super::{Checker, Reference, index};
use crate::functions::{self, Function};
use crate::library;
use crate::source::Offset;
use crate::syntax::ast::{Call, Expr, ExprKind, Literal, operator};
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn call(&mut self, expr: &Expr, call: &Call) -> Type {
        if call.function == "_&&_" || call.function == "_||_" {
            return self.logical(expr, call);
        }
        // The target may be the namespace of a function.
        if let Some(target) = &call.target
            && matches!(target.kind, ExprKind::Name { .. })
            && let Some(prefix) = self.qualified(target)
        {
            let name = format!("{prefix}.{}", call.function);
            if let Some(function) = self.function(&name) {
                self.references[index(expr.id)] = Reference::Function(name.clone());
                let args = self.check_all(&call.args);
                return self.resolve(expr, &name, function, false, &args);
            }
        }
        let target = call.target.as_ref().map(|target| self.check(target));
        let is_method = target.is_some();
        let mut args: Vec<Type> = target.into_iter().collect();
        let is_mixed = usize::from(is_method && call.function == "format");
        self.mixed += is_mixed;
        args.extend(self.check_all(&call.args));
        self.mixed -= is_mixed;
        let Some(function) = self.function(&call.function) else {
            return self.undeclared(expr.at, &call.function);
        };
        self.literals(call);
        self.resolve(expr, &call.function, function, is_method, &args)
    }

    fn function(&self, name: &str) -> Option<&'static Function> {
        functions::find(name).filter(|_| self.environment.has_function(name))
    }

    fn check_all(&mut self, args: &[Expr]) -> Vec<Type> {
        args.iter().map(|arg| self.check(arg)).collect()
    }

    /// `&&` and `||`, whose operands may be more than two in a row and are bool each.
    fn logical(&mut self, expr: &Expr, call: &Call) -> Type {
        let args = self.check_all(&call.args);
        let is_and = call.function == operator::AND;
        let id = if is_and { "logical_and" } else { "logical_or" };
        self.overloads[index(expr.id)] = vec![id];
        if !args.iter().all(|arg| self.inference.assign(&Type::Bool, arg)) {
            return self.no_overload(expr.at, &call.function, false, &args);
        }
        Type::Bool
    }

    fn resolve(
        &mut self,
        expr: &Expr,
        name: &str,
        function: &'static Function,
        is_method: bool,
        args: &[Type],
    ) -> Type {
        let mut result: Option<Type> = None;
        let mut found = Vec::new();
        for overload in &function.overloads {
            if overload.is_method != is_method || overload.parameters.len() != args.len() {
                continue;
            }
            let variables = [self.inference.fresh(), self.inference.fresh()];
            let of = |ty: &Type| Inference::instantiate(ty, &variables);
            let parameters: Vec<Type> = overload.parameters.iter().map(of).collect();
            if !self.inference.assign_all(&parameters, args) {
                continue;
            }
            if !found.contains(&overload.id) {
                found.push(overload.id);
            }
            let ty = self.inference.resolve(&of(&overload.result));
            result = Some(match result {
                Some(other) if !other.is_exactly(&ty) => Type::Dyn,
                _ => ty,
            });
        }
        self.overloads[index(expr.id)] = found;
        match result {
            Some(ty) => ty,
            None if args.iter().any(|arg| matches!(arg, Type::Error)) => Type::Error,
            None => self.no_overload(expr.at, name, is_method, args),
        }
    }

    fn no_overload(&mut self, at: Offset, name: &str, is_method: bool, args: &[Type]) -> Type {
        let shown: Vec<String> = args.iter().map(|arg| self.shown(arg)).collect();
        let mut signature = String::new();
        let rest = if is_method {
            signature.push_str(&shown[0]);
            signature.push('.');
            &shown[1..]
        } else {
            &shown[..]
        };
        // Writing to a string cannot fail.
        let _ = write!(signature, "({})", rest.join(", "));
        let text = format!("found no matching overload for '{name}' applied to '{signature}'");
        self.mistake(at, text)
    }

    /// Literals that are read when the expression is compiled.
    fn literals(&mut self, call: &Call) {
        let arg = match (&*call.function, &*call.args) {
            ("duration" | "timestamp", [arg]) if call.target.is_none() => arg,
            ("matches", [arg]) if call.target.is_some() => arg,
            ("matches", [_, arg]) => arg,
            _ => return,
        };
        let ExprKind::Literal(Literal::String(text)) = &arg.kind else { return };
        let is_good = match &*call.function {
            "duration" => library::time::parse_duration(text).is_some(),
            "timestamp" => library::time::parse_timestamp(text).is_some(),
            _ => library::regex::compile(text).is_ok(),
        };
        if !is_good {
            self.mistake(arg.at, format!("invalid {} argument", call.function));
        }
    }
}
