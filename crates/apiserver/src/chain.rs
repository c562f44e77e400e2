//! The way of a request: who, whether, what, answer.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use authn::{Impersonation, UserInfo};
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use meta::{Reason, Status};

use crate::context::{RequestContext, WriteRequest};
use crate::errors;
use crate::metrics;
use crate::negotiate;
use crate::non_resource::no_such_path;
use crate::query::Query;
use crate::render;
use crate::request_info::RequestInfo;
use crate::resources::Resource;
use crate::server::Server;
use crate::subresources;
use crate::verbs;
use crate::websocket;
use crate::write::Part;
use crate::{aggregation, audit, custom, discovery, legacy_tokens, non_resource, proxy, traffic};
use connection::compress;
use connection::{Body, RequestBody};

/// Whatever can be upgraded to another protocol, for exec and the like.
pub(crate) type OnUpgrade = Option<hyper::upgrade::OnUpgrade>;

/// Who is at the other end of a connection.
pub(crate) struct Connected {
    pub(crate) address: IpAddr,
    pub(crate) peer: authn::Peer,
}

/// A request from a connection: authenticates, then serves.
pub(crate) async fn serve_connection(
    server: Arc<Server>,
    connected: Arc<Connected>,
    mut request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let now = server.clock.now().as_second();
    let authenticator = &server.authenticator;
    let authenticated = authenticator.authenticate(&connected.peer, &parts.headers, now);
    if authenticated.is_ok() {
        authenticator.strip(&mut parts.headers);
    }
    parts.extensions.insert(audit::Peer(connected.address));
    let compresses = compress::is_accepted(&parts.method, &parts.headers)
        && server.config.features.is_enabled("APIResponseCompression");
    let mut request = Request::from_parts(parts, RequestBody::Incoming(body));
    match authenticated {
        Ok(authenticated) => {
            if let Some(used) = authenticated.legacy {
                legacy_tokens::label(&server, &used).await;
                request.extensions_mut().insert(used);
            }
            let is_kept = outlives_connection(&request);
            let served = serve(server, authenticated.user, request, Some(upgrade));
            let response = if is_kept { kept(served).await } else { served.await };
            if compresses { compress::large(response) } else { response }
        }
        Err(unauthenticated) => {
            if let Some(used) = unauthenticated.legacy {
                legacy_tokens::label(&server, &used).await;
            }
            let (parts, body) = request.into_parts();
            drain(&server, body).await;
            unauthorized(&server, &parts).await
        }
    }
}

async fn unauthorized(server: &Arc<Server>, parts: &Parts) -> Response<Body> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let form = negotiate::error_form(&parts.headers, &query);
    let status = Status::failure(Reason::Unauthorized, "Unauthorized");
    let audit_id = audit::id(&parts.headers);
    audit::unauthorized(server, parts, &query, &audit_id, &status).await;
    let mut response = render::status(&status, form);
    response.headers_mut().insert(audit::HEADER, audit_id);
    response
}

/// Whether a request goes on when its client does not wait for it. Writes of services take
/// addresses and ports before they are stored, and have to say what became of them.
fn outlives_connection<T>(request: &Request<T>) -> bool {
    *request.method() != Method::GET && request.uri().path().contains("/services")
}

async fn kept(served: impl Future<Output = Response<Body>> + Send + 'static) -> Response<Body> {
    match stdx::task::spawn("request", served).await {
        Ok(Some(response)) => response,
        // It is `serve` that catches panics.
        _ => render::status(&errors::internal("the request was given up"), negotiate::Form::JSON),
    }
}

/// A request of a known user.
pub(crate) async fn serve(
    server: Arc<Server>,
    user: UserInfo,
    request: Request<RequestBody>,
    upgrade: OnUpgrade,
) -> Response<Body> {
    let started = server.clock.monotonic();
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
    let audit_id = audit::id(&parts.headers);
    let audit = audit::begin(&server, &parts, &user, &info, &audit_id);
    if let Some(audit) = &audit
        && audit.received().await.is_err()
    {
        drain(&server, body).await;
        return audit::not_stored(&parts.uri, audit_id);
    }
    let address = audit::peer(&parts);
    let mut ctx = RequestContext::new(server, user, parts.method, info, query, parts.headers);
    ctx.address = address;
    ctx.lane = parts.extensions.get().cloned();
    ctx.audit.clone_from(&audit);
    ctx.audit_id.clone_from(&audit_id);
    if let Some(used) = parts.extensions.get::<authn::LegacyUse>() {
        ctx.note_legacy(used);
    }
    let handled = std::panic::AssertUnwindSafe(handle(ctx, body, upgrade)).catch_unwind().await;
    let (ctx, result) = match handled {
        Ok(handled) => handled,
        Err(_) => return panicked(audit, audit_id).await,
    };
    drop(audit);
    let mut response = result.unwrap_or_else(|status| {
        render::status(&status, negotiate::error_form(&ctx.headers, &ctx.query))
    });
    add_headers(&ctx, response.headers_mut());
    response.headers_mut().insert(audit::HEADER, audit_id);
    metrics::record(&ctx, &response, started);
    let response = audit::answered(&ctx, response).await;
    metrics::hold(&ctx, response)
}

