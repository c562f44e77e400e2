//! `scale`: replicas of whatever has them, in one common shape.

use http::{Response, StatusCode};
use meta::{GroupVersionKind, LabelSelector, Status};
use serde_json::{Value, json};

use crate::audit;
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
use crate::write::{self, Creates, Part, Update, Written};
use connection::Body;

pub(crate) fn kind() -> GroupVersionKind {
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
        let written = write(request, resource, &BuiltIn(resource)).await?;
        written.object.decode().map_err(errors::internal)?
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

/// Where a kind has what a scale shows.
pub(crate) trait Scaled: Sync {
    /// The path of the wanted replicas.
    fn replicas(&self) -> Vec<&str>;

    /// The scale of an object.
    fn shown(&self, object: &Value) -> Result<Value, Status>;

    /// Sets the wanted replicas.
    fn put(&self, object: &mut Value, replicas: i64);
}

struct BuiltIn<'a>(&'a Resource);

impl Scaled for BuiltIn<'_> {
    fn replicas(&self) -> Vec<&str> {
        vec!["spec", "replicas"]
    }

    fn shown(&self, object: &Value) -> Result<Value, Status> {
        Ok(of(self.0, object))
    }

    fn put(&self, object: &mut Value, replicas: i64) {
        object["spec"]["replicas"] = json!(replicas);
    }
}

/// Writes the replicas of an object through its scale, with the managers of that field.
pub(crate) async fn write(
    request: &WriteRequest<'_>,
    resource: &Resource,
    scaled: &dyn Scaled,
) -> Result<Written, Status> {
    let ctx = request.ctx;
    let gvk = kind();
    let Some(ty) = schema::registry().kind(&gvk) else {
        return Err(errors::internal("no table for Scale"));
    };
    let patch_type = match ctx.info.verb.as_str() {
        "patch" => Some(PatchType::read(&ctx.headers)?),
        _ => None,
    };
    let options = match patch_type {
        Some(patch_type) => WriteOptions::of_patch(ctx, patch_type == PatchType::Apply)?,
        None => WriteOptions::read(ctx)?,
    };
    if let Some(patch_type) = patch_type {
        audit::requested_patch(ctx, patch_type, &request.body);
    }
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part: Part::Spec,
        is_dry_run: options.is_dry_run,
        creates: Creates::Never,
        manager: None,
    };
    let (target, path) = (Target::kind(ty, &gvk), scaled.replicas());
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let mut current = scaled.shown(old)?;
        if let Ok(list) = apply::to_scale(apply::managed_fields(old), &path) {
            apply::put_managed_fields(&mut current, list);
        }
        let (body, validation) = (&request.body, options.validation);
        let mut scale = match patch_type {
            None => decode::body(ctx, body, &gvk, ty, validation)?.value,
            Some(PatchType::Apply) => applied_to(ctx, target, &options, Some(&current), body)?,
            Some(patch_type) => {
                let patch = Patch { patch_type, body, name: &ctx.info.name, validation };
                patch.apply(ty, &gvk, &current)?.value
            }
        };
        if patch_type != Some(PatchType::Apply) {
            ownership::record(ctx, target, &options.manager, Some(&current), &mut scale);
        }
        let given = write::text(&scale, "/metadata/name");
        if !given.is_empty() && given != ctx.info.name {
            return Err(errors::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                ctx.info.name
            )));
        }
        let mut new = changed(scaled, old, &scale, &ctx.info.name)?;
        let (before, after) = (apply::managed_fields(old), apply::managed_fields(&scale));
        let version = resource.gvk.group_version().to_string();
        if let Ok(list) = apply::from_scale(before, after, &path, &version) {
            apply::put_managed_fields(&mut new, list);
        }
        Ok(new)
    };
    write::update(ctx, resource, &update, &change).await
}

/// The object with the replicas of the scale, and its preconditions.
fn changed(scaled: &dyn Scaled, old: &Value, scale: &Value, name: &str) -> Result<Value, Status> {
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
    scaled.put(&mut new, replicas);
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
    let selector = match &*resource.definition.name {
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
    scale_of(object, (replicas, current), &selector)
}

/// The scale of an object with so many wanted and present replicas; zeros are left out.
pub(crate) fn scale_of(object: &Value, (replicas, current): (i64, i64), selector: &str) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
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
