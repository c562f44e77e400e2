//! Subresources, and resources that are answered and not kept.

mod approval;
mod binding;
mod ephemeral_containers;
mod eviction;
mod finalize;
mod review;
mod scale;
mod token;

use std::sync::Arc;

use http::Response;
use meta::Status;

use crate::body::Body;
use crate::chain::not_allowed;
use crate::context::WriteRequest;
use crate::errors;
use crate::resources::Resource;
use crate::verbs;
use crate::write::Part;

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
        ("serviceaccounts", "token") => token::create(request).await,
        ("certificatesigningrequests", "approval") => approval::serve(request, resource).await,
        ("certificatesigningrequests", "status") if info.verb != "get" => {
            approval::check_signer(ctx, "sign")?;
            write_status(request, resource).await
        }
        (_, "status") => match info.verb.as_str() {
            "get" => verbs::get::get(ctx, resource).await,
            _ => write_status(request, resource).await,
        },
        _ => Err(errors::no_such_resource()),
    }
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
        (_, "create") => review::create(request, resource),
        _ => Err(not_allowed()),
    }
}
