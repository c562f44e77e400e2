//! `scale`: replicas of whatever has them, in one common shape.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use meta::{GroupVersionKind, LabelSelector, Status};
use serde_json::{Value, json};

use crate::body::Body;
use crate::context::{RequestContext, WriteRequest};
use crate::decode;
use crate::errors;
use crate::negotiate::{Shape, form};
use crate::render;
use crate::resources::Resource;
use crate::write::{self, Part, Update};

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

pub(super) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let object = if ctx.info.verb == "get" {
        read(ctx, resource).await?
    } else {
        write(request, resource).await?
    };
    Ok(render::value(StatusCode::OK, &kind(), &of(resource, &object), form))
}

async fn read(ctx: &RequestContext, resource: &Resource) -> Result<Value, Status> {
    let storage = write::storage(resource)?;
    ctx.server.pump.fresh().await?;
    let key = storage.cache_key(&ctx.info.namespace, &ctx.info.name);
    let found = storage.cache.get(&key);
    let found =
        found.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
    found.decode().map_err(errors::internal)
}

async fn write(request: &WriteRequest<'_>, resource: &Resource) -> Result<Value, Status> {
    let ctx = request.ctx;
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    let Some(ty) = schema::registry().kind(&kind()) else {
        return Err(errors::internal("no table for Scale"));
    };
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part: Part::Spec,
        is_dry_run: ctx.is_dry_run()?,
        may_create: false,
    };
    let is_patch = ctx.info.verb == "patch";
    let header = ctx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = header.unwrap_or_default().to_owned();
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let scale = if is_patch {
            let current = of(resource, old);
            let patched = match content_type.split(';').next().unwrap_or_default() {
                "application/json-patch+json" => patch::json(&current, &request.body),
                "application/merge-patch+json" => patch::merge(current, &request.body),
                "application/strategic-merge-patch+json" => {
                    patch::strategic_merge(ty, &current, &request.body)
                }
                _ => {
                    return Err(Status::failure(
                        meta::Reason::UnsupportedMediaType,
                        "server-side apply is not supported by this server yet",
                    ));
                }
            };
            patched.map_err(|error| errors::bad_request(error.to_string()))?
        } else {
            decode::body(&ctx.headers, &request.body, &kind(), ty, validation)?.value
        };
        let given = write::text(&scale, "/metadata/name");
        if !given.is_empty() && given != ctx.info.name {
            return Err(errors::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                ctx.info.name
            )));
        }
        apply(old, &scale, &ctx.info.name)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    written.object.decode().map_err(errors::internal)
}

/// The object with the replicas of the scale, and its preconditions.
fn apply(old: &Value, scale: &Value, name: &str) -> Result<Value, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let cause = meta::Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            field: "spec.replicas".to_owned(),
        };
        return Err(errors::invalid("autoscaling", "Scale", name, vec![cause]));
    }
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(replicas);
    for field in ["resourceVersion", "uid"] {
        match scale["metadata"].get(field).filter(|value| **value != json!("")) {
            Some(value) => new["metadata"][field] = value.clone(),
            None if field == "resourceVersion" => {
                crate::strategy::remove(&mut new["metadata"], field);
            }
            None => {}
        }
    }
    Ok(new)
}

fn of(resource: &Resource, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let selector = match resource.definition.name {
        // A map, where the others have a selector.
        "replicationcontrollers" => {
            let map = object.pointer("/spec/selector").and_then(Value::as_object);
            let pairs = map.into_iter().flatten();
            let text = |(key, value): (&String, &Value)| {
                format!("{key}={}", value.as_str().unwrap_or_default())
            };
            pairs.map(text).collect::<Vec<_>>().join(",")
        }
        _ => LabelSelector::from_object(object.pointer("/spec/selector"))
            .map(|selector| selector.to_string())
            .unwrap_or_default(),
    };
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
    let current = object.pointer("/status/replicas").and_then(Value::as_i64).unwrap_or_default();
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {}, "status": {"replicas": current}});
    if replicas != 0 {
        scale["spec"]["replicas"] = json!(replicas);
    }
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}
