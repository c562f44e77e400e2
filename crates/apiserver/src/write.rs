//! The generic write path: what happens between a decoded object and the store.
//!
//! ```text
//! mutating admission → strategy → system metadata → validation → validating admission
//!   → canonical JSON → compare and swap → strategy is told
//! ```

pub(crate) mod addresses;
mod identity;
mod owner_references;
mod persist;

use std::borrow::Cow;
use std::sync::Arc;

use meta::{Cause, Object, Reason, Status};
use schema::FieldValidation;
use serde_json::{Value, json};
use store::{Expect, KeyValue, Outcome};

use crate::audit;
use crate::context::RequestContext;
use crate::custom;
use crate::errors;
use crate::ownership::{self, Target};
use crate::pump;
use crate::render;
use crate::resources::{Resource, Storage};
use crate::strategy::{has_generation, keep_old, remove, spec_differs};
use crate::{warnings, webhook};
use cache::splice::with_resource_version;

pub(crate) use persist::{at, commit, stamped};

use identity::{
    IMMUTABLE, allows_unconditional, check_name, check_uid, check_url, keep_system_metadata,
    keep_times, metadata_differs, set_new_metadata,
};
use owner_references::Stage;
use persist::{broken, commit_object, committed_at};

/// Attempts of a write that does not name a version, against others that are faster.
const ATTEMPTS: usize = 20;

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// Whatever the caller changed, as a change of what is wanted: other subresources.
    Spec,
    /// Whatever the caller changed, as it is.
    Exact,
}

/// Whether an update of what is not there creates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creates {
    /// No.
    Never,
    /// If the kind allows it.
    IfItsKindDoes,
    /// Yes.
    Always,
}

/// How an object is created.
#[derive(Clone, Copy)]
pub(crate) struct Creation<'a> {
    pub(crate) is_dry_run: bool,
    /// Who owns its fields; `None` when its managed fields say so already.
    pub(crate) manager: Option<&'a str>,
}

/// The outcome of a write.
pub(crate) struct Written {
    /// In the stored version.
    pub(crate) object: Arc<Object>,
    /// Whether it is new.
    pub(crate) created: bool,
}

/// Creates an object given as working form in the resource's version.
pub(crate) async fn create(
    ctx: &RequestContext,
    resource: &Resource,
    mut object: Value,
    creation: Creation<'_>,
) -> Result<Written, Status> {
    let storage = storage(resource)?;
    set_new_metadata(ctx, storage, &mut object)?;
    resource.apply_defaults(&mut object);
    if ctx.info.verb != "patch" {
        owner_references::dedup(ctx, &mut object, Stage::Request);
    }
    if let Some(manager) = creation.manager {
        ownership::record(ctx, Target::of(resource), manager, None, &mut object);
    }
    let name = text(&object, "/metadata/name");
    let namespace = text(&object, "/metadata/namespace");
    let request = admission_request(ctx, resource, &namespace, &name, admission::Operation::Create);
    let request = admission::Request { is_dry_run: creation.is_dry_run, ..request };
    ctx.server.admission.admit(&request, &mut object, None, &*ctx.server)?;
    ask_webhooks(ctx, resource, &request, &mut object, None).await?;
    owner_references::dedup(ctx, &mut object, Stage::Admission);
    let mut object = resource.to_storage(object);
    if resource.resets_status() {
        remove(&mut object, "status");
    }
    let write = ctx.write();
    storage.strategy.prepare_create(&write, &mut object)?;
    if storage.custom.is_some()
        || has_generation(&storage.resource.group, &storage.resource.resource)
    {
        object["metadata"]["generation"] = json!(1);
    }
    let result = create_prepared(ctx, resource, storage, &request, &object).await;
    let result = presented(ctx, resource, result).await;
    if result.is_err() || creation.is_dry_run {
        storage.strategy.abandon(&write, &object, None);
    } else {
        storage.strategy.written(&write, &object, None);
        addresses::keep(ctx, storage, Some(&object), None).await;
    }
    result
}

