//! `scale` of custom resources: replicas and selector are where the definition says.

use custom::Scale;
use custom::scale::{number, put, steps, text};
use http::{Response, StatusCode};
use meta::Status;
use serde_json::Value;

use super::convert;
use super::kind::CustomVersion;
use super::requests::check_patch;
use crate::context::{RequestContext, WriteRequest};
use crate::errors;
use crate::negotiate::{Shape, form};
use crate::render;
use crate::resources::Resource;
use crate::subresources::scale::{self, Scaled};
use crate::write;
use connection::Body;

pub(crate) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
    version: &CustomVersion,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let found = version.definition().and_then(|version| version.subresources.scale.as_ref());
    let scale = found.ok_or_else(errors::no_such_resource)?;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    let object = match ctx.info.verb.as_str() {
        "get" => read(ctx, resource).await?,
        _ => write(request, resource, scale).await?,
    };
    let answer = of(scale, &object)?;
    Ok(render::value(StatusCode::OK, &scale::kind(), &answer, form))
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
    if ctx.info.verb == "patch" {
        check_patch(&ctx.headers)?;
    }
    let written = scale::write(request, resource, &Of(scale)).await?;
    serde_json::from_slice(&render::versioned(resource, &written.object)).map_err(errors::internal)
}

/// Where the definition says that replicas are.
struct Of<'a>(&'a Scale);

impl Scaled for Of<'_> {
    fn replicas(&self) -> Vec<&str> {
        steps(&self.0.spec_replicas_path)
    }

    fn shown(&self, object: &Value) -> Result<Value, Status> {
        shown(self.0, object)
    }

    fn put(&self, object: &mut Value, replicas: i64) {
        put(object, &self.0.spec_replicas_path, replicas);
    }
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
    let (current, replicas) = (current.unwrap_or_default(), replicas.unwrap_or_default());
    Ok(scale::scale_of(object, (replicas, current), selector))
}
