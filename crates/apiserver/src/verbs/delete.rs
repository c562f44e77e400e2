//! DELETE of one object: preconditions, grace, finalizers.
//!
//! Upstream: `apiserver/pkg/registry/rest/delete.go` and `registry/generic/registry/store.go`.

use std::sync::Arc;

use http::{Response, StatusCode};
use meta::{GroupResource, GroupVersionKind, Object, Status, StatusDetails};
use schema::FieldValidation;
use serde_json::{Value, json};
use store::{Expect, KeyValue, Outcome};

use super::{object_form, table_options};
use crate::audit;
use crate::context::{RequestContext, WriteRequest, check_dry_run};
use crate::custom::convert;
use crate::errors;
use crate::negotiate::Form;
use crate::render;
use crate::resources::{Resource, Storage};
use crate::strategy::Deletion;
use crate::webhook;
use crate::write;
use connection::Body;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Attempts against writers that are faster.
const ATTEMPTS: usize = 20;

/// What a client says about a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) orphan: Option<bool>,
    pub(crate) is_dry_run: bool,
    /// Whether admission is not asked.
    pub(crate) is_unasked: bool,
}

/// What became of it.
pub(crate) enum Deleted {
    /// It is gone; its last state.
    Gone(Arc<Object>),
    /// It stays until somebody finishes it.
    Pending(Arc<Object>),
}

pub(crate) async fn delete(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let options = options(request)?;
    warn_of_orphans(ctx, resource, &options);
    let deleted =
        delete_object(ctx, resource, &ctx.info.namespace, &ctx.info.name, &options).await?;
    Ok(answer(ctx, resource, &deleted, form))
}

/// Upstream's hint to those who delete a job and do not say what becomes of its pods.
fn warn_of_orphans(ctx: &RequestContext, resource: &Resource, options: &DeleteOptions) {
    let says = options.policy.is_some() || options.orphan.is_some();
    if !says && resource.definition.group == "batch" && resource.definition.name == "jobs" {
        ctx.warn(
            "child pods are preserved by default when jobs are deleted; set \
             propagationPolicy=Background to remove them or set propagationPolicy=Orphan to \
             suppress this warning",
        );
    }
}

fn answer(
    ctx: &RequestContext,
    resource: &Resource,
    deleted: &Deleted,
    form: Form,
) -> Response<Body> {
    let returns = resource.storage.as_ref().is_some_and(|s| s.strategy.returns_deleted());
    match deleted {
        Deleted::Gone(object) if !returns => {
            let group_resource = resource.group_resource();
            let details = StatusDetails {
                name: object.header().name.clone(),
                group: group_resource.group,
                kind: group_resource.resource,
                uid: object.header().uid.clone(),
                ..StatusDetails::default()
            };
            render::status(&Status::success().with_details(details), form)
        }
        Deleted::Gone(object) | Deleted::Pending(object) => {
            render::object(StatusCode::OK, resource, object, form, table_options(ctx))
        }
    }
}

/// Reads options from the body, or from the query when there is no body.
pub(crate) fn options(request: &WriteRequest<'_>) -> Result<DeleteOptions, Status> {
    let ctx = request.ctx;
    if request.body.is_empty() {
        return from_query(ctx);
    }
    let gvk = GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions");
    let Some(ty) = schema::registry().kind(&gvk) else {
        return Err(errors::internal("no table for DeleteOptions"));
    };
    let bytes = match crate::negotiate::body_encoding(&ctx.headers)? {
        crate::negotiate::Encoding::Protobuf => {
            let decoded = schema::decode_protobuf(&request.body);
            let (gvk, value) = decoded.map_err(|error| errors::bad_request(error.to_string()))?;
            audit::requested_options(ctx, ty, &gvk.group_version().to_string(), &value);
            return from_value(&value);
        }
        crate::negotiate::Encoding::Yaml => {
            let parsed = schema::yaml_to_value(&request.body);
            let (value, _) = parsed.map_err(|error| errors::bad_request(error.to_string()))?;
            value.to_string().into_bytes()
        }
        _ => request.body.to_vec(),
    };
    let found =
        schema::read_type_meta(&bytes).map_err(|error| errors::bad_request(error.to_string()))?;
    check_kind(&found)?;
    let decoded = schema::decode_json(ty, &bytes, FieldValidation::Ignore)
        .map_err(|error| errors::bad_request(error.to_string()))?;
    audit::requested_options(ctx, ty, &found.api_version, &decoded.value);
    from_value(&decoded.value)
}

