//! `scale` of custom resources: replicas and selector are where the definition says.

use custom::Scale;
use custom::scale::{number, put, steps, text};
use http::{Response, StatusCode};
use meta::{GroupVersionKind, Status};
use serde_json::{Value, json};

use super::convert;
use super::kind::CustomVersion;
use super::requests::check_patch;
use crate::context::{RequestContext, WriteRequest};
use crate::decode;
use crate::errors;
use crate::negotiate::{Shape, form};
use crate::options::WriteOptions;
use crate::ownership::{self, Target};
use crate::render;
use crate::resources::Resource;
use crate::verbs::apply::applied_to;
use crate::verbs::patch::{Patch, PatchType};
use crate::write::{self, Creates, Part, Update};
use connection::Body;

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

pub(crate) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
    version: &CustomVersion,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let scale = version.definition().and_then(|version| version.subresources.scale.as_ref());
    let scale = scale.ok_or_else(errors::no_such_resource)?;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let object = match ctx.info.verb.as_str() {
        "get" => read(ctx, resource).await?,
        _ => write(request, resource, scale).await?,
    };
    let answer = of(scale, &object)?;
    Ok(render::value(StatusCode::OK, &kind(), &answer, form))
}

async fn read(ctx: &RequestContext, resource: &Resource) -> Result<Value, Status> {
    let storage = write::storage(resource)?;
    ctx.server.pump.fresh().await?;
    let key = storage.cache_key(&ctx.info.namespace, &ctx.info.name);
    let found = storage.cache.get(&key);
    let found =
        found.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
    let object = convert::presented_one(&ctx.server, resource, found).await?;
    serde_json::from_slice(&render::versioned(resource, &object)).map_err(errors::internal)
}

async fn write(
    request: &WriteRequest<'_>,
    resource: &Resource,
    scale: &Scale,
) -> Result<Value, Status> {
    let ctx = request.ctx;
    let patch_type = match ctx.info.verb.as_str() {
        "patch" => {
            check_patch(&ctx.headers)?;
            Some(PatchType::read(&ctx.headers)?)
        }
        _ => None,
    };
    let options = match patch_type {
        Some(patch_type) => WriteOptions::of_patch(ctx, patch_type == PatchType::Apply)?,
        None => WriteOptions::read(ctx)?,
    };
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part: Part::Spec,
        is_dry_run: options.is_dry_run,
        creates: Creates::Never,
        manager: None,
    };
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        changed(request, resource, (scale, &options, patch_type), old)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    serde_json::from_slice(&render::versioned(resource, &written.object)).map_err(errors::internal)
}

/// The object with what the request makes of its scale.
fn changed(
    request: &WriteRequest<'_>,
    resource: &Resource,
    (scale, options, patch_type): (&Scale, &WriteOptions, Option<PatchType>),
    old: &Value,
) -> Result<Value, Status> {
    let (ctx, gvk) = (request.ctx, kind());
    let Some(ty) = schema::registry().kind(&gvk) else {
        return Err(errors::internal("no table for Scale"));
    };
    let path = steps(&scale.spec_replicas_path);
    let target = Target::kind(ty, &gvk);
    let mut current = shown(scale, old)?;
    if let Ok(list) = apply::to_scale(apply::managed_fields(old), &path) {
        apply::put_managed_fields(&mut current, list);
    }
    let (body, validation) = (&request.body, options.validation);
    let mut wanted = match patch_type {
        None => decode::body(&ctx.headers, body, &gvk, ty, validation)?.value,
        Some(PatchType::Apply) => applied_to(ctx, target, options, Some(&current), body)?,
        Some(patch_type) => {
            let patch = Patch { patch_type, body, name: &ctx.info.name, validation };
            patch.apply(ty, &gvk, &current)?.value
        }
    };
    if patch_type != Some(PatchType::Apply) {
        ownership::record(ctx, target, &options.manager, Some(&current), &mut wanted);
    }
    let given = write::text(&wanted, "/metadata/name");
    if !given.is_empty() && given != ctx.info.name {
        return Err(errors::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            ctx.info.name
        )));
    }
    let mut new = scaled(scale, old, &wanted, &ctx.info.name)?;
    let (before, after) = (apply::managed_fields(old), apply::managed_fields(&wanted));
    let version = resource.gvk.group_version().to_string();
    if let Ok(list) = apply::from_scale(before, after, &path, &version) {
        apply::put_managed_fields(&mut new, list);
    }
    Ok(new)
}

/// The object with the replicas of the scale, and its preconditions.
fn scaled(scale: &Scale, old: &Value, wanted: &Value, name: &str) -> Result<Value, Status> {
    let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let cause = meta::Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            field: "spec.replicas".to_owned(),
        };
        return Err(errors::invalid("autoscaling", "Scale", name, vec![cause]));
    }
    let mut new = old.clone();
    put(&mut new, &scale.spec_replicas_path, replicas);
    for field in ["resourceVersion", "uid"] {
        match wanted["metadata"].get(field).filter(|value| **value != json!("")) {
            Some(value) => new["metadata"][field] = value.clone(),
            None if field == "resourceVersion" => {
                crate::strategy::remove(&mut new["metadata"], field);
            }
            None => {}
        }
    }
    Ok(new)
}

/// The scale of an object that must have one.
fn of(scale: &Scale, object: &Value) -> Result<Value, Status> {
    let path = &scale.spec_replicas_path;
    if number(object, path).map_err(errors::internal)?.is_none() {
        return Err(errors::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    shown(scale, object)
}

fn shown(scale: &Scale, object: &Value) -> Result<Value, Status> {
    let replicas = number(object, &scale.spec_replicas_path).map_err(errors::internal)?;
    let current = number(object, &scale.status_replicas_path).map_err(errors::internal)?;
    let selector = match &scale.label_selector_path {
        Some(path) => text(object, path).map_err(errors::internal)?.unwrap_or_default(),
        None => "",
    };
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut shown = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {}, "status": {"replicas": current.unwrap_or_default()}});
    if let Some(replicas) = replicas.filter(|replicas| *replicas != 0) {
        shown["spec"]["replicas"] = json!(replicas);
    }
    if !selector.is_empty() {
        shown["status"]["selector"] = json!(selector);
    }
    Ok(shown)
}
