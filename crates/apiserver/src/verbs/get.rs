//! GET of one object.

use http::{Response, StatusCode};
use meta::Status;

use super::{object_form, table_options};
use crate::context::RequestContext;
use crate::custom::convert;
use crate::errors;
use crate::render;
use crate::resources::Resource;
use crate::verbs::list::parse_version;
use crate::write::storage;
use connection::Body;

pub(crate) async fn get(
    ctx: &RequestContext,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let storage = storage(resource)?;
    let form = object_form(ctx)?;
    match ctx.query.non_empty("resourceVersion") {
        None => {
            ctx.server.pump.fresh().await?;
        }
        Some(text) => ctx.server.pump.reach(parse_version(text)?).await?,
    }
    let key = storage.cache_key(&ctx.info.namespace, &ctx.info.name);
    let found = storage.cache.get(&key);
    let object =
        found.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
    let object = convert::presented_one(&ctx.server, resource, object).await?;
    Ok(render::object(StatusCode::OK, resource, &object, form, table_options(ctx)))
}