/// Lets webhooks change an object. Managed fields that they break stay as they were.
async fn ask_webhooks(
    ctx: &RequestContext,
    resource: &Resource,
    request: &admission::Request<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if !ctx.server.webhooks.is_any_mutating() {
        return Ok(());
    }
    let before = apply::managed_fields(object).to_vec();
    webhook::mutate(ctx, resource, request, object, old).await?;
    let after = apply::managed_fields(object);
    if after != before
        && let Err(error) = apply::Managed::decode(after)
    {
        ctx.warn(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused \
             by an outdated mutating admission controller; please fix your requests: {error}"
        ));
        apply::put_managed_fields(object, before);
    }
    Ok(())
}

/// What the gates that are open allow.
fn allowed(ctx: &RequestContext) -> validation::Allowed {
    let features = &ctx.server.config.features;
    validation::Allowed { scale_to_zero: features.is_enabled("HPAScaleToZero") }
}

async fn create_prepared(
    ctx: &RequestContext,
    resource: &Resource,
    storage: &Storage,
    request: &admission::Request<'_>,
    object: &Value,
) -> Result<Written, Status> {
    let (name, namespace) = (text(object, "/metadata/name"), text(object, "/metadata/namespace"));
    let served = resource.served(object);
    let findings = match &resource.custom {
        Some(version) => custom::write::validate_create(ctx, version, object),
        None => {
            let (gvk, object) = resource.validated(object, &served);
            validation::validate_create_with(gvk, object, allowed(ctx))
        }
    };
    refuse_findings(&custom::write::told_kind(resource, object), &name, findings)?;
    warn(ctx, storage, object, None);
    audit::admitted(ctx, request, &served, None);
    ctx.server.admission.validate(request, Some(&served), None, &*ctx.server)?;
    let notes = ctx.server.admission.warnings(request, &served, None, &*ctx.server);
    notes.into_iter().for_each(|text| ctx.warn(text));
    webhook::validate(ctx, resource, request, Some(&served), None).await?;
    ctx.server.check_escalation(ctx.subject(), &storage.resource, &namespace, object, None)?;
    let charge = ctx.server.charge_quota(request, &served, None).await?;
    // Upstream's store says so, after everybody else has had his say.
    if !matches!(text(object, "/metadata/resourceVersion").as_str(), "" | "0") {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(errors::unexpected(message));
    }
    let object = &stored_form(ctx, resource, object).await?;
    let json = render::encode(storage.ty, object);
    let key = storage.store_key(&namespace, &name);
    let group_resource = resource.group_resource();
    if request.is_dry_run {
        if storage.cache.get(&storage.cache_key(&namespace, &name)).is_some() {
            return Err(errors::already_exists(&group_resource, &name));
        }
        let object = pump::make(storage, json, 0).ok_or_else(broken)?;
        return Ok(Written { object, created: true });
    }
    let result = commit_object(ctx, storage, (key, Expect::Absent), object, json).await;
    drop(charge);
    let (outcome, json) = result?;
    match outcome {
        Outcome::Committed(committed) => {
            let cache_key = storage.cache_key(&namespace, &name);
            let object = committed_at(storage, &cache_key, &json, committed.revision)?;
            Ok(Written { object, created: true })
        }
        Outcome::Conflict(found) => {
            let is_going = found
                .and_then(|kv| stored(storage, &kv).ok())
                .is_some_and(|object| object.pointer("/metadata/deletionTimestamp").is_some());
            let mut status = errors::already_exists(&group_resource, &name);
            if is_going {
                status.message = format!("object is being deleted: {}", status.message);
            }
            Err(status)
        }
    }
}

/// What to change, and how.
pub(crate) struct Update<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    pub(crate) is_dry_run: bool,
    /// Whether an absent object is created.
    pub(crate) creates: Creates,
    /// Who owns what is changed; `None` when the change itself says so in the managed fields.
    pub(crate) manager: Option<&'a str>,
}

/// Makes the new working form from the old one.
pub(crate) type Change<'a> = dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync + 'a;

