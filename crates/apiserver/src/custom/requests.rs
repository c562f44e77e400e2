//! Requests for custom resources: what is allowed on which path, which differs from built-in ones.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`.

use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Response};
use meta::{Reason, Status};

use super::kind::CustomVersion;
use super::scale;
use crate::context::{RequestContext, WriteRequest};
use crate::errors;
use crate::non_resource::no_such_path;
use crate::resources::Resource;
use crate::verbs;
use crate::verbs::patch::PatchType;
use crate::write::Part;
use connection::Body;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What an `Accept` header says that has nothing in it that is served.
const NOTHING: &str = "nothing/nothing";

/// Takes protobuf out of what a client accepts of objects; tables and metadata have it.
pub(crate) fn without_protobuf(headers: &mut HeaderMap) {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return };
    if !accept.contains(PROTOBUF) {
        return;
    }
    let is_object = |clause: &&str| clause.contains(PROTOBUF) && !clause.contains("as=");
    let kept: Vec<&str> = accept.split(',').filter(|clause| !is_object(clause)).collect();
    let kept = if kept.is_empty() { NOTHING.to_owned() } else { kept.join(",") };
    if let Ok(value) = HeaderValue::from_str(&kept) {
        headers.insert(ACCEPT, value);
    }
}

/// Serves a request for a custom resource.
pub(crate) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
    version: &CustomVersion,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let info = &ctx.info;
    let is_anywhere = matches!(info.verb.as_str(), "list" | "watch");
    let fits_scope = match resource.definition.namespaced {
        true => !info.namespace.is_empty() || is_anywhere,
        false => info.namespace.is_empty(),
    };
    if !fits_scope {
        return Ok(no_such_path());
    }
    let definition = version.definition();
    let group = &version.kind.definition.spec.group;
    if let Some(text) = definition.and_then(|v| v.warning(group, &resource.gvk.kind)) {
        ctx.warn(text);
        crate::metrics::deprecated(ctx);
    }
    check_accept(ctx)?;
    match info.subresource.as_str() {
        "" => main(request, resource, version).await,
        sub if resource.definition.subresource(sub).is_none() => {
            Err(errors::not_found(&resource.group_resource(), &info.name))
        }
        _ if !matches!(info.verb.as_str(), "get" | "update" | "patch") => {
            Err(errors::method_not_allowed(&resource.group_resource(), &info.verb))
        }
        "scale" => scale::serve(request, resource, version).await,
        _ => match info.verb.as_str() {
            "get" => verbs::get::get(ctx, resource).await,
            "update" => verbs::update::update(request, resource, Part::Status).await,
            _ => patch(request, resource, Part::Status).await,
        },
    }
}

async fn main(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
    version: &CustomVersion,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let info = &ctx.info;
    let is_named = !info.name.is_empty();
    match info.verb.as_str() {
        "get" => verbs::get::get(ctx, resource).await,
        "list" => verbs::list::list(ctx, resource).await,
        "watch" => verbs::watch::watch(ctx, resource).await,
        "create" if version.kind.is_terminating() => {
            let mut status = errors::method_not_allowed(&resource.group_resource(), "create");
            "create not allowed while custom resource definition is terminating"
                .clone_into(&mut status.message);
            Err(status)
        }
        "create" => verbs::create::create(request, resource).await,
        "update" | "patch" if !is_named => Err(errors::bad_request("name must be provided")),
        "update" => verbs::update::update(request, resource, Part::Main).await,
        "patch" => patch(request, resource, Part::Main).await,
        "delete" => verbs::delete::delete(request, resource).await,
        "deletecollection" => verbs::delete_collection::delete_collection(request, resource).await,
        verb => Err(errors::method_not_allowed(&resource.group_resource(), verb)),
    }
}

async fn patch(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
    part: Part,
) -> Result<Response<Body>, Status> {
    check_patch(&request.ctx.headers)?;
    verbs::patch::patch(request, resource, part).await
}

/// There is no strategic merge without tags in Go's types.
pub(crate) fn check_patch(headers: &HeaderMap) -> Result<(), Status> {
    if !matches!(PatchType::read(headers), Ok(PatchType::Strategic) | Err(_)) {
        return Ok(());
    }
    Err(Status::failure(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    ))
}

fn check_accept(ctx: &RequestContext) -> Result<(), Status> {
    let nothing = ctx.headers.get(ACCEPT).is_some_and(|value| value == NOTHING);
    if !nothing {
        return Ok(());
    }
    let list = if ctx.info.name.is_empty() { "List" } else { "" };
    Err(Status::failure(
        Reason::NotAcceptable,
        format!(
            "object *unstructured.Unstructured{list} does not implement the protobuf marshalling \
             interface and cannot be encoded to a protobuf message"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &'static str, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        without_protobuf(&mut headers);
        assert_eq!(headers[ACCEPT], expected);
    }

    #[test]
    fn only_objects_have_no_protobuf() {
        check("application/vnd.kubernetes.protobuf,application/json", "application/json");
        check("application/vnd.kubernetes.protobuf", NOTHING);
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        );
    }
}
