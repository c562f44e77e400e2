//! Subresources, and resources that are answered and not kept.

mod approval;
mod binding;
mod ephemeral_containers;
mod eviction;
mod finalize;
mod review;
pub(crate) mod scale;
mod token;

use std::sync::Arc;

use http::Response;
use meta::Status;
use serde_json::Value;

use crate::chain::not_allowed;
use crate::context::{RequestContext, WriteRequest};
use crate::errors;
use crate::resources::Resource;
use crate::verbs;
use crate::write::{self, Part};
use connection::Body;

/// A request for a subresource of one object.
pub(crate) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let info = &ctx.info;
    let sub = resource.definition.subresource(&info.subresource);
    let sub = sub.ok_or_else(errors::no_such_resource)?;
    if !sub.verbs.contains(&info.verb.as_str()) {
        return Err(not_allowed());
    }
    match (info.resource.as_str(), info.subresource.as_str()) {
        (_, "scale") => scale::serve(request, resource).await,
        ("pods", "binding") => binding::of_pod(request, resource).await,
        ("pods", "eviction") => eviction::evict(request, resource).await,
        ("pods", "ephemeralcontainers" | "resize") => {
            ephemeral_containers::serve(request, resource).await
        }
        ("namespaces", "finalize") => finalize::finalize(request, resource).await,
        ("serviceaccounts", "token") => token::create(request, resource).await,
        ("certificatesigningrequests", "approval") => approval::serve(request, resource).await,
        (_, "status") => match info.verb.as_str() {
            "get" => verbs::get::get(ctx, resource).await,
            _ => write_status(request, resource).await,
        },
        _ => Err(errors::no_such_resource()),
    }
}

/// Lets admission see what a subresource is sent that is not the object itself.
fn admit_created(
    ctx: &RequestContext,
    resource: &Resource,
    name: &str,
    is_dry_run: bool,
    object: &mut Value,
) -> Result<(), Status> {
    let create = admission::Operation::Create;
    let asked = write::admission_request(ctx, resource, &ctx.info.namespace, name, create);
    let asked = admission::Request { is_dry_run, ..asked };
    ctx.server.admission.admit(&asked, object, None, &*ctx.server)?;
    ctx.server.admission.validate(&asked, Some(object), None, &*ctx.server)
}

async fn write_status(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    if request.ctx.info.verb == "update" {
        verbs::update::update(request, resource, Part::Status).await
    } else {
        verbs::patch::patch(request, resource, Part::Status).await
    }
}

/// A request for a resource without storage.
pub(crate) async fn serve_virtual(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    match (ctx.info.resource.as_str(), ctx.info.verb.as_str()) {
        ("bindings", "create") => binding::legacy(request, resource).await,
        ("componentstatuses", "get" | "list") => Ok(review::component_statuses(ctx, resource)),
        (_, "create") => review::create(request, resource).await,
        _ => Err(not_allowed()),
    }
}