/// Options may be of any version, but must be options.
fn check_kind(found: &schema::TypeMeta) -> Result<(), Status> {
    if matches!(found.kind.as_str(), "" | "DeleteOptions") {
        return Ok(());
    }
    let version =
        if found.api_version.is_empty() { "meta.k8s.io/v1" } else { found.api_version.as_str() };
    Err(errors::bad_request(format!(
        "no kind {:?} is registered for version {version:?} in scheme \
         \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
        found.kind
    )))
}

fn from_value(value: &Value) -> Result<DeleteOptions, Status> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let list = value["dryRun"].as_array().cloned().unwrap_or_default();
    let options = DeleteOptions {
        grace: value["gracePeriodSeconds"].as_i64(),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        policy: text("/propagationPolicy"),
        orphan: value["orphanDependents"].as_bool(),
        is_dry_run: check_dry_run(list.iter().filter_map(Value::as_str), "DeleteOptions")?,
        is_unasked: false,
    };
    check_policy(options)
}

fn from_query(ctx: &RequestContext) -> Result<DeleteOptions, Status> {
    let grace = match ctx.query.non_empty("gracePeriodSeconds") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            errors::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?),
    };
    check_policy(DeleteOptions {
        grace,
        uid: None,
        resource_version: None,
        policy: ctx.query.non_empty("propagationPolicy").map(str::to_owned),
        orphan: ctx.query.get("orphanDependents").map(|_| ctx.query.flag("orphanDependents")),
        is_dry_run: ctx.is_dry_run()?,
        is_unasked: false,
    })
}

