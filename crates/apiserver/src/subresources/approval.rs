//! `certificatesigningrequests/approval`.

use http::Response;
use meta::Status;
use serde_json::Value;

use crate::context::WriteRequest;
use crate::decode;
use crate::errors;
use crate::options::WriteOptions;
use crate::resources::Resource;
use crate::strategy::apply_approval;
use crate::verbs::{self, answer, object_form};
use crate::write::{self, Creates, Part, Update};
use connection::Body;

pub(super) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    match ctx.info.verb.as_str() {
        "get" => return verbs::get::get(ctx, resource).await,
        "patch" => return verbs::patch::patch(request, resource, Part::Exact).await,
        _ => {}
    }
    let form = object_form(ctx)?;
    let options = WriteOptions::read(ctx)?;
    let validation = options.validation;
    let given = decode::body(ctx, &request.body, &resource.gvk, resource.ty, validation)?.value;
    let update = Update {
        namespace: "",
        name: &ctx.info.name,
        part: Part::Exact,
        is_dry_run: options.is_dry_run,
        creates: Creates::Never,
        manager: Some(&options.manager),
    };
    let now = meta::time::rfc3339(ctx.server.clock.now());
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let mut new = given.clone();
        apply_approval(&mut new, old, &now);
        Ok(new)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}
