//! Policies that change objects.

use std::collections::BTreeSet;

use ::policy::{Mutating, Param, Patch};
use meta::{Reason, Status};
use serde_json::Value;

use super::validate::refusal;
use super::{Binding, Bound, Policies};
use crate::context::RequestContext;
use crate::webhook::matching::Matched;
use crate::webhook::seen::Seen;
use crate::webhook::{Attributes, rebuilt};

/// Which policies were run and wish to be run again after changes: policy, binding and parameter.
pub(in crate::webhook) type Invoked = BTreeSet<(String, String, String)>;

/// Runs every policy that is about an object, and changes it. The second time, those alone that
/// were run before and wish so. Whether anything changed.
pub(in crate::webhook) async fn mutate(
    ctx: &RequestContext,
    policies: &Policies<Mutating>,
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
    (again, invoked): (Option<&Invoked>, &mut Invoked),
) -> Result<bool, Status> {
    let bound = policies.bound();
    if bound.is_empty() || attributes.is_exempt() {
        return Ok(false);
    }
    let mut is_changed = false;
    let mut run = Run { ctx, attributes, old, failures: Vec::new() };
    for policy in bound.iter() {
        // The object may have changed since the policy before.
        let Some(matched) = policy.matches(ctx, attributes, Some(object), old)? else { continue };
        if let Some(why) = policy.misconfigured(ctx) {
            if policy.policy.fails_closed {
                run.failures.push(format!("policy '{}' denied request: {why}", policy.name));
            }
            continue;
        }
        for binding in &policy.bindings {
            if !binding.matches(ctx, attributes, Some(object), old)? {
                continue;
            }
            match policy.params(ctx, binding, attributes) {
                Ok(params) => {
                    for param in params {
                        let key = key(policy, binding, &param);
                        if again.is_some_and(|again| !again.contains(&key)) {
                            continue;
                        }
                        is_changed |= run.policy(policy, binding, &matched, &param, object).await?;
                        if policy.policy.is_reinvoked {
                            invoked.insert(key);
                        }
                    }
                }
                Err(why) => run.fail(policy, binding, &why),
            }
        }
    }
    run.finish(object)?;
    Ok(is_changed)
}

fn key(bound: &Bound<Mutating>, binding: &Binding, param: &Param) -> (String, String, String) {
    let text = |param: &Value, field: &str| {
        param["metadata"][field].as_str().unwrap_or_default().to_owned()
    };
    let param = param.as_ref();
    let param = param.map(|p| format!("{}/{}", text(p, "namespace"), text(p, "name")));
    (bound.name.clone(), binding.name.clone(), param.unwrap_or_default())
}

struct Run<'a> {
    ctx: &'a RequestContext,
    attributes: &'a Attributes<'a>,
    old: Option<&'a Value>,
    failures: Vec<String>,
}

