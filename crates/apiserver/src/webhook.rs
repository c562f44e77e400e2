//! Admission webhooks and policies: who is asked before a write, and may change or refuse it.
//!
//! Policies come before webhooks. Mutating webhooks are asked one after the other, validating ones
//! together. Configurations are read anew when one of them changes. Nobody is asked about the
//! configurations themselves, or a broken webhook could not be removed.
//!
//! Upstream: `apiserver/pkg/admission/plugin/webhook`.

mod call;
mod connect;
mod hook;
mod kept;
mod matching;
mod notes;
mod policy;
mod review;
mod seen;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use meta::{GroupVersionKind, GroupVersionResource, Status};
use schema::FieldValidation;
use serde_json::Value;

use crate::context::RequestContext;
use crate::custom;
use crate::decode::stamp;
use crate::errors;
use crate::resources::{Resource, Resources, Storage};

pub(crate) use connect::{Changed, connect};

pub(crate) use call::post;
pub(crate) use hook::Hook;
use matching::{Matched, find};
use notes::{MUTATION, Notes, VALIDATION};
use policy::{Invoked, Policies};
use review::{Answer, Failure};

const GROUP: &str = "admissionregistration.k8s.io";

/// The webhooks that are configured.
pub(crate) struct Webhooks {
    mutating: Configured,
    validating: Configured,
    mutating_policies: Policies<::policy::Mutating>,
    validating_policies: Policies<::policy::Validating>,
}

/// Webhooks of one kind, compiled from their configurations.
struct Configured {
    storage: Option<Arc<Storage>>,
    /// The version of the configurations they were made from.
    compiled: Mutex<(u64, Arc<Vec<Hook>>)>,
}

impl Webhooks {
    pub(crate) fn new(resources: &Resources) -> Self {
        let of = |resource: &str| Configured {
            storage: resources.storage(GROUP, resource).cloned(),
            compiled: Mutex::default(),
        };
        Self {
            mutating: of("mutatingwebhookconfigurations"),
            validating: of("validatingwebhookconfigurations"),
            mutating_policies: Policies::mutating(resources),
            validating_policies: Policies::validating(resources),
        }
    }

    /// Whether any webhook or policy may change what is written.
    pub(crate) fn is_any_mutating(&self) -> bool {
        !self.mutating.hooks().is_empty() || !self.mutating_policies.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.mutating.hooks().is_empty()
            && self.validating.hooks().is_empty()
            && self.mutating_policies.is_empty()
            && self.validating_policies.is_empty()
    }
}

impl Configured {
    /// By name of the configuration, and in its order.
    fn hooks(&self) -> Arc<Vec<Hook>> {
        let Some(cache) = self.storage.as_ref().map(|storage| &storage.cache) else {
            return Arc::default();
        };
        if cache.count() == 0 {
            return Arc::default();
        }
        let newest = cache.newest();
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.0 != newest {
            let objects = cache.snapshot(0).map;
            let hooks = objects.values().flat_map(|object| hook::compile(object)).collect();
            *compiled = (newest, Arc::new(hooks));
        }
        compiled.1.clone()
    }
}

/// What webhooks are asked about.
pub(crate) struct Attributes<'a> {
    pub(crate) gvk: GroupVersionKind,
    pub(crate) gvr: GroupVersionResource,
    pub(crate) subresource: &'a str,
    pub(crate) operation: admission::Operation,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) is_dry_run: bool,
    /// The resource of `object` and `old`, when they are of one.
    pub(crate) resource: Option<&'a Resource>,
}

impl<'a> Attributes<'a> {
    fn of(resource: &'a Resource, request: &admission::Request<'a>) -> Self {
        Self {
            gvk: resource.gvk.clone(),
            gvr: resource.gvr(),
            subresource: request.subresource,
            operation: request.operation,
            namespace: request.namespace,
            name: request.name,
            is_dry_run: request.is_dry_run,
            resource: Some(resource),
        }
    }

    /// Whether this is not for webhooks: configurations of admission, and subresources whose
    /// objects are of another kind.
    fn is_exempt(&self) -> bool {
        let is_same_kind = matches!(
            self.subresource,
            "" | "status" | "resize" | "ephemeralcontainers" | "approval" | "finalize"
        );
        self.gvk.group == GROUP || (self.resource.is_some() && !is_same_kind)
    }
}