/// Changes an object. `change` makes the new working form from the old one, both in the resource's
/// version and with the resource version in their metadata; it may be called again.
pub(crate) async fn update(
    ctx: &RequestContext,
    resource: &Resource,
    update: &Update<'_>,
    change: &Change<'_>,
) -> Result<Written, Status> {
    let storage = storage(resource)?;
    let group_resource = resource.group_resource();
    let key = storage.store_key(update.namespace, update.name);
    for _ in 0..ATTEMPTS {
        let found = ctx.server.store.get(&key).await.map_err(|error| errors::from_store(&error))?;
        let Some(found) = found else {
            match create_absent(ctx, resource, storage, update, change).await {
                // Somebody else was faster; his object is changed then.
                Err(status) if status.is(Reason::AlreadyExists) => continue,
                result => return result,
            }
        };
        match try_update(ctx, resource, storage, update, &found, change).await? {
            Attempt::Done(written) => return Ok(written),
            Attempt::Overtaken { unconditional: true } => {}
            Attempt::Overtaken { unconditional: false } => {
                return Err(errors::modified(&group_resource, update.name));
            }
        }
    }
    Err(errors::modified(&group_resource, update.name))
}

/// Creates what was to be updated, if that is allowed to whom and where it is asked for.
async fn create_absent(
    ctx: &RequestContext,
    resource: &Resource,
    storage: &Storage,
    update: &Update<'_>,
    change: &Change<'_>,
) -> Result<Written, Status> {
    let group_resource = resource.group_resource();
    let creates = match update.creates {
        Creates::Never => false,
        Creates::IfItsKindDoes => storage.strategy.creates_on_update(),
        Creates::Always => true,
    };
    if !creates {
        return Err(errors::not_found(&group_resource, update.name));
    }
    let object = change(None)?;
    check_name(&object, update)?;
    if object.pointer("/metadata/resourceVersion").is_some() {
        return Err(errors::modified(&group_resource, update.name));
    }
    let (group, name) = (&group_resource.group, &group_resource.resource);
    let asked = authz::Attributes::resource("create", group, name, update.namespace, update.name);
    let decision = ctx.server.authorizer.authorize(ctx.subject(), &asked);
    if !decision.is_allowed() {
        return Err(authz::forbidden_status(&ctx.user.name, &asked, decision.reason()));
    }
    let creation = Creation { is_dry_run: update.is_dry_run, manager: update.manager };
    create(ctx, resource, object, creation).await
}

enum Attempt {
    Done(Written),
    Overtaken { unconditional: bool },
}

async fn try_update(
    ctx: &RequestContext,
    resource: &Resource,
    storage: &Storage,
    update: &Update<'_>,
    found: &KeyValue,
    change: &Change<'_>,
) -> Result<Attempt, Status> {
    let old = stored(storage, found)?;
    let old = match old_form(ctx, resource, &old).await? {
        // Of built-in kinds it is the same, and a copy of all of it has a price.
        Cow::Borrowed(_) => old,
        Cow::Owned(old) => old,
    };
    let old_served = resource.served(&old);
    let made = custom::conversions::settled(ctx, resource, || change(Some(&old_served)));
    let mut new = made.await?;
    check_url(&new, update, storage)?;
    let group_resource = resource.group_resource();
    let wanted_version = text(&new, "/metadata/resourceVersion");
    let unconditional = matches!(wanted_version.as_str(), "" | "0");
    // In a patch the uid is not a precondition; validation finds that it is immutable.
    if ctx.info.verb != "patch" {
        check_uid(&new, &old, &group_resource, update, storage)?;
    }
    let must_be_told = match &storage.custom {
        Some(_) => matches!(update.part, Part::Main | Part::Status),
        None => update.part == Part::Main && !allows_unconditional(&storage.resource),
    };
    if unconditional && must_be_told {
        return Err(errors::invalid_object(
            &group_resource,
            update.name,
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update",
        ));
    }
    if !unconditional && wanted_version != found.mod_revision.0.to_string() {
        return Err(errors::modified(&group_resource, update.name));
    }
    if storage.is_namespaced {
        new["metadata"]["namespace"] = json!(update.namespace);
    } else {
        remove(&mut new["metadata"], "namespace");
    }
    new["metadata"]["name"] = json!(update.name);
    resource.apply_defaults(&mut new);
    if ctx.info.verb != "patch" {
        owner_references::dedup(ctx, &mut new, Stage::Request);
    }
    if let Some(manager) = update.manager {
        ownership::record_settled(ctx, resource, manager, &old_served, &mut new).await?;
    }
    let operation = admission::Operation::Update;
    let request = admission_request(ctx, resource, update.namespace, update.name, operation);
    let request = admission::Request { is_dry_run: update.is_dry_run, ..request };
    if update.part == Part::Main {
        let served = &mut new;
        ctx.server.admission.admit(&request, served, Some(&old_served), &*ctx.server)?;
    }
    ask_webhooks(ctx, resource, &request, &mut new, Some(&old_served)).await?;
    owner_references::dedup(ctx, &mut new, Stage::Admission);
    let mut new = resource.to_storage(new);
    keep_system_metadata(&mut new, &old);
    let write = ctx.write();
    prepare_part(resource, storage, &write, update.part, (&mut new, &old))?;
    let result = store_update(ctx, resource, storage, &request, (&mut new, &old), found).await;
    let result = match result {
        Ok(Attempt::Done(written)) => {
            presented(ctx, resource, Ok(written)).await.map(Attempt::Done)
        }
        other => other,
    };
    match &result {
        Ok(Attempt::Done(_)) if !update.is_dry_run => {
            storage.strategy.written(&write, &new, Some(&old));
            addresses::keep(ctx, storage, Some(&new), Some(&old)).await;
        }
        _ => storage.strategy.abandon(&write, &new, Some(&old)),
    }
    result
}