/// What every answer says beside.
fn add_headers(ctx: &RequestContext, headers: &mut HeaderMap) {
    for warning in ctx.warnings() {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            headers.append("warning", value);
        }
    }
    if let Some(flow) = &ctx.flow {
        let uids = [(SCHEMA_UID, flow.schema_uid()), (LEVEL_UID, flow.level_uid())];
        for (name, uid) in uids {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
    if !headers.contains_key("cache-control") {
        headers.insert("cache-control", HeaderValue::from_static("no-cache, private"));
    }
}

async fn panicked(
    audit: Option<Arc<::audit::AuditContext>>,
    audit_id: HeaderValue,
) -> Response<Body> {
    tracing::error!("a request handler panicked");
    let text = "This request caused apiserver to panic. Look in the logs for details.";
    if let Some(audit) = audit {
        audit.panicked(text).await;
    }
    let mut response = render::status(&errors::internal(text), negotiate::Form::JSON);
    response.headers_mut().insert(audit::HEADER, audit_id);
    response
}

/// Upstream's headers with the objects of flow control that a request was matched to.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

type Handled = (RequestContext, Result<Response<Body>, Status>);

async fn handle(mut ctx: RequestContext, body: RequestBody, upgrade: OnUpgrade) -> Handled {
    let is_foreign = ctx.info.is_resource && !discovery::is_built_in(&ctx.info.group);
    if is_foreign && aggregated(&ctx).is_none() {
        custom::requests::without_protobuf(&mut ctx.headers);
    }
    if let Err(status) = impersonate(&mut ctx) {
        drain(&ctx.server, body).await;
        return (ctx, Err(status));
    }
    let turn = ctx.server.clone();
    let Ok(permit) = turn.traffic.admit(&mut ctx).await else {
        drain(&ctx.server, body).await;
        return (ctx, Ok(traffic::too_many()));
    };
    if let Err(status) = authorize(&ctx) {
        drain(&ctx.server, body).await;
        return (ctx, Err(status));
    }
    let kind =
        if matches!(ctx.method, Method::GET | Method::HEAD) { "readOnly" } else { "mutating" };
    let counted = metrics::InFlight::new(&ctx.server.metrics, kind);
    let result = route(&ctx, body, upgrade).await;
    drop((counted, permit));
    (ctx, result)
}

/// Reads a body nobody wants, up to the limit of bodies: HTTP/1 would close the connection.
async fn drain(server: &Server, body: RequestBody) {
    // Whatever is wrong with it, the answer is decided.
    body.read(&server.clock, server.config.request_timeout).await.ok();
}

fn authorize(ctx: &RequestContext) -> Result<(), Status> {
    if non_resource::is_always_allowed(&ctx.info) {
        audit::authorized(ctx, true, "");
        return Ok(());
    }
    let attributes = ctx.info.attributes();
    let decision = ctx.server.authorizer.authorize(ctx.subject(), &attributes);
    audit::authorized(ctx, decision.is_allowed(), decision.reason());
    if decision.is_allowed() {
        return Ok(());
    }
    Err(authz::forbidden_status(&ctx.user.name, &attributes, decision.reason()))
}

fn impersonate(ctx: &mut RequestContext) -> Result<(), Status> {
    let wanted = Impersonation::from_headers(&ctx.headers)
        .map_err(|error| errors::bad_request(error.to_string()))?;
    let Some(wanted) = wanted else { return Ok(()) };
    let check = |group: &str, resource: &str, namespace: &str, name: &str| {
        let asked = authz::Attributes::resource("impersonate", group, resource, namespace, name);
        let decision = ctx.server.authorizer.authorize(ctx.subject(), &asked);
        if decision.is_allowed() {
            return Ok(());
        }
        Err(authz::forbidden_status(&ctx.user.name, &asked, decision.reason()))
    };
    let of_account = wanted.user.strip_prefix("system:serviceaccount:");
    match of_account.and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => check("", "serviceaccounts", namespace, name)?,
        None => check("", "users", "", &wanted.user)?,
    }
    for group in &wanted.groups {
        check("", "groups", "", group)?;
    }
    if let Some(uid) = &wanted.uid {
        check("authentication.k8s.io", "uids", "", uid)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            check("authentication.k8s.io", &format!("userextras/{key}"), "", value)?;
        }
    }
    ctx.user = wanted.into_user();
    if let Some(audit) = &ctx.audit {
        audit.impersonated(&ctx.user);
    }
    Ok(())
}