/// Runs mutating policies, then asks mutating webhooks about a working form, and changes it as they
/// say. When anything changed, the plugins are run again, and those policies and webhooks that wish
/// it are asked again, once.
pub(crate) async fn mutate(
    ctx: &RequestContext,
    resource: &Resource,
    request: &admission::Request<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let webhooks = &ctx.server.webhooks;
    let hooks = webhooks.mutating.hooks();
    if hooks.is_empty() && webhooks.mutating_policies.is_empty() {
        return Ok(());
    }
    let attributes = Attributes::of(resource, request);
    if attributes.is_exempt() {
        return Ok(());
    }
    let (policies, mut invoked) = (&webhooks.mutating_policies, Invoked::new());
    let did_policies =
        policy::mutate(ctx, policies, &attributes, object, old, (None, &mut invoked)).await?;
    // Only who wishes to be run again needs to know what changed since.
    let by_policies = (!invoked.is_empty()).then(|| object.clone());
    let mut round = Round { ctx, attributes: &attributes, old, asked: BTreeSet::new(), number: 0 };
    let all: BTreeSet<usize> = (0..hooks.len()).collect();
    let (did_webhooks, mut again) = round.run(&hooks, &all, object).await?;
    if !did_policies && !did_webhooks {
        return Ok(());
    }
    let before = object.clone();
    if request.subresource.is_empty() {
        ctx.server.admission.admit(request, object, old, &*ctx.server)?;
        resource.apply_defaults(object);
    }
    let did_plugins = *object != before;
    if by_policies.is_some_and(|by_policies| did_policies || *object != by_policies) {
        let (policies, mut last) = (&webhooks.mutating_policies, Invoked::new());
        let again = (Some(&invoked), &mut last);
        policy::mutate(ctx, policies, &attributes, object, old, again).await?;
    }
    if did_plugins || *object != before {
        again.clone_from(&round.asked);
    }
    let (is_changed, _) = round.run(&hooks, &again, object).await?;
    if is_changed && request.subresource.is_empty() {
        resource.apply_defaults(object);
    }
    Ok(())
}

/// One pass over the mutating webhooks.
struct Round<'a> {
    ctx: &'a RequestContext,
    attributes: &'a Attributes<'a>,
    old: Option<&'a Value>,
    /// Those that were asked and wish to be asked again after changes.
    asked: BTreeSet<usize>,
    /// Which time it is.
    number: usize,
}

impl Round<'_> {
    /// Whether anything changed, and who has to be asked again for it.
    async fn run(
        &mut self,
        hooks: &[Hook],
        which: &BTreeSet<usize>,
        object: &mut Value,
    ) -> Result<(bool, BTreeSet<usize>), Status> {
        let (mut is_changed, mut again) = (false, BTreeSet::new());
        for (at, hook) in hooks.iter().enumerate().filter(|(at, _)| which.contains(at)) {
            let matched = find(self.ctx, hook, self.attributes, Some(object), self.old).await?;
            let Some(matched) = matched else { continue };
            let notes = Notes { ctx: self.ctx, hook, phase: MUTATION, round: self.number, at };
            let changed = self.one(&notes, &matched, object).await;
            notes.mutated(changed.as_ref().is_ok_and(Option::is_some));
            if let Some(new) = changed? {
                *object = new;
                is_changed = true;
                again.extend(self.asked.iter().copied().filter(|other| *other != at));
            }
            if hook.is_reinvoked() {
                self.asked.insert(at);
            }
        }
        self.number += 1;
        Ok((is_changed, again))
    }

    /// One webhook; what it makes of the object, if anything.
    async fn one(
        &self,
        notes: &Notes<'_>,
        matched: &Matched,
        object: &Value,
    ) -> Result<Option<Value>, Status> {
        let asked = ask(notes, self.attributes, matched, Some(object), self.old).await?;
        let Some(patch) = asked.and_then(|answer| answer.patch) else { return Ok(None) };
        let new = patched(self.ctx, self.attributes, matched, object, &patch).await?;
        notes.patched(&patch);
        Ok(new)
    }
}

/// Asks validating webhooks about a write; `object` is absent for deletions.
pub(crate) async fn validate(
    ctx: &RequestContext,
    resource: &Resource,
    request: &admission::Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let webhooks = &ctx.server.webhooks;
    if webhooks.validating.hooks().is_empty() && webhooks.validating_policies.is_empty() {
        return Ok(());
    }
    ask_validating(ctx, &Attributes::of(resource, request), object, old).await
}

/// Asks all webhooks about a deletion, of which nothing can be changed. `old` is as it is stored.
pub(crate) async fn delete(
    ctx: &RequestContext,
    resource: &Resource,
    request: &admission::Request<'_>,
    old: &Value,
) -> Result<(), Status> {
    if ctx.server.webhooks.is_empty() {
        return Ok(());
    }
    let mut attributes = Attributes::of(resource, request);
    // A request for many objects names none of them.
    if ctx.info.verb == "deletecollection" {
        attributes.name = "";
    }
    let old = resource.served(old);
    ask_mutating(ctx, &attributes, &old).await?;
    ask_validating(ctx, &attributes, None, Some(&old)).await
}

