//! `namespaces/finalize`: the only way to a namespace's own finalizers.

use http::Response;
use meta::Status;
use serde_json::Value;

use crate::context::WriteRequest;
use crate::decode;
use crate::errors;
use crate::options::WriteOptions;
use crate::resources::Resource;
use crate::verbs::{answer, object_form};
use crate::write::{self, Creates, Part, Update};
use connection::Body;

pub(super) async fn finalize(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let options = WriteOptions::read(ctx)?;
    let validation = options.validation;
    let given = decode::body(ctx, &request.body, &resource.gvk, resource.ty, validation)?.value;
    let name = match write::text(&given, "/metadata/name") {
        name if name.is_empty() => ctx.info.name.clone(),
        name => name,
    };
    let update = Update {
        namespace: "",
        name: &name,
        part: Part::Exact,
        is_dry_run: options.is_dry_run,
        creates: Creates::Never,
        manager: Some(&options.manager),
    };
    let change = |old: Option<&Value>| {
        let old = old.ok_or_else(|| errors::not_found(&resource.group_resource(), &name))?;
        let mut new = old.clone();
        for field in ["resourceVersion", "uid"] {
            match given["metadata"].get(field) {
                Some(value) => new["metadata"][field] = value.clone(),
                None => drop(crate::strategy::remove(&mut new["metadata"], field)),
            }
        }
        match given.pointer("/spec/finalizers") {
            Some(finalizers) => new["spec"]["finalizers"] = finalizers.clone(),
            None => drop(crate::strategy::remove(&mut new, "spec")),
        }
        Ok(new)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}
