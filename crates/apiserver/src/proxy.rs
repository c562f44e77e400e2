//! Requests that end elsewhere: at a node's kubelet, at a pod, behind a service.
//!
//! An answer that switches protocols becomes a tunnel: bytes go both ways untouched, be they
//! websocket frames or SPDY.

mod dial;
mod target;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};

use crate::body::{Body, RequestBody};
use crate::chain::OnUpgrade;
use crate::context::RequestContext;
use crate::request_info::RequestInfo;
use crate::webhook;

use dial::dial;
use target::{Target, find};

pub(crate) use target::ready_endpoint;

/// Whether the request is for somebody else, and may last.
pub(crate) fn is_long_running(info: &RequestInfo) -> bool {
    info.is_resource
        && info.group.is_empty()
        && matches!(
            (info.resource.as_str(), info.subresource.as_str()),
            ("pods", "log" | "exec" | "attach" | "portforward" | "proxy")
                | ("services" | "nodes", "proxy")
        )
}

/// Forwards a request and its answer.
pub(crate) async fn serve(
    ctx: &RequestContext,
    body: RequestBody,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, Status> {
    ctx.server.pump.fresh().await?;
    webhook::connect(ctx).await?;
    let target = find(ctx)?;
    let mut response = forward(ctx, &target, body).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        return Ok(Response::from_parts(parts, Body::Incoming(body)));
    }
    let Some(client) = upgrade else {
        return Err(Status::failure(
            Reason::BadRequest,
            "this request must come over a connection of its own",
        ));
    };
    let backend = hyper::upgrade::on(&mut response);
    let (parts, _) = response.into_parts();
    let shutdown = ctx.server.shutdown.clone();
    drop(stdx::task::spawn("apiserver tunnel", async move {
        let (Ok(client), Ok(backend)) = (client.await, backend.await) else { return };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut backend) => {
                // Either side may simply go away.
                if let Err(error) = copied {
                    tracing::debug!(%error, "a tunnel broke");
                }
            }
            () = shutdown.begun() => {}
        }
    }));
    Ok(Response::from_parts(parts, Body::empty()))
}

async fn forward(
    ctx: &RequestContext,
    target: &Target,
    body: RequestBody,
) -> Result<Response<hyper::body::Incoming>, Status> {
    let stream = dial(ctx, target).await?;
    let unreachable = |error: hyper::Error| {
        let message = format!("error trying to reach service: {}", telemetry::Chain(&error));
        Status::failure(Reason::ServiceUnavailable, message)
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(unreachable)?;
    drop(stdx::task::spawn("apiserver proxy connection", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    }));
    let mut headers = ctx.headers.clone();
    let upgrades = headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut headers);
    // Credentials are for this server alone.
    headers.remove("authorization");
    for name in headers.keys().cloned().collect::<Vec<_>>() {
        if name.as_str().starts_with("impersonate-") {
            headers.remove(name);
        }
    }
    if let Some(protocol) = upgrades {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if let Ok(host) = HeaderValue::from_str(&target.authority()) {
        headers.insert(HOST, host);
    }
    let uri: Uri = target
        .path_and_query
        .parse()
        .map_err(|_| Status::failure(Reason::BadRequest, "the path cannot be forwarded"))?;
    let body = match body {
        RequestBody::Whole(bytes) => bytes.into(),
        RequestBody::Incoming(incoming) => Body::Incoming(incoming),
    };
    let mut request = Request::new(body);
    *request.method_mut() = ctx.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    sender.send_request(request).await.map_err(unreachable)
}

/// Headers that are about one connection only.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
}