/// Asks mutating webhooks about a deletion.
async fn ask_mutating(
    ctx: &RequestContext,
    attributes: &Attributes<'_>,
    old: &Value,
) -> Result<(), Status> {
    if attributes.is_exempt() {
        return Ok(());
    }
    let hooks = ctx.server.webhooks.mutating.hooks();
    for (at, hook) in hooks.iter().enumerate() {
        let matched = find(ctx, hook, attributes, None, Some(old)).await?;
        let Some(matched) = matched else { continue };
        let notes = Notes { ctx, hook, phase: MUTATION, round: 0, at };
        let answer = ask(&notes, attributes, &matched, None, Some(old)).await;
        notes.mutated(false);
        let answer = answer?;
        if answer.is_some_and(|answer| answer.patch.is_some()) {
            return Err(errors::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for \
                 this operation",
                hook.name
            )));
        }
    }
    Ok(())
}

async fn ask_validating(
    ctx: &RequestContext,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let webhooks = &ctx.server.webhooks;
    policy::validate(ctx, &webhooks.validating_policies, attributes, object, old).await?;
    let hooks = webhooks.validating.hooks();
    if hooks.is_empty() || attributes.is_exempt() {
        return Ok(());
    }
    let mut relevant = Vec::new();
    for hook in hooks.iter() {
        if let Some(matched) = find(ctx, hook, attributes, object, old).await? {
            relevant.push((hook, matched));
        }
    }
    let asked = relevant.iter().enumerate().map(|(at, (hook, matched))| async move {
        let notes = Notes { ctx, hook, phase: VALIDATION, round: 0, at };
        ask(&notes, attributes, matched, object, old).await.map(|_| ())
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// Asks one webhook. `None` when it cannot be asked and that is not to matter.
async fn ask(
    notes: &Notes<'_>,
    attributes: &Attributes<'_>,
    matched: &Matched,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Answer>, Status> {
    let Notes { ctx, hook, .. } = *notes;
    if attributes.is_dry_run && !hook.allows_dry_run() {
        let name = &hook.name;
        return Err(errors::bad_request(format!(
            "admission webhook {name:?} does not support dry run"
        )));
    }
    let shown = match object {
        Some(object) => Some(matched.present(ctx, object).await?),
        None => None,
    };
    let shown_old = match old {
        Some(old) => Some(matched.present(ctx, old).await?),
        None => None,
    };
    let (object, old) = (shown.as_deref(), shown_old.as_deref());
    match review::ask(ctx, hook, attributes, matched, object, old).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Failure::Rejected(status)) => Err(*status),
        Err(Failure::Call(why)) => {
            let message = format!("failed calling webhook {:?}: {why}", hook.name);
            if hook.is_ignored_on_failure() {
                tracing::warn!(%message, "failing open");
                notes.failed_open();
                return Ok(None);
            }
            Err(errors::internal(message))
        }
    }
}

/// The working form after a JSON patch against what the webhook saw; `None` when it is the same.
async fn patched(
    ctx: &RequestContext,
    attributes: &Attributes<'_>,
    matched: &Matched,
    object: &Value,
    patch: &[u8],
) -> Result<Option<Value>, Status> {
    let presented = matched.present(ctx, object).await?;
    let document = review::shown(attributes, matched, &presented);
    let patched = patch::json(&document, patch).map_err(errors::internal)?;
    if patched == document {
        return Ok(None);
    }
    rebuilt(ctx, attributes, matched, patched).await.map(Some)
}

/// The working form of a document in the version that matched, with defaults.
async fn rebuilt(
    ctx: &RequestContext,
    attributes: &Attributes<'_>,
    matched: &Matched,
    document: Value,
) -> Result<Value, Status> {
    let Some(resource) = attributes.resource else {
        return connect::checked(&attributes.gvk, document);
    };
    let seen = matched.resource.as_deref().unwrap_or(resource);
    let decoded = schema::decode_value(seen.ty, &document, FieldValidation::Ignore);
    let mut new = decoded.map_err(errors::internal)?.value;
    stamp(&mut new, &seen.gvk);
    let mut new = match &resource.custom {
        Some(version) if matched.is_by_webhook() => {
            let converted = custom::convert::from_storage(&ctx.server, version, new).await;
            converted.map_err(|status| {
                errors::internal(format!("failed to convert object: {}", status.message))
            })?
        }
        _ => matched.convert_back(resource, new),
    };
    if let Some(version) = &resource.custom {
        version.compiled().admit(&mut new).map_err(errors::internal)?;
    }
    resource.apply_defaults(&mut new);
    Ok(new)
}
