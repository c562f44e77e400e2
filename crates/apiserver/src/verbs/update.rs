//! PUT of an object or its status.

use http::Response;
use meta::Status;

use super::{answer, object_form};
use crate::context::WriteRequest;
use crate::decode;
use crate::options::WriteOptions;
use crate::resources::Resource;
use crate::write::{self, Creates, Part, Update};
use connection::Body;

pub(crate) async fn update(
    request: &WriteRequest<'_>,
    resource: &Resource,
    part: Part,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let options = WriteOptions::read(ctx)?;
    let decoded = decode::object(ctx, &request.body, resource, options.validation)?;
    decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part,
        is_dry_run: options.is_dry_run,
        creates: if part == Part::Main { Creates::IfItsKindDoes } else { Creates::Never },
        manager: Some(&options.manager),
    };
    let change = |_: Option<&serde_json::Value>| Ok(decoded.value.clone());
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}
