//! POST of an object.

use http::Response;
use meta::Status;

use super::{answer, object_form};
use crate::context::WriteRequest;
use crate::decode;
use crate::errors;
use crate::options::WriteOptions;
use crate::resources::Resource;
use crate::write::{self, Creation, Written};
use connection::Body;

/// Tries of a generated name that happens to be taken; upstream's.
const NAME_TRIES: usize = 8;

pub(crate) async fn create(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let form = object_form(request.ctx)?;
    let written = create_object(request, resource).await?;
    Ok(answer(request.ctx, resource, &written, form))
}

/// Decodes and creates.
pub(crate) async fn create_object(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Written, Status> {
    let ctx = request.ctx;
    let options = WriteOptions::read(ctx)?;
    let storage = write::storage(resource)?;
    if storage.is_namespaced && ctx.info.namespace.is_empty() {
        return Err(errors::method_not_allowed(&resource.group_resource(), "create"));
    }
    let decode = || decode::object(ctx, &request.body, resource, options.validation);
    let decoded = decode()?;
    decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
    let is_generated = write::text(&decoded.value, "/metadata/name").is_empty()
        && !write::text(&decoded.value, "/metadata/generateName").is_empty();
    let creation =
        Creation { is_dry_run: options.is_dry_run, manager: Some(options.manager.as_str()) };
    let mut result = write::create(ctx, resource, decoded.value, creation).await;
    let mut tries = 1;
    while is_generated
        && tries < NAME_TRIES
        && result.as_ref().is_err_and(|status| status.is(meta::Reason::AlreadyExists))
    {
        // So rare that reading the body once more costs less than a copy of every object.
        result = write::create(ctx, resource, decode()?.value, creation).await;
        tries += 1;
    }
    result
}