fn prepare_part(
    resource: &Resource,
    storage: &Storage,
    write: &crate::strategy::WriteContext<'_>,
    part: Part,
    (new, old): (&mut Value, &Value),
) -> Result<(), Status> {
    match part {
        Part::Status if resource.custom.is_some() => {
            custom::write::keep_all_but_status(new, old);
        }
        Part::Main => {
            if resource.resets_status() {
                keep_old(new, old, "status");
            }
            storage.strategy.prepare_update(write, new, old)?;
        }
        Part::Status => {
            keep_all_but_status(new, old);
            // Deployments' labels are not for those who write the status; upstream's exception.
            if storage.resource.resource == "deployments" {
                keep_old(&mut new["metadata"], &old["metadata"], "labels");
            }
            storage.strategy.prepare_status(write, new, old);
        }
        Part::Spec | Part::Exact => {}
    }
    let (group, name) = (&storage.resource.group, &storage.resource.resource);
    let differs = match resource.custom {
        Some(_) => custom::write::makes_generation(new, old),
        None => spec_differs(new, old),
    };
    let wants_other = matches!(part, Part::Main | Part::Spec)
        && (differs
            || (name == "endpointslices" && metadata_differs(new, old, "labels"))
            || (name == "deployments" && metadata_differs(new, old, "annotations")));
    if (storage.custom.is_some() || has_generation(group, name)) && wants_other {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64);
        new["metadata"]["generation"] = json!(generation.unwrap_or_default() + 1);
    }
    Ok(())
}

/// Of what was sent, only status and metadata count.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let (Value::Object(new), Value::Object(old)) = (new, old) else { return };
    let is_kept = |key: &str| matches!(key, "status" | "metadata");
    new.retain(|key, _| is_kept(key) || old.contains_key(key));
    for (key, value) in old.iter().filter(|(key, _)| !is_kept(key)) {
        // Mostly it is the same, and comparing is cheaper than copying.
        if new.get(key) != Some(value) {
            new.insert(key.clone(), value.clone());
        }
    }
}

