//! `serviceaccounts/token`: a signed token, bound to a pod, secret or node.

use authn::{Bound, Claims};
use http::{Response, StatusCode};
use meta::{Cause, GroupResource, GroupVersionKind, Status};
use serde_json::{Value, json};

use crate::context::{RequestContext, WriteRequest};
use crate::decode;
use crate::errors;
use crate::negotiate::{Shape, form};
use crate::render;
use crate::resources::Resource;
use crate::write;
use connection::Body;

/// Upstream's bounds and default of a token's life.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;
/// Tokens of exactly this life are those kubelets mount; upstream extends them to a year, so that
/// old clients that never read them again go on working.
const MOUNTED_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Upstream's audit annotation by which a token is found again that was used.
const ISSUED: &str = "authentication.kubernetes.io/issued-credential-identifier";

pub(super) async fn create(
    request: &WriteRequest<'_>,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let gvk = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let Some(ty) = schema::registry().kind(&gvk) else {
        return Err(errors::internal("no table for TokenRequest"));
    };
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    let decoded = decode::body(ctx, &request.body, &gvk, ty, validation)?;
    let mut token = decoded.value;
    let form = form(&ctx.headers, &ctx.query, &[Shape::Object])?;
    ctx.server.pump.fresh().await?;
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    super::admit_created(ctx, resource, name, ctx.is_dry_run()?, &mut token)?;
    let account = ctx.server.find("", "serviceaccounts", namespace, name);
    let account = account.ok_or_else(|| errors::not_found(&resource.group_resource(), name))?;
    let seconds = token.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
    let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
    check_seconds(seconds)?;
    let now = ctx.server.clock.now().as_second();
    let is_mounted = seconds == MOUNTED_SECONDS && token.pointer("/spec/boundObjectRef").is_some();
    let life = if is_mounted { EXTENDED_SECONDS } else { seconds };
    let audiences: Vec<String> = token["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let audiences = if audiences.is_empty() {
        ctx.server.authenticator.audiences().to_vec()
    } else {
        audiences
    };
    let bound = Bound { name: name.clone(), uid: account.header().uid.clone() };
    let id = uuid::Uuid::new_v4().to_string();
    let issuer = &ctx.server.config.issuer;
    let mut claims =
        Claims::new(issuer, namespace, bound, audiences.clone(), (now, life), id.clone());
    bind(ctx, &token, &mut claims)?;
    let signed = ctx.server.signer.sign(&claims).map_err(errors::internal)?;
    ctx.annotate(ISSUED, || format!("JTI={id}"));
    let expires = jiff::Timestamp::from_second(now + seconds).map_err(errors::internal)?;
    token["metadata"] = json!({"name": name, "namespace": namespace,
        "uid": uuid::Uuid::new_v4().to_string(),
        "creationTimestamp": meta::time::rfc3339(ctx.server.clock.now())});
    token["spec"]["audiences"] = json!(audiences);
    token["spec"]["expirationSeconds"] = json!(seconds);
    token["status"] = json!({"token": signed, "expirationTimestamp": meta::time::rfc3339(expires)});
    Ok(render::value(StatusCode::CREATED, &gvk, &token, form))
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let why = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {seconds}: {why}"),
        field: "spec.expirationSeconds".to_owned(),
    };
    Err(errors::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]))
}

fn bind(ctx: &RequestContext, token: &Value, claims: &mut Claims) -> Result<(), Status> {
    let Some(reference) = token.pointer("/spec/boundObjectRef") else { return Ok(()) };
    let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let (resource, namespace) = match (kind.as_str(), text("apiVersion").as_str()) {
        ("Pod", "v1") => ("pods", ctx.info.namespace.as_str()),
        ("Secret", "v1") => ("secrets", ctx.info.namespace.as_str()),
        ("Node", "v1") => ("nodes", ""),
        (kind, version) => {
            return Err(errors::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to object of type {}",
                ctx.info.name,
                GroupVersionKind::new("", version, kind)
            )));
        }
    };
    let of = GroupResource { group: String::new(), resource: resource.to_owned() };
    let object = ctx.server.find("", resource, namespace, &name);
    let object = object.ok_or_else(|| errors::not_found(&of, &name))?;
    let found = &object.header().uid;
    if !uid.is_empty() && uid != *found {
        let of = GroupResource { group: String::new(), resource: kind };
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        );
        return Err(errors::conflict(&of, &name, &why));
    }
    let bound = Bound { name: name.clone(), uid: found.clone() };
    match resource {
        "secrets" => claims.kubernetes.secret = Some(bound),
        "nodes" => claims.kubernetes.node = Some(bound),
        _ => {
            let pod: Value = object.decode().map_err(errors::internal)?;
            let account = write::text(&pod, "/spec/serviceAccountName");
            if account != ctx.info.name {
                return Err(errors::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different \
                     serviceaccount name.",
                    ctx.info.name
                )));
            }
            let node = write::text(&pod, "/spec/nodeName");
            if let Some(node) = ctx.server.find("", "nodes", "", &node) {
                let uid = node.header().uid.clone();
                claims.kubernetes.node = Some(Bound { name: node.header().name.clone(), uid });
            }
            claims.kubernetes.pod = Some(bound);
        }
    }
    Ok(())
}