async fn route(
    ctx: &RequestContext,
    body: RequestBody,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, Status> {
    let info = &ctx.info;
    if let Some(backend) = aggregated(ctx) {
        return aggregation::serve(ctx, &backend, body, upgrade).await;
    }
    if !info.is_resource {
        drain(&ctx.server, body).await;
        if let Some(answer) = discovery::serve(ctx)? {
            return Ok(answer);
        }
        return non_resource::serve(ctx).await;
    }
    let own = info.path.strip_suffix(&info.rest).unwrap_or(&info.path);
    if own.contains("//") {
        drain(&ctx.server, body).await;
        return Err(errors::no_such_resource());
    }
    if proxy::is_long_running(info) {
        return proxy::serve(ctx, body, upgrade).await;
    }
    let is_local = matches!(body, RequestBody::Whole(_));
    let body = body.read(&ctx.server.clock, ctx.server.config.request_timeout).await?;
    if ctx.method == Method::HEAD {
        return Err(not_allowed());
    }
    let found = ctx.server.resources.get(&info.group, &info.version, &info.resource);
    let Some(resource) = found else {
        let is_ours = discovery::is_built_in(&info.group);
        return if is_ours { Err(errors::no_such_resource()) } else { Ok(no_such_path()) };
    };
    if let Some(warning) = deprecation(info) {
        ctx.warn(warning);
        metrics::deprecated(ctx);
    }
    let request = WriteRequest { ctx, body };
    if !ctx.server.is_ready.load(Ordering::Relaxed) && !ctx.user.is_in(UserInfo::MASTERS) {
        return Err(Status::failure(Reason::ServiceUnavailable, "the server is starting"));
    }
    // Its body is here: from now on it is the processors that it needs.
    let mut work = pin!(work(&request, &resource));
    let answer = match is_local {
        true => work.as_mut().await?,
        false => ctx.server.traffic.work(ctx, work.as_mut()).await?,
    };
    if info.verb == "watch" && websocket::is_asked(&ctx.headers) {
        return watch_by_websocket(ctx, upgrade, answer);
    }
    Ok(answer)
}

async fn work(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    if !request.ctx.info.subresource.is_empty() && resource.custom.is_none() {
        return subresources::serve(request, resource).await;
    }
    match &resource.custom {
        Some(version) => custom::requests::serve(request, resource, version).await,
        None => dispatch(request, resource).await,
    }
}

/// The other server that everything under a group and version is for, if there is one.
fn aggregated(ctx: &RequestContext) -> Option<Arc<aggregation::Backend>> {
    // Documents of an API come from whom the API is.
    let path = ctx.info.path.strip_prefix("/openapi/v3").unwrap_or(&ctx.info.path);
    let mut parts = path.strip_prefix("/apis/")?.splitn(3, '/');
    let (group, version) = (parts.next()?, parts.next()?);
    ctx.server.backends.find(group, version)
}

/// Browsers cannot read an answer while it comes; a websocket they can.
fn watch_by_websocket(
    ctx: &RequestContext,
    upgrade: OnUpgrade,
    answer: Response<Body>,
) -> Result<Response<Body>, Status> {
    let content_type = answer.headers().get("content-type").map(HeaderValue::as_bytes);
    let is_text = content_type.is_some_and(|media| media.starts_with(b"application/json"));
    let framing = if is_text { websocket::Framing::Text } else { websocket::Framing::Binary };
    websocket::carry(ctx, upgrade, answer.into_body(), framing, None)
}

/// What upstream says about resources that are going away.
fn deprecation(info: &RequestInfo) -> Option<&'static str> {
    match (info.group.as_str(), info.resource.as_str()) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

async fn dispatch(
    request: &WriteRequest<'_>,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let info = &ctx.info;
    let verb = info.verb.as_str();
    if resource.storage.is_none() {
        return subresources::serve_virtual(request, resource).await;
    }
    let is_served = resource.definition.verbs.contains(&verb);
    let is_about_one = !info.name.is_empty();
    let fits = match verb {
        "get" | "update" | "patch" | "delete" => is_about_one,
        "create" => !is_about_one,
        _ => true,
    };
    if !is_served || !fits || !path_fits(ctx, resource) {
        return Err(not_allowed());
    }
    match verb {
        "get" => verbs::get::get(ctx, resource).await,
        "list" => verbs::list::list(ctx, resource).await,
        "watch" => verbs::watch::watch(ctx, resource).await,
        "create" => verbs::create::create(request, resource).await,
        "update" => verbs::update::update(request, resource, Part::Main).await,
        "patch" => verbs::patch::patch(request, resource, Part::Main).await,
        "delete" => verbs::delete::delete(request, resource).await,
        "deletecollection" => verbs::delete_collection::delete_collection(request, resource).await,
        _ => Err(not_allowed()),
    }
}

/// Whether the path has a namespace where one is needed, and none where none is allowed.
fn path_fits(ctx: &RequestContext, resource: &Resource) -> bool {
    let info = &ctx.info;
    if !resource.definition.namespaced {
        return info.namespace.is_empty() || info.resource == "namespaces";
    }
    let is_collection = matches!(info.verb.as_str(), "list" | "watch");
    is_collection || !info.namespace.is_empty()
}

/// 405 as upstream's router gives it.
pub(crate) fn not_allowed() -> Status {
    Status::failure(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
    .with_details(meta::StatusDetails::default())
}