async fn store_update(
    ctx: &RequestContext,
    resource: &Resource,
    storage: &Storage,
    request: &admission::Request<'_>,
    (new, old): (&mut Value, &Value),
    found: &KeyValue,
) -> Result<Attempt, Status> {
    let served = resource.served(new);
    let old_served = resource.served(old);
    let findings = match &resource.custom {
        Some(version) => {
            custom::write::validate_update(ctx, version, request.subresource, new, old)
        }
        None => {
            let (gvk, new) = resource.validated(new, &served);
            let (_, old) = resource.validated(old, &old_served);
            validation::validate_update_with(gvk, request.subresource, (new, old), allowed(ctx))
        }
    };
    // Upstream validates metadata twice on update, and lists what it finds twice.
    let of_metadata = findings.iter().filter(|finding| is_about_metadata(finding)).cloned();
    let findings = of_metadata.collect::<Vec<_>>().into_iter().chain(findings).collect();
    refuse_findings(&custom::write::told_kind(resource, new), request.name, findings)?;
    if request.subresource.is_empty() {
        warn(ctx, storage, new, Some(old));
    } else if request.subresource == "status" {
        storage.strategy.permits_status(&ctx.write(), new, old)?;
    }
    audit::admitted(ctx, request, &served, Some(&old_served));
    ctx.server.admission.validate(request, Some(&served), Some(&old_served), &*ctx.server)?;
    let notes = ctx.server.admission.warnings(request, &served, Some(&old_served), &*ctx.server);
    notes.into_iter().for_each(|text| ctx.warn(text));
    webhook::validate(ctx, resource, request, Some(&served), Some(&old_served)).await?;
    let namespace = request.namespace;
    ctx.server.check_escalation(ctx.subject(), &storage.resource, namespace, new, Some(old))?;
    drop(served);
    let wanted = text(new, "/metadata/resourceVersion");
    let metadata = &mut new["metadata"];
    remove(metadata, "resourceVersion");
    // Whatever validation thinks of it.
    for field in IMMUTABLE {
        keep_old(metadata, &old["metadata"], field);
    }
    keep_times(new, old);
    let encoded = stored_form(ctx, resource, new).await?;
    let json = render::encode(storage.ty, &encoded);
    let is_same = with_resource_version(&json, found.mod_revision.0)
        == with_resource_version(&found.value, found.mod_revision.0);
    if is_same || request.is_dry_run {
        // What changes nothing is not written, and nobody hears of it.
        let object = at(storage, new, &json, found.mod_revision)?;
        return Ok(Attempt::Done(Written { object, created: false }));
    }
    let served = resource.served(new);
    let charge = ctx.server.charge_quota(request, &served, Some(&old_served)).await?;
    let expect = Expect::ModRevision(found.mod_revision);
    let goes = is_finished(new);
    let result = match goes {
        true => {
            commit(ctx, stamped(found.key.clone(), None, expect)).await.map(|done| (done, json))
        }
        false => commit_object(ctx, storage, (found.key.clone(), expect), &encoded, json).await,
    };
    drop(charge);
    let (outcome, json) = result?;
    match outcome {
        Outcome::Committed(committed) => {
            if goes {
                storage.strategy.deleted(&ctx.write(), new);
                addresses::keep(ctx, storage, None, Some(new)).await;
            }
            let key = storage.cache_key(namespace, request.name);
            let object = committed_at(storage, &key, &json, committed.revision)?;
            Ok(Attempt::Done(Written { object, created: false }))
        }
        Outcome::Conflict(_) => {
            let unconditional =
                matches!(wanted.as_str(), "" | "0") || wanted == found.mod_revision.0.to_string();
            Ok(Attempt::Overtaken { unconditional })
        }
    }
}

/// What is told about a valid object.
fn warn(ctx: &RequestContext, storage: &Storage, object: &Value, old: Option<&Value>) {
    let texts = match &storage.custom {
        Some(_) => custom::write::warnings(object, old),
        None => warnings::of(&storage.resource, object, old),
    };
    texts.into_iter().for_each(|text| ctx.warn(text));
}

/// A stored object as requests see it: custom resources in the version of the request, with its
/// defaults.
pub(crate) async fn old_form<'a>(
    ctx: &RequestContext,
    resource: &Resource,
    old: &'a Value,
) -> Result<Cow<'a, Value>, Status> {
    let Some(version) = &resource.custom else { return Ok(Cow::Borrowed(old)) };
    let mut old = old.clone();
    if let Some(stored) = version.kind.version_of(&old) {
        stored.restore(&mut old);
    }
    custom::convert::from_storage(&ctx.server, version, old).await.map(Cow::Owned)
}