fn check_policy(options: DeleteOptions) -> Result<DeleteOptions, Status> {
    let cause = |message: &str, reason: &str| meta::Cause {
        reason: reason.to_owned(),
        message: message.to_owned(),
        field: "propagationPolicy".to_owned(),
    };
    let invalid = |cause| Err(errors::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
    match options.policy.as_deref() {
        Some(policy) if options.orphan.is_some() => invalid(cause(
            &format!(
                "Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both \
                 set"
            ),
            "FieldValueInvalid",
        )),
        None | Some("Orphan" | "Background" | "Foreground") => Ok(options),
        Some(policy) => invalid(cause(
            &format!(
                "Unsupported value: {policy:?}: supported values: \"Foreground\", \"Background\", \
                 \"Orphan\", \"nil\""
            ),
            "FieldValueNotSupported",
        )),
    }
}

/// Deletes, or marks for deletion.
pub(crate) async fn delete_object(
    ctx: &RequestContext,
    resource: &Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let storage = write::storage(resource)?;
    let group_resource = resource.group_resource();
    let key = storage.store_key(namespace, name);
    for _ in 0..ATTEMPTS {
        let found = ctx.server.store.get(&key).await.map_err(|error| errors::from_store(&error))?;
        let found = found.ok_or_else(|| errors::not_found(&group_resource, name))?;
        let old = write::stored(storage, &found)?;
        check_preconditions(&old, options, &resource.gvk.kind, &group_resource, name)?;
        if !options.is_unasked {
            let operation = admission::Operation::Delete;
            let request = write::admission_request(ctx, resource, namespace, name, operation);
            let request = admission::Request { is_dry_run: options.is_dry_run, ..request };
            ctx.server.admission.validate(&request, None, Some(&old), &*ctx.server)?;
            // Webhooks are shown what the client would see.
            let served = write::old_form(ctx, resource, &old).await?;
            webhook::delete(ctx, resource, &request, &served).await?;
        }
        if let Some(deleted) = try_delete(ctx, storage, old, &found, options).await? {
            return presented(ctx, resource, deleted).await;
        }
    }
    Err(errors::modified(&group_resource, name))
}

/// In the version of the resource, where a webhook is needed for that.
async fn presented(
    ctx: &RequestContext,
    resource: &Resource,
    deleted: Deleted,
) -> Result<Deleted, Status> {
    Ok(match deleted {
        // Nobody is told what it was.
        Deleted::Gone(object) => Deleted::Gone(object),
        Deleted::Pending(object) => {
            Deleted::Pending(convert::presented_one(&ctx.server, resource, object).await?)
        }
    })
}

fn check_preconditions(
    old: &Value,
    options: &DeleteOptions,
    kind: &str,
    resource: &GroupResource,
    name: &str,
) -> Result<(), Status> {
    // Upstream names the kind here, not the resource.
    let named = GroupResource { group: String::new(), resource: kind.to_owned() };
    let refuse = |why: &str| {
        let mut status = errors::conflict(&named, name, why);
        if let Some(details) = status.details.as_mut() {
            details.group.clone_from(&resource.group);
        }
        Err(status)
    };
    let uid = write::text(old, "/metadata/uid");
    if let Some(wanted) = options.uid.as_ref().filter(|wanted| **wanted != uid) {
        return refuse(&format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The \
             object might have been deleted and then recreated"
        ));
    }
    let version = write::text(old, "/metadata/resourceVersion");
    if let Some(wanted) = options.resource_version.as_ref().filter(|wanted| **wanted != version) {
        return refuse(&format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion \
             in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

/// `None` when there is more to do: somebody else was faster, or the object has now to go.
async fn try_delete(
    ctx: &RequestContext,
    storage: &Storage,
    mut object: Value,
    found: &KeyValue,
    options: &DeleteOptions,
) -> Result<Option<Deleted>, Status> {
    let was_marked = object.pointer("/metadata/deletionTimestamp").is_some();
    let changed = mark(ctx, storage, &mut object, options)?;
    let goes = write::is_finished(&object) || can_go(storage, &object, options);
    crate::strategy::remove(&mut object["metadata"], "resourceVersion");
    let json = render::encode(storage.ty, &object);
    if options.is_dry_run || (!goes && !changed) {
        let object = write::at(storage, &object, &json, found.mod_revision)?;
        return Ok(Some(if goes { Deleted::Gone(object) } else { Deleted::Pending(object) }));
    }
    // A wait that is cut short is seen before the end, as upstream's watchers see it.
    let goes_now = goes && !(changed && was_marked);
    let value = if goes_now { None } else { Some(&json) };
    let expect = Expect::ModRevision(found.mod_revision);
    let write = write::stamped(found.key.clone(), value, expect);
    let outcome = write::commit(ctx, write).await?;
    let Outcome::Committed(committed) = outcome else { return Ok(None) };
    if goes && !goes_now {
        return Ok(None);
    }
    let written = write::at(storage, &object, &json, committed.revision)?;
    if !goes {
        return Ok(Some(Deleted::Pending(written)));
    }
    storage.strategy.deleted(&ctx.write(), &object);
    write::addresses::keep(ctx, storage, None, Some(&object)).await;
    Ok(Some(Deleted::Gone(written)))
}

/// Sets finalizers and the deletion timestamp as the options ask; whether anything changed.
fn mark(
    ctx: &RequestContext,
    storage: &Storage,
    object: &mut Value,
    options: &DeleteOptions,
) -> Result<bool, Status> {
    let now = meta::time::rfc3339(ctx.server.clock.now());
    if storage.strategy.mark(object, &now) {
        return Ok(true);
    }
    let before = object["metadata"].clone();
    let finalizers = propagate(storage, object, options);
    let deletion = storage.strategy.deletion(object, options.grace);
    let is_namespace = storage.resource.resource == "namespaces";
    let waits_for_finalizers = !finalizers.is_empty() || is_namespace;
    let grace = match deletion {
        Deletion::Immediate => 0,
        Deletion::Graceful(seconds) => seconds,
    };
    let is_graceful_kind = deletion != Deletion::Immediate;
    let metadata = &mut object["metadata"];
    let had = metadata.get("deletionTimestamp").is_some();
    let old_grace = metadata["deletionGracePeriodSeconds"].as_i64();
    // A second deletion may only shorten the wait.
    let shortens = had && is_graceful_kind && old_grace.is_none_or(|old| grace < old);
    if (!had && (waits_for_finalizers || is_graceful_kind)) || shortens {
        let at = ctx.server.clock.now().saturating_add(jiff::SignedDuration::from_secs(grace));
        let at = at.unwrap_or(jiff::Timestamp::MAX);
        metadata["deletionTimestamp"] = json!(meta::time::rfc3339(at));
        metadata["deletionGracePeriodSeconds"] = json!(grace);
        if let (false, Some(generation)) = (had, metadata["generation"].as_i64()) {
            metadata["generation"] = json!(generation + 1);
        }
        if is_namespace {
            crate::strategy::remove(&mut object["metadata"], "deletionGracePeriodSeconds");
        }
    }
    if is_namespace {
        return mark_namespace(object, &before, had);
    }
    Ok(object["metadata"] != before)
}

fn mark_namespace(object: &mut Value, before: &Value, had: bool) -> Result<bool, Status> {
    object["status"]["phase"] = json!("Terminating");
    let has_finalizers = object
        .pointer("/spec/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty());
    if had && has_finalizers {
        let name = write::text(object, "/metadata/name");
        let resource = GroupResource { group: String::new(), resource: "namespaces".to_owned() };
        return Err(errors::conflict(
            &resource,
            &name,
            "The system is ensuring all content is removed from this namespace.  Upon completion, \
             this namespace will automatically be purged by the system.",
        ));
    }
    Ok(object["metadata"] != *before)
}

/// Applies the propagation policy to the finalizers and returns them.
fn propagate(storage: &Storage, object: &mut Value, options: &DeleteOptions) -> Vec<Value> {
    let metadata = &mut object["metadata"];
    let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    let has = |list: &[Value], name: &str| list.iter().any(|found| found == name);
    let (orphan, foreground) = match (options.orphan, options.policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(policy)) => (policy == "Orphan", policy == "Foreground"),
        (None, None) => {
            let (orphan, foreground) = (has(&finalizers, ORPHAN), has(&finalizers, FOREGROUND));
            (orphan || (!foreground && storage.strategy.orphans_by_default()), foreground)
        }
    };
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    if orphan {
        finalizers.push(json!(ORPHAN));
    }
    if foreground {
        finalizers.push(json!(FOREGROUND));
    }
    if finalizers.is_empty() {
        crate::strategy::remove(metadata, "finalizers");
    } else {
        metadata["finalizers"] = json!(finalizers);
    }
    finalizers
}

/// Whether nothing keeps an object that has no grace period.
fn can_go(storage: &Storage, object: &Value, options: &DeleteOptions) -> bool {
    let is_empty =
        |pointer: &str| object.pointer(pointer).and_then(Value::as_array).is_none_or(Vec::is_empty);
    is_empty("/metadata/finalizers")
        && (storage.resource.resource != "namespaces" || is_empty("/spec/finalizers"))
        && matches!(
            storage.strategy.deletion(object, options.grace),
            Deletion::Immediate | Deletion::Graceful(0)
        )
}
