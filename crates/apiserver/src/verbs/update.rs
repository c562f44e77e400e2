//! PUT of an object or its status.

use http::Response;
use meta::Status;

use super::{answer, object_form};
use crate::body::Body;
use crate::context::WriteRequest;
use crate::decode;
use crate::resources::Resource;
use crate::write::{self, Part, Update};

pub(crate) async fn update(
    request: &WriteRequest<'_>,
    resource: &Resource,
    part: Part,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let is_dry_run = ctx.is_dry_run()?;
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    let decoded =
        decode::body(&ctx.headers, &request.body, &resource.gvk, resource.ty, validation)?;
    decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part,
        is_dry_run,
        may_create: part == Part::Main,
    };
    let change = |_: Option<&serde_json::Value>| Ok(decoded.value.clone());
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}
