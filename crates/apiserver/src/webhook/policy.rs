//! Admission policies, whose expressions this server does not evaluate.
//!
//! A policy that is bound and is about a request therefore fails, and its failure policy says what
//! comes of it, as upstream does for any expression that cannot be evaluated.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy`.

use std::sync::{Arc, Mutex, PoisonError};

use meta::{Object, Reason, Status};
use serde::Deserialize;
use serde_json::Value;

use super::hook::Rule;
use super::matching::{Criteria, select};
use super::{Attributes, GROUP};
use crate::context::RequestContext;
use crate::errors;
use crate::resources::{Resources, Storage};

/// Policies of one kind, and their bindings.
pub(super) struct Policies {
    kind: &'static str,
    policies: Option<Arc<Storage>>,
    bindings: Option<Arc<Storage>>,
    compiled: Mutex<Compiled>,
}

/// What was made, and the versions of policies and bindings it was made from.
type Compiled = ((u64, u64), Arc<Vec<Enforced>>);

/// A policy with one of its bindings.
#[derive(Debug)]
struct Enforced {
    policy: String,
    binding: String,
    /// Those of the policy, and of the binding when it has any.
    criteria: Vec<Criteria>,
    /// Whether a failure refuses the request.
    denies: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicySpec {
    failure_policy: Option<String>,
    match_constraints: Option<MatchResources>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingSpec {
    policy_name: String,
    match_resources: Option<MatchResources>,
    validation_actions: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MatchResources {
    resource_rules: Vec<Rule>,
    exclude_resource_rules: Vec<Rule>,
    namespace_selector: Option<Value>,
    object_selector: Option<Value>,
    match_policy: String,
}

#[derive(Deserialize)]
struct Specified<T> {
    spec: T,
}

impl Policies {
    pub(super) fn validating(resources: &Resources) -> Self {
        Self::of(resources, "ValidatingAdmissionPolicy", "validatingadmissionpolic")
    }

    pub(super) fn mutating(resources: &Resources) -> Self {
        Self::of(resources, "MutatingAdmissionPolicy", "mutatingadmissionpolic")
    }

    fn of(resources: &Resources, kind: &'static str, stem: &str) -> Self {
        let storage = |end: &str| resources.storage(GROUP, &format!("{stem}{end}")).cloned();
        Self {
            kind,
            policies: storage("ies"),
            bindings: storage("ybindings"),
            compiled: Mutex::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.enforced().is_empty()
    }

    fn enforced(&self) -> Arc<Vec<Enforced>> {
        let (Some(policies), Some(bindings)) = (&self.policies, &self.bindings) else {
            return Arc::default();
        };
        let (policies, bindings) = (&policies.cache, &bindings.cache);
        if policies.len() == 0 || bindings.len() == 0 {
            return Arc::default();
        }
        let newest = (policies.newest(), bindings.newest());
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.0 != newest {
            let (policies, bindings) = (policies.snapshot(0).map, bindings.snapshot(0).map);
            let of = |binding| policies.values().find_map(|policy| enforce(policy, binding));
            let enforced = bindings.values().filter_map(|binding| of(binding)).collect();
            *compiled = (newest, Arc::new(enforced));
        }
        compiled.1.clone()
    }

    /// Refuses what a policy is about that may not fail.
    pub(super) fn check(
        &self,
        ctx: &RequestContext,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let enforced = self.enforced();
        if enforced.is_empty() || attributes.is_exempt() {
            return Ok(());
        }
        for one in enforced.iter() {
            let mut is_matched = true;
            for criteria in &one.criteria {
                let matched = select(ctx, criteria, attributes, object, old)?;
                is_matched = is_matched && matched.is_some();
            }
            if !is_matched {
                continue;
            }
            let why = format!(
                "{} '{}' with binding '{}' denied request: this server does not evaluate CEL \
                 expressions",
                self.kind, one.policy, one.binding
            );
            if one.denies {
                let resource = attributes.gvr.group_resource();
                let message = errors::forbidden(&resource, attributes.name, &why).message;
                return Err(Status::failure(Reason::Invalid, message));
            }
            tracing::warn!(%why, "the policy is passed over");
        }
        Ok(())
    }
}

/// The two together, when they belong together.
fn enforce(policy: &Object, binding: &Object) -> Option<Enforced> {
    let bound = binding.decode::<Specified<BindingSpec>>().ok()?.spec;
    if bound.policy_name != policy.header().name {
        return None;
    }
    let spec = policy.decode::<Specified<PolicySpec>>().ok()?.spec;
    let narrowed = bound.match_resources.map(|resources| {
        let mut criteria = criteria(resources);
        // A binding without rules leaves them to the policy.
        if criteria.rules.is_empty() {
            criteria.rules.push(Rule::everything());
        }
        criteria
    });
    let criteria = spec.match_constraints.map(criteria).into_iter().chain(narrowed).collect();
    let actions = bound.validation_actions;
    let denies = actions.is_none_or(|list| list.iter().any(|action| action == "Deny"))
        && spec.failure_policy.as_deref() != Some("Ignore");
    let (policy, binding) = (policy.header().name.clone(), binding.header().name.clone());
    Some(Enforced { policy, binding, criteria, denies })
}

fn criteria(resources: MatchResources) -> Criteria {
    Criteria::new(
        resources.resource_rules,
        resources.exclude_resource_rules,
        resources.namespace_selector.as_ref(),
        resources.object_selector.as_ref(),
        &resources.match_policy,
    )
}
