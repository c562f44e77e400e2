//! `certificatesigningrequests/approval`.

use http::Response;
use meta::{GroupResource, Status};
use serde_json::Value;

use crate::body::Body;
use crate::context::{RequestContext, WriteRequest};
use crate::decode;
use crate::errors;
use crate::options::WriteOptions;
use crate::resources::Resource;
use crate::strategy::apply_approval;
use crate::verbs::{self, answer, object_form};
use crate::write::{self, Creates, Part, Update};

pub(super) async fn serve(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    if ctx.info.verb != "get" {
        check_signer(ctx, "approve")?;
    }
    match ctx.info.verb.as_str() {
        "get" => return verbs::get::get(ctx, resource).await,
        "patch" => return verbs::patch::patch(request, resource, Part::Exact).await,
        _ => {}
    }
    let form = object_form(ctx)?;
    let options = WriteOptions::read(ctx)?;
    let validation = options.validation;
    let given =
        decode::body(&ctx.headers, &request.body, &resource.gvk, resource.ty, validation)?.value;
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

/// Approving and signing also need the permission to do so for the signer of the request.
///
/// Upstream: `plugin/pkg/admission/certificates/{approval,signing}`.
pub(super) fn check_signer(ctx: &RequestContext, verb: &str) -> Result<(), Status> {
    let group = "certificates.k8s.io";
    let found = ctx.server.find(group, "certificatesigningrequests", "", &ctx.info.name);
    // What is not there is for the write to refuse.
    let Some(found) = found else { return Ok(()) };
    let csr: Value = found.decode().map_err(errors::internal)?;
    let signer = write::text(&csr, "/spec/signerName");
    let domain = signer.split_once('/').map_or(signer.as_str(), |(domain, _)| domain);
    let may = |name: &str| {
        let asked = authz::Attributes::resource(verb, group, "signers", "", name);
        ctx.server.authorizer.authorize(ctx.subject(), &asked).is_allowed()
    };
    if may(&signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    let resource = GroupResource {
        group: group.to_owned(),
        resource: "certificatesigningrequests".to_owned(),
    };
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(errors::forbidden(&resource, &ctx.info.name, &why))
}
