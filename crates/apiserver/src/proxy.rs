//! Requests that end elsewhere: at a node's kubelet, at a pod, behind a service.
//!
//! An answer that switches protocols becomes a tunnel: bytes go both ways untouched, be they
//! websocket frames or SPDY.

mod dial;
mod links;
mod page;
mod target;

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};

use crate::chain::OnUpgrade;
use crate::context::RequestContext;
use crate::metrics::Held;
use crate::render::respond;
use crate::request_info::RequestInfo;
use crate::webhook;
use crate::websocket;
use connection::{Body, RequestBody, outbound};

use dial::dial;
use links::Prefix;
use target::{Target, find};

pub(crate) use target::service_endpoint;

const FORWARDED_FOR: &str = "x-forwarded-for";

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
    let changed = webhook::connect(ctx).await?;
    let target = find(ctx, changed.as_ref())?;
    if let Some(redirect) = to_slash(ctx) {
        return Ok(redirect);
    }
    // A log is a stream of bytes for the kubelet, whatever it is for the client.
    let is_framed = ctx.info.subresource == "log" && websocket::is_asked(&ctx.headers);
    let framing = is_framed.then(|| websocket::log_framing(&ctx.headers)).transpose()?;
    let mut response = forward(ctx, &target, body, framing.is_some()).await?;
    if let (Some((framing, protocol)), StatusCode::OK) = (framing, response.status()) {
        let body = Body::Incoming(response.into_body());
        return websocket::carry(ctx, upgrade, body, framing, protocol);
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(response.headers_mut());
        if ctx.info.subresource == "proxy" {
            return Ok(page::fit(&ctx.method, response, prefix(ctx, &target)));
        }
        let (parts, body) = response.into_parts();
        return Ok(Response::from_parts(parts, Body::Incoming(body)));
    }
    tunnel(ctx, upgrade, response)
}

/// Joins a client that switches protocols with who has agreed to.
pub(crate) fn tunnel(
    ctx: &RequestContext,
    upgrade: OnUpgrade,
    mut response: Response<hyper::body::Incoming>,
) -> Result<Response<Body>, Status> {
    let Some(client) = upgrade else {
        return Err(Status::failure(
            Reason::BadRequest,
            "this request must come over a connection of its own",
        ));
    };
    let backend = hyper::upgrade::on(&mut response);
    let (parts, _) = response.into_parts();
    let shutdown = ctx.server.shutdown.clone();
    let held = Held::of(ctx);
    drop(stdx::task::spawn("apiserver tunnel", async move {
        let _held = held;
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

/// Relative links of a page work only when its path ends in a slash.
fn to_slash(ctx: &RequestContext) -> Option<Response<Body>> {
    let is_read = matches!(ctx.method, Method::GET | Method::HEAD);
    let is_bare = ctx.info.subresource == "proxy" && ctx.info.rest.is_empty();
    if !is_read || !is_bare || ctx.headers.contains_key(UPGRADE) {
        return None;
    }
    let query = ctx.query.raw();
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let location = format!("{}/{query}", ctx.info.path);
    let mut response =
        respond(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", Body::empty());
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).ok()?);
    Some(response)
}

/// What the paths of the backend begin with for the client.
fn prefix(ctx: &RequestContext, target: &Target) -> Prefix {
    let own = host(ctx).map(str::to_owned).unwrap_or_default();
    Prefix::new(&ctx.info.path, &ctx.info.rest, [target.authority(), own])
}

/// The name under which the client reaches this server.
fn host(ctx: &RequestContext) -> Option<&str> {
    ctx.headers.get(HOST).and_then(|value| value.to_str().ok())
}

async fn forward(
    ctx: &RequestContext,
    target: &Target,
    body: RequestBody,
    is_plain: bool,
) -> Result<Response<hyper::body::Incoming>, Status> {
    let stream = dial(ctx, target).await?;
    let mut headers = ctx.headers.clone();
    let upgrades = headers.get(UPGRADE).filter(|_| !is_plain).cloned();
    strip_hop_by_hop(&mut headers);
    add_forwarded_for(&mut headers, ctx.address);
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
    if ctx.info.subresource == "proxy" {
        let uri = format!("{}{}", prefix(ctx, target).path(), ctx.info.rest);
        if let Ok(uri) = HeaderValue::from_str(&uri) {
            headers.insert("x-forwarded-uri", uri);
        }
    }
    // A backend that goes by names is asked under the one that the client used.
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&target.authority())
    {
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
    outbound::send(stream, request).await.map_err(|error| {
        let message = format!("error trying to reach service: {}", telemetry::Chain(&error));
        Status::failure(Reason::ServiceUnavailable, message)
    })
}

/// Tells the other side for whom it is asked, after those who were already told.
pub(crate) fn add_forwarded_for(headers: &mut HeaderMap, address: IpAddr) {
    let told = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<String> = told.map(str::to_owned).chain([address.to_string()]).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Headers that are about one connection only: the known ones, and those that it names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
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
