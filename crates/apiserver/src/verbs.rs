//! The verbs on resources, one per file.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod list_options;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;

use http::{Response, StatusCode};
use meta::Status;

use crate::context::RequestContext;
use crate::decode::go_type;
use crate::negotiate::{self, Form, Shape};
use crate::render::{self, TableOptions};
use crate::resources::Resource;
use crate::table::Include;
use crate::write::Written;
use connection::Body;

const SHAPES: [Shape; 3] = [Shape::Object, Shape::Table, Shape::Metadata];

/// The form the client wants objects in.
pub(crate) fn object_form(ctx: &RequestContext) -> Result<Form, Status> {
    let form = negotiate::form(&ctx.headers, &ctx.query, &SHAPES)?;
    if form.names_list {
        let info = &ctx.info;
        let found = ctx.server.resources.get(&info.group, &info.version, &info.resource);
        let name = found.map(|resource| go_type(&resource.gvk, "")).unwrap_or_default();
        negotiate::check_metadata(form, false, &name)?;
    }
    Ok(form)
}

/// The form the client wants a list in.
pub(crate) fn list_form(ctx: &RequestContext, resource: &Resource) -> Result<Form, Status> {
    let form = negotiate::list_form(&ctx.headers, &ctx.query, &SHAPES)?;
    negotiate::check_metadata(form, true, &go_type(&resource.gvk, "List"))?;
    Ok(form)
}

/// The form the client wants the objects of a watch in.
pub(crate) fn watch_form(ctx: &RequestContext) -> Result<Form, Status> {
    negotiate::list_form(&ctx.headers, &ctx.query, &SHAPES)
}

/// What tables need.
pub(crate) fn table_options(ctx: &RequestContext) -> TableOptions {
    TableOptions {
        include: Include::parse(ctx.query.get("includeObject")),
        now: ctx.server.clock.now(),
    }
}

/// The answer to a write.
pub(crate) fn answer(
    ctx: &RequestContext,
    resource: &Resource,
    written: &Written,
    form: Form,
) -> Response<Body> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    render::object(code, resource, &written.object, form, table_options(ctx))
}