/// An object as it is stored: custom resources in their storage version.
async fn stored_form<'a>(
    ctx: &RequestContext,
    resource: &Resource,
    object: &'a Value,
) -> Result<Cow<'a, Value>, Status> {
    match &resource.custom {
        Some(version) => {
            custom::convert::to_storage(&ctx.server, version, object).await.map(Cow::Owned)
        }
        None => Ok(Cow::Borrowed(object)),
    }
}

/// What was written, in the version of the resource where a webhook is needed for that.
async fn presented(
    ctx: &RequestContext,
    resource: &Resource,
    result: Result<Written, Status>,
) -> Result<Written, Status> {
    let written = result?;
    let object = custom::convert::presented_one(&ctx.server, resource, written.object).await?;
    Ok(Written { object, ..written })
}

fn is_about_metadata(finding: &validation::FieldError) -> bool {
    let path = finding.path.to_string();
    let field = path.strip_prefix("metadata.").unwrap_or_default();
    let field = field.split(['.', '[']).next().unwrap_or_default();
    schema::registry()
        .type_named("meta/v1.ObjectMeta")
        .is_some_and(|metadata| metadata.field(field).is_some())
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(crate) fn is_finished(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let has = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    metadata.get("deletionTimestamp").is_some()
        && grace == 0
        && !has(&metadata["finalizers"])
        && !has(&object["spec"]["finalizers"])
}

/// The working form of a stored value, with its resource version.
pub(crate) fn stored(storage: &Storage, kv: &KeyValue) -> Result<Value, Status> {
    let decoded = schema::decode_json(storage.ty, &kv.value, FieldValidation::Ignore);
    let mut value = decoded.map_err(errors::internal)?.value;
    value["metadata"]["resourceVersion"] = json!(kv.mod_revision.0.to_string());
    Ok(value)
}

/// What the store has of an object that was read from a cache, unless it is gone.
pub(crate) async fn read_stored(
    server: &crate::server::Server,
    group: &str,
    resource: &str,
    object: &Value,
) -> Option<Value> {
    let storage = server.resources.storage(group, resource)?;
    let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let found = server.store.get(&storage.store_key(name("namespace"), name("name"))).await;
    stored(storage, found.ok().flatten()?.as_ref()).ok()
}

/// The storage of a resource that must have one.
pub(crate) fn storage(resource: &Resource) -> Result<&Storage, Status> {
    resource.storage.as_deref().ok_or_else(errors::no_such_resource)
}

/// A string in an object; empty when it is not there. Names in the pointer stand for themselves.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    // `Value::pointer` copies every name to look for escapes.
    let mut names = pointer.split('/').skip(1);
    let found = names.try_fold(object, |value, name| value.get(name));
    found.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Turns findings into the answer.
pub(crate) fn refuse_findings(
    gvk: &meta::GroupVersionKind,
    name: &str,
    findings: Vec<validation::FieldError>,
) -> Result<(), Status> {
    if findings.is_empty() {
        return Ok(());
    }
    let causes: Vec<Cause> = findings.iter().map(validation::FieldError::cause).collect();
    // Upstream keeps all events in the core group, and says so.
    let group = if gvk.group == "events.k8s.io" { "" } else { &gvk.group };
    Err(errors::invalid(group, &gvk.kind, name, causes))
}

/// What admission is told.
pub(crate) fn admission_request<'a>(
    ctx: &'a RequestContext,
    resource: &'a Resource,
    namespace: &'a str,
    name: &'a str,
    operation: admission::Operation,
) -> admission::Request<'a> {
    let resource_name: &'a meta::GroupResource = match &resource.storage {
        Some(storage) => &storage.resource,
        None => ctx.server.no_resource(),
    };
    admission::Request {
        operation,
        gvk: &resource.gvk,
        resource: resource_name,
        subresource: &ctx.info.subresource,
        namespace,
        name,
        user: ctx.subject(),
        is_dry_run: false,
    }
}
