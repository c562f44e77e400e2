//! What expressions see of a request.

use cel::admission::{namespace, request};
use cel::{Activation, Authorizer, Budget, Check, Environment, Value};
use serde_json::Value as Json;

/// A request, as expressions see it. Objects are as clients of their version see them.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// As it will be; absent for deletions.
    pub object: Option<&'a Json>,
    /// As it was; absent for creations.
    pub old_object: Option<&'a Json>,
    /// `request`, which is an `AdmissionRequest` without its objects.
    pub request: &'a Json,
    /// The namespace of the object, when it has one.
    pub namespace: Option<&'a Json>,
    /// The parameters of the policy.
    pub params: Option<&'a Json>,
    /// Who is asked what the user may do.
    pub authorizer: &'a dyn Authorizer,
    /// What the request is about, for `authorizer.requestResource`.
    pub resource: &'a Check,
    /// Whether the request has waited long enough.
    pub interrupted: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl<'a> Input<'a> {
    /// What all expressions of a run may cost.
    pub(crate) fn budget(&self, total: u64) -> Budget<'a> {
        let budget = Budget::new(total);
        match self.interrupted {
            Some(interrupted) => budget.interrupted_by(interrupted),
            None => budget,
        }
    }

    /// The variables of an environment. What it does not have is passed over.
    pub(crate) fn activation(&self, environment: &Environment) -> Activation<'a> {
        let dynamic = |json: Option<&'a Json>| json.map_or(Value::Null, |j| Value::json(j, None));
        let scope = self.namespace.map_or(Value::Null, |json| Value::json(json, Some(namespace())));
        Activation::new(environment)
            .with("object", dynamic(self.object))
            .with("oldObject", dynamic(self.old_object))
            .with("params", dynamic(self.params))
            .with("request", Value::json(self.request, Some(request())))
            .with("namespaceObject", scope)
            .with("authorizer", Value::authorizer(self.authorizer))
            .with(
                "authorizer.requestResource",
                Value::resource_check(self.authorizer, self.resource.clone()),
            )
    }
}
