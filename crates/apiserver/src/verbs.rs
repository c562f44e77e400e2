//! The verbs on resources, one per file.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;

use http::{Response, StatusCode};
use meta::Status;

use crate::body::Body;
use crate::context::RequestContext;
use crate::negotiate::{Form, Shape, form};
use crate::render::{self, TableOptions};
use crate::resources::Resource;
use crate::table::Include;
use crate::write::Written;

const SHAPES: [Shape; 3] = [Shape::Object, Shape::Table, Shape::Metadata];

/// The form the client wants objects in.
pub(crate) fn object_form(ctx: &RequestContext) -> Result<Form, Status> {
    form(&ctx.headers, &ctx.query, &SHAPES)
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
