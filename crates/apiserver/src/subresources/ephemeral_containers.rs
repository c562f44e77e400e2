//! `pods/ephemeralcontainers` and `pods/resize`: the parts of a running pod that may change.

use http::Response;
use meta::Status;
use serde_json::Value;

use crate::audit;
use crate::context::WriteRequest;
use crate::decode;
use crate::errors;
use crate::options::WriteOptions;
use crate::resources::Resource;
use crate::verbs::apply::applied;
use crate::verbs::patch::{Patch, PatchType};
use crate::verbs::{self, answer, object_form};
use crate::write::{self, Creates, Part, Update};
use connection::Body;

pub(super) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    if ctx.info.verb == "get" {
        return verbs::get::get(ctx, resource).await;
    }
    let form = object_form(ctx)?;
    let source = Source::read(request)?;
    let options = source.options();
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part: Part::Spec,
        is_dry_run: options.is_dry_run,
        creates: Creates::Never,
        manager: source.manager(),
    };
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let given = source.read_pod(request, resource, old)?;
        let mut new = old.clone();
        for field in ["resourceVersion", "uid", "managedFields"] {
            crate::strategy::keep_old(&mut new["metadata"], &given["metadata"], field);
        }
        if ctx.info.subresource == "resize" {
            resize(&mut new, &given);
        } else {
            crate::strategy::keep_old(&mut new["spec"], &given["spec"], "ephemeralContainers");
        }
        Ok(new)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}

/// Where the pod that the client wants comes from.
enum Source {
    Put(WriteOptions),
    Patch(PatchType, WriteOptions),
}

impl Source {
    fn read(request: &WriteRequest<'_>) -> Result<Self, Status> {
        let ctx = request.ctx;
        if ctx.info.verb != "patch" {
            return Ok(Self::Put(WriteOptions::read(ctx)?));
        }
        let patch_type = PatchType::read(&ctx.headers)?;
        let options = WriteOptions::of_patch(ctx, patch_type == PatchType::Apply)?;
        audit::requested_patch(ctx, patch_type, &request.body);
        Ok(Self::Patch(patch_type, options))
    }

    fn options(&self) -> &WriteOptions {
        match self {
            Self::Put(options) | Self::Patch(_, options) => options,
        }
    }

    /// Who owns what changes, unless applying has said so.
    fn manager(&self) -> Option<&str> {
        match self {
            Self::Patch(PatchType::Apply, _) => None,
            Self::Put(options) | Self::Patch(_, options) => Some(&options.manager),
        }
    }

    /// The pod that the client wants.
    fn read_pod(
        &self,
        request: &WriteRequest<'_>,
        resource: &Resource,
        old: &Value,
    ) -> Result<Value, Status> {
        let ctx = request.ctx;
        let (ty, gvk) = (resource.ty, &resource.gvk);
        match self {
            Self::Put(options) => {
                let validation = options.validation;
                Ok(decode::body(ctx, &request.body, gvk, ty, validation)?.value)
            }
            Self::Patch(PatchType::Apply, options) => {
                applied(ctx, resource, options, Some(old), &request.body)
            }
            Self::Patch(patch_type, options) => {
                let (patch_type, validation) = (*patch_type, options.validation);
                let (body, name) = (&request.body, ctx.info.name.as_str());
                let patch = Patch { patch_type, body, name, validation };
                Ok(patch.apply(ty, gvk, old)?.value)
            }
        }
    }
}

/// Only resources and their resize policies change, container by container. Containers that are
/// not the pod's, or missing, are for validation to refuse.
fn resize(pod: &mut Value, given: &Value) {
    for list in ["containers", "initContainers"] {
        let had = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let Some(mut wanted) = given["spec"][list].as_array().cloned() else { continue };
        for container in &mut wanted {
            let Some(before) = had.iter().find(|had| had["name"] == container["name"]) else {
                continue;
            };
            let given = std::mem::replace(container, before.clone());
            for field in ["resources", "resizePolicy"] {
                crate::strategy::keep_old(container, &given, field);
            }
        }
        pod["spec"][list] = Value::Array(wanted);
    }
    crate::strategy::keep_old(&mut pod["spec"], &given["spec"], "resources");
}
