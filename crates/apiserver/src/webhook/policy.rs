//! Admission policies and their bindings: kept compiled, matched, and evaluated.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy`.

mod mutate;
mod parameters;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::policy::{ParamKind, ParamRef};
use meta::{Object, ResourceVersion, Status};
use serde::Deserialize;
use serde_json::Value;

use super::hook::Rule;
use super::matching::{Criteria, Matched, select};
use super::{Attributes, GROUP};
use crate::context::RequestContext;
use crate::resources::{Resources, Storage};

pub(super) use mutate::{Invoked, mutate};
pub(super) use validate::validate;

/// Policies of one kind with their bindings, compiled when one of them changes.
pub(super) struct Policies<P> {
    policies: Option<Arc<Storage>>,
    bindings: Option<Arc<Storage>>,
    compile: fn(&Value) -> P,
    compiled: Mutex<Compiled<P>>,
}

/// What was compiled, and what it was compiled from.
struct Compiled<P> {
    /// The newest versions of policies and bindings.
    versions: (u64, u64),
    bound: Arc<Vec<Bound<P>>>,
    /// By name of the policy, with its version: what did not change is not compiled again.
    policies: BTreeMap<String, (ResourceVersion, Arc<P>)>,
}

/// A policy with its bindings.
pub(super) struct Bound<P> {
    name: String,
    criteria: Criteria,
    policy: Arc<P>,
    bindings: Vec<Binding>,
}

/// Where a policy holds, with which parameters, and what comes of it.
struct Binding {
    name: String,
    criteria: Option<Criteria>,
    param_ref: Option<ParamRef>,
    actions: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingSpec {
    policy_name: String,
    match_resources: Option<MatchResources>,
    param_ref: Option<ParamRef>,
    validation_actions: Vec<String>,
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

/// What the two kinds of policies have in common.
pub(super) trait Parametrized {
    /// What the parameters of the policy are.
    fn param_kind(&self) -> Option<&ParamKind>;
}

impl Parametrized for ::policy::Validating {
    fn param_kind(&self) -> Option<&ParamKind> {
        self.param_kind.as_ref()
    }
}

impl Parametrized for ::policy::Mutating {
    fn param_kind(&self) -> Option<&ParamKind> {
        self.param_kind.as_ref()
    }
}

impl Policies<::policy::Validating> {
    pub(super) fn validating(resources: &Resources) -> Self {
        Self::of(resources, "validatingadmissionpolic", ::policy::Validating::new)
    }
}

impl Policies<::policy::Mutating> {
    pub(super) fn mutating(resources: &Resources) -> Self {
        Self::of(resources, "mutatingadmissionpolic", ::policy::Mutating::new)
    }
}

impl<P> Policies<P> {
    fn of(resources: &Resources, stem: &str, compile: fn(&Value) -> P) -> Self {
        let storage = |end: &str| resources.storage(GROUP, &format!("{stem}{end}")).cloned();
        let compiled =
            Compiled { versions: (0, 0), bound: Arc::default(), policies: BTreeMap::new() };
        Self {
            policies: storage("ies"),
            bindings: storage("ybindings"),
            compile,
            compiled: Mutex::new(compiled),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bound().is_empty()
    }

    /// The policies that are bound, in the order of their names.
    fn bound(&self) -> Arc<Vec<Bound<P>>> {
        let (Some(policies), Some(bindings)) = (&self.policies, &self.bindings) else {
            return Arc::default();
        };
        let (policies, bindings) = (&policies.cache, &bindings.cache);
        if policies.count() == 0 || bindings.count() == 0 {
            return Arc::default();
        }
        let versions = (policies.newest(), bindings.newest());
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.versions != versions {
            let (policies, bindings) = (policies.snapshot(0).map, bindings.snapshot(0).map);
            let mut by_policy: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
            for (policy, binding) in bindings.values().filter_map(|object| bind(object)) {
                by_policy.entry(policy).or_default().push(binding);
            }
            let before = std::mem::take(&mut compiled.policies);
            let mut bound = Vec::new();
            for object in policies.values() {
                let name = &object.header().name;
                let Some(bindings) = by_policy.remove(name) else { continue };
                let Some((spec, criteria)) = specification(object) else { continue };
                let version = object.header().resource_version;
                let policy = match before.get(name) {
                    Some((known, policy)) if *known == version => policy.clone(),
                    _ => Arc::new((self.compile)(&spec)),
                };
                compiled.policies.insert(name.clone(), (version, policy.clone()));
                bound.push(Bound { name: name.clone(), criteria, policy, bindings });
            }
            compiled.bound = Arc::new(bound);
            compiled.versions = versions;
        }
        compiled.bound.clone()
    }
}

/// The binding and the name of its policy.
fn bind(object: &Object) -> Option<(String, Binding)> {
    let spec = object.decode::<Specified<BindingSpec>>().ok()?.spec;
    let criteria = spec.match_resources.map(|resources| {
        let mut criteria = criteria(resources);
        // A binding without rules leaves them to the policy.
        if criteria.rules.is_empty() {
            criteria.rules.push(Rule::everything());
        }
        criteria
    });
    let name = object.header().name.clone();
    let (param_ref, actions) = (spec.param_ref, spec.validation_actions);
    Some((spec.policy_name, Binding { name, criteria, param_ref, actions }))
}

fn specification(object: &Object) -> Option<(Value, Criteria)> {
    let spec = object.decode::<Specified<Value>>().ok()?.spec;
    let matching = MatchResources::deserialize(&spec["matchConstraints"]).ok()?;
    Some((spec, criteria(matching)))
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

impl Binding {
    /// Whether the binding is about the request as well.
    fn matches(
        &self,
        ctx: &RequestContext,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<bool, Status> {
        match &self.criteria {
            None => Ok(true),
            Some(criteria) => Ok(select(ctx, criteria, attributes, object, old)?.is_some()),
        }
    }
}

impl<P: Parametrized> Bound<P> {
    fn matches(
        &self,
        ctx: &RequestContext,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Matched>, Status> {
        select(ctx, &self.criteria, attributes, object, old)
    }

    /// Why the policy cannot be asked with any binding: nothing is of the kind of its parameters.
    fn misconfigured(&self, ctx: &RequestContext) -> Option<String> {
        let kind = self.policy.param_kind()?;
        let source = parameters::Source { resources: &ctx.server.resources };
        if ::policy::Params::is_namespaced(&source, kind).is_some() {
            return None;
        }
        // Go prints the empty group of the core, too.
        let slash = if kind.api_version.contains('/') { "" } else { "/" };
        Some(format!(
            "failed to configure policy: failed to find resource referenced by paramKind: \
             '{slash}{}, Kind={}'",
            kind.api_version, kind.kind
        ))
    }

    /// The parameters of a binding, or how it is wrong.
    fn params(
        &self,
        ctx: &RequestContext,
        binding: &Binding,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<::policy::Param>, String> {
        let source = parameters::Source { resources: &ctx.server.resources };
        let why = |why| format!("failed to configure binding: {why}");
        let kind = self.policy.param_kind();
        ::policy::collect(kind, binding.param_ref.as_ref(), attributes.namespace, &source)
            .map_err(why)
    }
}