impl Run<'_> {
    /// One policy with one binding and parameter: its changes, one after the other. Whether there
    /// were any.
    async fn policy(
        &mut self,
        bound: &Bound<Mutating>,
        binding: &Binding,
        matched: &Matched,
        param: &Param,
        object: &mut Value,
    ) -> Result<bool, Status> {
        let (ctx, attributes, old) = (self.ctx, self.attributes, self.old);
        let mut seen = Seen::new(ctx, attributes, matched, Some(object), old).await?;
        match bound.policy.matches(&seen.input(param.as_ref())) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                self.fail(bound, binding, &why);
                return Ok(false);
            }
        }
        let mut is_changed = false;
        for at in 0..bound.policy.mutations() {
            let begun = ctx.server.clock.monotonic();
            let patch = bound.policy.mutate(at, &seen.input(param.as_ref()));
            let document = seen.object.as_ref();
            let patched = patch.and_then(|patch| self.patched(matched, document, &patch));
            let took = ctx.server.clock.monotonic().duration_since(begun);
            let error = if patched.is_ok() { "no_error" } else { "invalid_error" };
            let labels = [error, bound.name.as_str(), binding.name.as_str()];
            ctx.server.metrics.mutating_policies.observe(&labels, took);
            match patched {
                Ok(Some(document)) => {
                    *object = rebuilt(ctx, attributes, matched, document).await?;
                    seen = Seen::new(ctx, attributes, matched, Some(object), old).await?;
                    is_changed = true;
                }
                Ok(None) => {}
                Err(why) => self.fail(bound, binding, &why),
            }
        }
        Ok(is_changed)
    }

    /// The object after a patch; `None` when it is the same.
    fn patched(
        &self,
        matched: &Matched,
        document: Option<&Value>,
        patch: &Patch,
    ) -> Result<Option<Value>, String> {
        let Some(document) = document else { return Ok(None) };
        let patched = match patch {
            Patch::Configuration(config) => self
                .merged(matched, document, config)
                .map_err(|why| format!("error applying patch: {why}"))?,
            Patch::Operations(operations) => match operate(document, operations)? {
                Some(patched) => patched,
                None => return Ok(None),
            },
        };
        Ok((patched != *document).then_some(patched))
    }

    fn merged(&self, matched: &Matched, document: &Value, config: &Value) -> Result<Value, String> {
        let Some(resource) = self.attributes.resource else {
            // Options of connections are in no table of what is stored, upstream neither.
            // Upstream prints the empty group, too.
            let (group, version, kind) =
                (&matched.gvk.group, &matched.gvk.version, &matched.gvk.kind);
            return Err(format!(
                "failed to convert original object to typed object: no corresponding type for \
                 {group}/{version}, Kind={kind}"
            ));
        };
        let ty = matched.resource.as_deref().unwrap_or(resource).fields();
        apply::merged(ty, document, config)
    }

    /// Remembers what went wrong, unless that is to be ignored.
    fn fail(&mut self, bound: &Bound<Mutating>, binding: &Binding, why: &str) {
        if bound.policy.fails_closed {
            self.failures.push(format!(
                "policy '{}' with binding '{}' denied request: {why}",
                bound.name, binding.name
            ));
        }
    }

    /// Everything that went wrong, the first of it as the message.
    fn finish(self, object: &Value) -> Result<(), Status> {
        let Some(first) = self.failures.first() else { return Ok(()) };
        let mut status = refusal(self.attributes, Some(object), first, first, Reason::Invalid);
        status.message.clone_from(first);
        if let Some(details) = &mut status.details {
            let more = self.failures.iter().skip(1);
            let more = more.map(|why| meta::Cause { message: why.clone(), ..Default::default() });
            details.causes.extend(more);
        }
        Err(status)
    }
}

/// Applies operations. `None` when one of them is a test that does not hold: then none is.
fn operate(document: &Value, operations: &Value) -> Result<Option<Value>, String> {
    let mut document = document.clone();
    for operation in operations.as_array().into_iter().flatten() {
        let patch = Value::from(vec![operation.clone()]).to_string();
        match patch::json(&document, patch.as_bytes()) {
            Ok(patched) => document = patched,
            Err(_) if operation["op"] == "test" => return Ok(None),
            Err(_) => return Err(format!("error applying JSON Patch: {operation}")),
        }
    }
    Ok(Some(document))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_that_does_not_hold_leaves_the_object_as_it_is() {
        let document = json!({"a": 1});
        let add = json!({"op": "add", "path": "/b", "value": 2});
        let test = |value| json!({"op": "test", "path": "/a", "value": value});
        assert_eq!(operate(&document, &json!([add, test(2)])), Ok(None));
        assert_eq!(operate(&document, &json!([test(1), add])), Ok(Some(json!({"a": 1, "b": 2}))));
        let wrong = json!([{"op": "remove", "path": "/z"}]);
        assert!(operate(&document, &wrong).unwrap_err().starts_with("error applying JSON Patch"));
    }
}
