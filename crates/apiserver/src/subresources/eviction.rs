//! Evicting a pod, if its disruption budgets allow it.
//!
//! Upstream: `registry/core/pod/storage/eviction.go`.

use std::sync::Arc;

use http::{Response, StatusCode};
use meta::{Cause, GroupVersionKind, LabelSelector, Object, Reason, Status, StatusDetails};
use serde_json::{Value, json};
use store::{Expect, Outcome};

use crate::context::{RequestContext, WriteRequest, check_dry_run};
use crate::decode;
use crate::errors;
use crate::negotiate::{Shape, form};
use crate::ownership;
use crate::render;
use crate::resources::Resource;
use crate::verbs::delete::{DeleteOptions, delete_object};
use crate::write::{self, Creates, Part, Update};
use connection::Body;

/// Entries of `status.disruptedPods` beyond which a budget's controller must be gone.
const DISRUPTED_PODS: usize = 2000;
/// Attempts to mark a pod that its kubelet writes too.
const ATTEMPTS: usize = 20;

pub(super) async fn evict(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let gvk = GroupVersionKind::new("policy", "v1", "Eviction");
    let Some(ty) = schema::registry().kind(&gvk) else {
        return Err(errors::internal("no table for Eviction"));
    };
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    let mut eviction = decode::body(ctx, &request.body, &gvk, ty, validation)?.value;
    let name = write::text(&eviction, "/metadata/name");
    if name != ctx.info.name {
        return Err(errors::bad_request("name in URL does not match name in Eviction object"));
    }
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let mut options = options(ctx, &eviction)?;
    ctx.server.pump.fresh().await?;
    super::admit_created(ctx, resource, &name, options.is_dry_run, &mut eviction)?;
    let pod = ctx.server.find("", "pods", &ctx.info.namespace, &name);
    let pod = pod.ok_or_else(|| errors::not_found(&resource.group_resource(), &name))?;
    if !is_beyond_budget(&pod) {
        charge_budget(ctx, &pod, options.is_dry_run).await?;
    }
    if !options.is_dry_run {
        mark(ctx, resource, &name, &mut options).await?;
    }
    delete_object(ctx, resource, &ctx.info.namespace, &name, &options).await?;
    let mut status = Status::success();
    status.code = 201;
    let text = serde_json::to_value(&status).map_err(errors::internal)?;
    let gvk = GroupVersionKind::new("", "v1", "Status");
    Ok(render::value(StatusCode::CREATED, &gvk, &text, form))
}

fn options(ctx: &RequestContext, eviction: &Value) -> Result<DeleteOptions, Status> {
    let given = &eviction["deleteOptions"];
    let text = |pointer: &str| given.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let list = given["dryRun"].as_array().cloned().unwrap_or_default();
    let in_body = check_dry_run(list.iter().filter_map(Value::as_str), "DeleteOptions")?;
    Ok(DeleteOptions {
        grace: given["gracePeriodSeconds"].as_i64(),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        policy: text("/propagationPolicy"),
        orphan: None,
        is_dry_run: in_body || ctx.is_dry_run()?,
        is_unasked: false,
    })
}

/// Says in the pod's conditions why it goes. Upstream writes that past admission, too.
async fn mark(
    ctx: &RequestContext,
    pods: &Resource,
    name: &str,
    options: &mut DeleteOptions,
) -> Result<(), Status> {
    let storage = write::storage(pods)?;
    let key = storage.store_key(&ctx.info.namespace, name);
    let now = meta::time::rfc3339(ctx.server.clock.now());
    for _ in 0..ATTEMPTS {
        let found = ctx.server.store.get(&key).await.map_err(|error| errors::from_store(&error))?;
        let found = found.ok_or_else(|| errors::not_found(&storage.resource, name))?;
        let pod = write::stored(storage, &found)?;
        // Whoever wants another pod than this gets his answer from the deletion.
        if !fits(&pod, options) {
            return Ok(());
        }
        let mut marked = marked(pod, &now);
        crate::strategy::remove(&mut marked["metadata"], "resourceVersion");
        let value = render::encode(storage.ty, &marked);
        let expect = Expect::ModRevision(found.mod_revision);
        let write = write::stamped(key.clone(), Some(&value), expect);
        let outcome = ctx.server.store.write(write).await;
        if let Outcome::Committed(at) = outcome.map_err(|error| errors::from_store(&error))? {
            let version = &mut options.resource_version;
            *version = version.take().map(|_| at.revision.0.to_string());
            return Ok(());
        }
    }
    Err(errors::modified(&storage.resource, name))
}

/// Whether a pod is the one that is to be deleted.
fn fits(pod: &Value, options: &DeleteOptions) -> bool {
    let is = |wanted: &Option<String>, pointer: &str| {
        wanted.as_ref().is_none_or(|wanted| *wanted == write::text(pod, pointer))
    };
    is(&options.uid, "/metadata/uid") && is(&options.resource_version, "/metadata/resourceVersion")
}

