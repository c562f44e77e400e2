//! `pods/ephemeralcontainers` and `pods/resize`: the parts of a running pod that may change.

use http::Response;
use http::header::CONTENT_TYPE;
use meta::{Reason, Status};
use serde_json::Value;

use crate::body::Body;
use crate::context::WriteRequest;
use crate::decode;
use crate::errors;
use crate::render;
use crate::resources::Resource;
use crate::verbs::{self, answer, object_form};
use crate::write::{self, Part, Update};

pub(super) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    if ctx.info.verb == "get" {
        return verbs::get::get(ctx, resource).await;
    }
    let form = object_form(ctx)?;
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part: Part::Spec,
        is_dry_run: ctx.is_dry_run()?,
        may_create: false,
    };
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let given = given(request, resource, old)?;
        let mut new = old.clone();
        for field in ["resourceVersion", "uid"] {
            match given["metadata"].get(field) {
                Some(value) => new["metadata"][field] = value.clone(),
                None => drop(crate::strategy::remove(&mut new["metadata"], field)),
            }
        }
        if ctx.info.subresource == "resize" {
            resize(&mut new, &given);
        } else {
            crate::strategy::keep_old(&mut new["spec"], &given["spec"], "ephemeralContainers");
        }
        Ok(new)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}

/// The pod the client wants, from a PUT or a PATCH.
fn given(request: &WriteRequest<'_>, resource: &Resource, old: &Value) -> Result<Value, Status> {
    let ctx = request.ctx;
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    if ctx.info.verb != "patch" {
        let decoded =
            decode::body(&ctx.headers, &request.body, &resource.gvk, resource.ty, validation)?;
        return Ok(decoded.value);
    }
    let json = render::encode(resource.ty, old);
    let document: Value = serde_json::from_slice(&json).map_err(errors::internal)?;
    let content_type = ctx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let patched = match content_type.unwrap_or_default().split(';').next().unwrap_or_default() {
        "application/json-patch+json" => patch::json(&document, &request.body),
        "application/merge-patch+json" => patch::merge(document, &request.body),
        "application/strategic-merge-patch+json" => {
            patch::strategic_merge(resource.ty, &document, &request.body)
        }
        _ => {
            return Err(Status::failure(
                Reason::UnsupportedMediaType,
                "server-side apply is not supported by this server yet",
            ));
        }
    };
    let patched = patched.map_err(|error| errors::bad_request(error.to_string()))?;
    let decoded = schema::decode_value(resource.ty, &patched, validation)
        .map_err(|error| errors::bad_request(error.to_string()))?;
    Ok(decoded.value)
}

/// Only resources and their resize policies change, container by container. Containers that are
/// not the pod's, or missing, are for validation to refuse.
fn resize(pod: &mut Value, given: &Value) {
    for list in ["containers", "initContainers"] {
        let had = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let Some(mut wanted) = given["spec"][list].as_array().cloned() else { continue };
        for container in &mut wanted {
            let Some(before) = had.iter().find(|had| had["name"] == container["name"]) else {
                continue;
            };
            let given = std::mem::replace(container, before.clone());
            for field in ["resources", "resizePolicy"] {
                crate::strategy::keep_old(container, &given, field);
            }
        }
        pod["spec"][list] = Value::Array(wanted);
    }
    crate::strategy::keep_old(&mut pod["spec"], &given["spec"], "resources");
}
