//! Policies that refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use ::policy::{Denial, Outcome, Validating};
use meta::{Cause, GroupVersionResource, Reason, Status};
use serde_json::Value;

use super::{Binding, Bound, Policies};
use crate::audit::quoted;
use crate::context::RequestContext;
use crate::errors;
use crate::webhook::Attributes;
use crate::webhook::matching::Matched;
use crate::webhook::seen::Seen;

/// Asks every policy that is about a request; the first that refuses it is told.
pub(in crate::webhook) async fn validate(
    ctx: &RequestContext,
    policies: &Policies<Validating>,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let bound = policies.bound();
    if bound.is_empty() || attributes.is_exempt() {
        return Ok(());
    }
    let notes = BTreeMap::new();
    let mut run = Run { ctx, attributes, object, old, refusal: None, notes };
    // The object is printed once for every version of it that policies name.
    let mut seen: Vec<(GroupVersionResource, Seen<'_>)> = Vec::new();
    for policy in bound.iter() {
        if let Some(matched) = policy.matches(ctx, attributes, object, old)? {
            run.policy(policy, &matched, &mut seen).await?;
            run.publish(policy);
        }
    }
    run.refusal.map_or(Ok(()), |status| Err(*status))
}

struct Run<'a> {
    ctx: &'a RequestContext,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    /// The first refusal.
    refusal: Option<Box<Status>>,
    /// What one policy has to say for the audit log, by key; every value once.
    notes: BTreeMap<String, Vec<String>>,
}

impl<'a> Run<'a> {
    async fn policy(
        &mut self,
        bound: &Bound<Validating>,
        matched: &Matched,
        all: &mut Vec<(GroupVersionResource, Seen<'a>)>,
    ) -> Result<(), Status> {
        if let Some(why) = bound.misconfigured(self.ctx) {
            if bound.policy.fails_closed {
                let who = format!("ValidatingAdmissionPolicy '{}'", bound.name);
                self.refuse(&who, &why, "");
            }
            return Ok(());
        }
        for binding in &bound.bindings {
            if !binding.matches(self.ctx, self.attributes, self.object, self.old)? {
                continue;
            }
            let params = match bound.params(self.ctx, binding, self.attributes) {
                Ok(params) => params,
                Err(why) => {
                    if bound.policy.fails_closed {
                        self.refuse(&who(bound, binding), &why, "");
                    }
                    continue;
                }
            };
            if !all.iter().any(|(gvr, _)| *gvr == matched.gvr) {
                let (object, old) = (self.object, self.old);
                let seen = Seen::new(self.ctx, self.attributes, matched, object, old).await?;
                all.push((matched.gvr.clone(), seen));
            }
            let Some((_, seen)) = all.iter().find(|(gvr, _)| *gvr == matched.gvr) else { continue };
            for param in params {
                let begun = self.ctx.server.clock.monotonic();
                let outcome = bound.policy.validate(&seen.input(param.as_ref()));
                let took = self.ctx.server.clock.monotonic().duration_since(begun);
                self.outcome(bound, binding, outcome, took);
            }
        }
        Ok(())
    }

    fn outcome(
        &mut self,
        bound: &Bound<Validating>,
        binding: &Binding,
        outcome: Outcome,
        took: Duration,
    ) {
        let metrics = &self.ctx.server.metrics.validating_policies;
        let count = |action: &str, error: &str| {
            let labels = [action, error, bound.name.as_str(), binding.name.as_str()];
            metrics.observe(&labels, took);
        };
        for denial in &outcome.denials {
            for action in &binding.actions {
                count(&action.to_lowercase(), denial.error);
                match action.as_str() {
                    "Deny" => {
                        self.refuse(&who(bound, binding), &denial.message, &denial.reason);
                    }
                    "Warn" => self.ctx.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        bound.name, binding.name, denial.message
                    )),
                    "Audit" => note_failure(self.ctx, bound, binding, denial),
                    _ => {}
                }
            }
        }
        for why in outcome.refusals {
            count("deny", "invalid_error");
            self.refuse(&who(bound, binding), &why, "");
        }
        for annotation in outcome.annotations {
            let values = self.notes.entry(annotation.key).or_default();
            if !values.contains(&annotation.value) {
                values.push(annotation.value);
            }
        }
    }

    /// Records what a policy said, with all of its bindings and parameters.
    fn publish(&mut self, bound: &Bound<Validating>) {
        for (key, values) in std::mem::take(&mut self.notes) {
            if let Some(audit) = &self.ctx.audit {
                audit.annotate_checked(&format!("{}/{key}", bound.name), values.join(", "));
            }
        }
    }

    fn refuse(&mut self, who: &str, why: &str, reason: &str) {
        if self.refusal.is_some() {
            return;
        }
        let why = format!("{who} denied request: {why}");
        let reason = Reason::parse(reason).unwrap_or(Reason::Invalid);
        let status = refusal(self.attributes, self.object, &why, &why, reason);
        self.refusal = Some(Box::new(Status { code: reason.code().as_u16(), ..status }));
    }
}

/// A policy and the binding by which it was asked.
fn who(bound: &Bound<Validating>, binding: &Binding) -> String {
    let (policy, binding) = (&bound.name, &binding.name);
    format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}'")
}

/// 403 about the object of a request, with a cause.
pub(super) fn refusal(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    why: &str,
    cause: &str,
    reason: Reason,
) -> Status {
    let given = |field: &str| {
        let name = object.and_then(|object| object["metadata"][field].as_str());
        name.filter(|name| !name.is_empty())
    };
    let name = match attributes.name {
        "" => given("name").or_else(|| given("generateName")).unwrap_or("Unknown"),
        name => name,
    };
    let mut status = errors::forbidden(&attributes.gvr.group_resource(), name, why);
    status.reason = reason.as_str().to_owned();
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { message: cause.to_owned(), ..Cause::default() });
    }
    status
}

/// A failure that is only to be recorded.
fn note_failure(
    ctx: &RequestContext,
    bound: &Bound<Validating>,
    binding: &Binding,
    denial: &Denial,
) {
    ctx.annotate("validation.policy.admission.k8s.io/validation_failure", || {
        let actions: Vec<String> = binding.actions.iter().map(|it| quoted(it)).collect();
        format!(
            "[{{\"message\":{},\"policy\":{},\"binding\":{},\"expressionIndex\":{},\
             \"validationActions\":[{}]}}]",
            quoted(&denial.message),
            quoted(&bound.name),
            quoted(&binding.name),
            denial.index,
            actions.join(",")
        )
    });
}