/// The pod with the condition that upstream's eviction sets.
fn marked(mut pod: Value, now: &str) -> Value {
    let generation = pod["metadata"]["generation"].clone();
    let mut condition = json!({
        "type": api::pod::DISRUPTION_TARGET, "status": "True",
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastTransitionTime": now,
    });
    if !generation.is_null() {
        condition["observedGeneration"] = generation;
    }
    let slot = &mut pod["status"]["conditions"];
    let mut conditions = slot.as_array().cloned().unwrap_or_default();
    match conditions.iter_mut().find(|found| found["type"] == condition["type"]) {
        Some(found) => {
            if found["status"] == condition["status"] {
                condition["lastTransitionTime"] = found["lastTransitionTime"].clone();
            }
            *found = condition;
        }
        None => conditions.push(condition),
    }
    *slot = Value::Array(conditions);
    pod
}

/// Pods that do not run, or are going anyway, disrupt nobody.
fn is_beyond_budget(pod: &Object) -> bool {
    let phase = pod.header().fields.iter().find(|(path, _)| *path == "status.phase");
    let phase = phase.map_or("", |(_, phase)| phase);
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.header().deletion_timestamp.is_some()
}

async fn charge_budget(
    ctx: &RequestContext,
    pod: &Arc<Object>,
    is_dry_run: bool,
) -> Result<(), Status> {
    let namespace = &pod.header().namespace;
    let budgets = admission::View::list(&*ctx.server, "policy", "poddisruptionbudgets", namespace);
    let mut matching = Vec::new();
    for budget in budgets {
        let value: Value = budget.decode().map_err(errors::internal)?;
        let selector = LabelSelector::from_object(value.pointer("/spec/selector"));
        if selector.is_ok_and(|selector| selector.matches_header(pod.header())) {
            matching.push(value);
        }
    }
    match matching.as_slice() {
        [] => Ok(()),
        [budget] => {
            if is_unhealthy_and_free(pod, budget) {
                return Ok(());
            }
            let name = write::text(budget, "/metadata/name");
            take(ctx, &name, namespace, &pod.header().name, is_dry_run).await
        }
        _ => Err(errors::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
             not support.",
        )),
    }
}

/// Whether the budget lets pods go that are not ready anyway.
fn is_unhealthy_and_free(pod: &Object, budget: &Value) -> bool {
    let Ok(pod) = pod.decode::<Value>() else { return false };
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = conditions
        .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    if is_ready {
        return false;
    }
    let number =
        |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (number("/status/currentHealthy") >= number("/status/desiredHealthy")
            && number("/status/desiredHealthy") > 0)
}

/// Takes one disruption from the budget.
async fn take(
    ctx: &RequestContext,
    budget: &str,
    namespace: &str,
    pod: &str,
    is_dry_run: bool,
) -> Result<(), Status> {
    let budgets = ctx.server.resources.get("policy", "v1", "poddisruptionbudgets");
    let budgets = budgets.ok_or_else(errors::no_such_resource)?.clone();
    let update = Update {
        namespace,
        name: budget,
        part: Part::Exact,
        is_dry_run,
        creates: Creates::Never,
        manager: None,
    };
    let now = meta::time::rfc3339(ctx.server.clock.now());
    let change = |old: Option<&Value>| {
        let old = old.ok_or_else(|| errors::not_found(&budgets.group_resource(), budget))?;
        let number =
            |pointer: &str| old.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let too_many = |text: String, retry: i32| too_many_requests(text, retry);
        if number("/status/observedGeneration") < number("/metadata/generation") {
            return Err(too_many(
                format!("The disruption budget {budget} is still being processed by the server."),
                10,
            ));
        }
        let allowed = number("/status/disruptionsAllowed");
        if allowed <= 0 {
            return Err(too_many(
                format!(
                    "The disruption budget {budget} needs {} healthy pods and has {} currently",
                    number("/status/desiredHealthy"),
                    number("/status/currentHealthy")
                ),
                0,
            ));
        }
        let disrupted = old.pointer("/status/disruptedPods").and_then(Value::as_object);
        if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_PODS) {
            let why =
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
            return Err(errors::forbidden(&budgets.group_resource(), budget, why));
        }
        let mut new = old.clone();
        new["status"]["disruptionsAllowed"] = json!(allowed - 1);
        new["status"]["disruptedPods"][pod] = json!(now);
        ownership::record_own_status(&ctx.server, &budgets, old, &mut new);
        Ok(new)
    };
    write::update(ctx, &budgets, &update, &change).await.map(|_| ())
}

fn too_many_requests(message: String, retry_after_seconds: i32) -> Status {
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() };
    let details =
        StatusDetails { causes: vec![cause], retry_after_seconds, ..StatusDetails::default() };
    Status::failure(
        Reason::TooManyRequests,
        "Cannot evict pod as it would violate the pod's disruption budget.",
    )
    .with_details(details)
}
