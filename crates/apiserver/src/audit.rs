//! What is recorded of requests: which they are, what was sent and what was answered.
//!
//! The rules and the back ends are those of the crate `audit`; this says what a request of this
//! server is to them. Objects are recorded as upstream does: as they were decoded, with defaults,
//! before anybody changed them; patches as they came; answers as they are sent.
//!
//! Upstream: `apiserver/pkg/endpoints/filters/audit.go`, `apiserver/pkg/audit/request.go`.

use std::net::IpAddr;
use std::sync::Arc;

use audit::{Asked, AuditContext, Facts, Level, Media, ObjectReference, Recorded, ResponseStatus};
use authn::UserInfo;
use bytes::Bytes;
use connection::Body;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use meta::{GroupVersionKind, Object, Status};
use schema::Type;
use serde_json::Value;

use crate::context::{HERE, RequestContext};
use crate::negotiate;
use crate::query::Query;
use crate::render;
use crate::request_info::RequestInfo;
use crate::resources::Resource;
use crate::server::Server;
use crate::verbs;
use crate::verbs::patch::PatchType;

/// The header with the id of a request, in both directions.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("audit-id");

/// Upstream's limit of what is recorded of a user agent, and its mark on one that is longer.
const USER_AGENT_BYTES: usize = 1024;
const SHORTENED: &str = "...TRUNCATED";
/// A `Status` is small; what is longer is not looked into for being one.
const STATUS_BYTES: u64 = 64 << 10;

/// Where a request came from; among its extensions, when anything is recorded.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The id that the client chose, or a new one.
pub(crate) fn id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(HEADER).filter(|id| !id.is_empty());
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static(""))
    })
}

/// Begins to record a request, if it is one of those that are.
pub(crate) fn begin(
    server: &Arc<Server>,
    parts: &Parts,
    user: &UserInfo,
    info: &RequestInfo,
    audit_id: &HeaderValue,
) -> Option<Arc<AuditContext>> {
    let auditor = server.auditor.as_ref()?;
    let asked = asked(user, info);
    auditor.begin(&asked, is_long_running(info), || Facts {
        audit_id: String::from_utf8_lossy(audit_id.as_bytes()).into_owned(),
        request_uri: target(&parts.uri).to_owned(),
        verb: info.verb.clone(),
        user: user.clone(),
        source_ips: audit::source_ips(&parts.headers, Some(peer(parts))),
        user_agent: user_agent(&parts.headers),
        received: server.clock.now(),
    })
}

/// Begins to record a read of a component of this process, which has no HTTP about it.
pub(crate) fn begin_read(ctx: &RequestContext, target: &str) -> Option<Arc<AuditContext>> {
    let auditor = ctx.server.auditor.as_ref()?;
    let asked = asked(&ctx.user, &ctx.info);
    auditor.begin(&asked, is_long_running(&ctx.info), || Facts {
        audit_id: uuid::Uuid::new_v4().to_string(),
        request_uri: target.to_owned(),
        verb: ctx.info.verb.clone(),
        user: ctx.user.clone(),
        source_ips: vec![HERE],
        user_agent: String::new(),
        received: ctx.server.clock.now(),
    })
}

/// Records a request whose credentials were refused: nobody knows whose it is.
pub(crate) async fn unauthorized(
    server: &Arc<Server>,
    parts: &Parts,
    query: &Query,
    audit_id: &HeaderValue,
    status: &Status,
) {
    if server.auditor.is_none() {
        return;
    }
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), query);
    if let Some(audit) = begin(server, parts, &UserInfo::default(), &info, audit_id) {
        audit.responded(ResponseStatus::of(status, status.code));
        audit.refused().await;
    }
}

/// 500 as upstream gives it, when a request may not be worked on unrecorded.
pub(crate) fn not_stored(uri: &Uri, audit_id: HeaderValue) -> Response<Body> {
    let text = format!("Internal Server Error: {:?}: {}\n", target(uri), audit::NotStored);
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut response = render::respond(
        StatusCode::INTERNAL_SERVER_ERROR,
        "text/plain; charset=utf-8",
        text.into_bytes().into(),
    );
    let headers = response.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(HEADER, audit_id);
    response
}

/// Records what authorization said.
pub(crate) fn authorized(ctx: &RequestContext, is_allowed: bool, reason: &str) {
    ctx.annotate("authorization.k8s.io/decision", || if is_allowed { "allow" } else { "forbid" });
    ctx.annotate("authorization.k8s.io/reason", || reason);
}

/// Records what admission plugins have to say about a write.
pub(crate) fn admitted(
    ctx: &RequestContext,
    request: &admission::Request<'_>,
    object: &Value,
    old: Option<&Value>,
) {
    let Some(audit) = &ctx.audit else { return };
    let server = &ctx.server;
    for (key, text) in server.admission.audit_annotations(request, object, old, &**server) {
        audit.annotate(key, text);
    }
}

/// A string of an annotation that is JSON.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    schema::go_escape(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Records an object that was sent.
pub(crate) fn requested(ctx: &RequestContext, gvk: &GroupVersionKind, ty: &Type, object: &Value) {
    let Some(audit) = &ctx.audit else { return };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let metadata = ObjectReference {
        namespace: text("namespace"),
        name: text("name"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        ..ObjectReference::default()
    };
    audit.requested(&metadata, || {
        let mut object = object.clone();
        schema::apply_defaults(gvk, &mut object);
        Some(Recorded::json(render::encode(ty, &object)))
    });
}

/// Records a patch, as it was sent.
pub(crate) fn requested_patch(ctx: &RequestContext, patch_type: PatchType, patch: &Bytes) {
    if let Some(audit) = &ctx.audit {
        let media = if patch_type == PatchType::Apply { Media::Yaml } else { Media::Json };
        audit.requested_patch(media, patch);
    }
}

/// Records the options of a deletion, of the version that they say they are of.
pub(crate) fn requested_options(
    ctx: &RequestContext,
    ty: &Type,
    api_version: &str,
    options: &Value,
) {
    let Some(audit) = &ctx.audit else { return };
    audit.requested(&ObjectReference::default(), || {
        let version = if api_version.is_empty() { "meta.k8s.io/v1" } else { api_version };
        let mut options = options.clone();
        options["kind"] = Value::from("DeleteOptions");
        options["apiVersion"] = Value::from(version);
        Some(Recorded::json(render::encode(ty, &options)))
    });
}

/// Records the answer. What lasts keeps the request open until it is over.
pub(crate) async fn answered(ctx: &RequestContext, response: Response<Body>) -> Response<Body> {
    let Some(audit) = &ctx.audit else { return response };
    let code = response.status().as_u16();
    let status = status(&response);
    let is_status = status.is_some();
    audit.responded(match status {
        Some(status) => ResponseStatus::of(&status, code),
        None => ResponseStatus::of_code(code),
    });
    if audit.level() >= Level::RequestResponse
        && (is_status || has_object(&ctx.info))
        && let Some(object) = object(&response)
    {
        audit.responded_with(object);
    }
    if audit.is_long_running() {
        audit.started().await;
        return held(audit, response);
    }
    if is_whole(response.body()) {
        audit.completed().await;
        return response;
    }
    held(audit, response)
}

/// Records that a read within this process failed, if it did.
pub(crate) async fn unless_failed<T>(
    ctx: &RequestContext,
    result: Result<T, Status>,
) -> Result<T, Status> {
    if let (Some(audit), Err(status)) = (&ctx.audit, &result) {
        audit.responded(ResponseStatus::of(status, status.code));
        audit.completed().await;
    }
    result
}

/// Records a list within this process, printed as a client would get it if it is recorded.
pub(crate) async fn listed(
    ctx: &RequestContext,
    resource: &Resource,
    objects: &[Arc<Object>],
    meta: &render::ListMeta,
) {
    let Some(audit) = &ctx.audit else { return };
    if audit.level() >= Level::RequestResponse {
        let options = verbs::table_options(ctx);
        let list = render::list(resource, objects, meta, negotiate::Form::JSON, options);
        if let Some(object) = object(&list) {
            audit.responded_with(object);
        }
    }
    audit.responded(ResponseStatus::of_code(200));
    audit.completed().await;
}

/// Records a watch within this process, which is over when the stream is.
pub(crate) async fn watched<T: Send + 'static>(
    ctx: &RequestContext,
    stream: BoxStream<'static, T>,
) -> BoxStream<'static, T> {
    let Some(audit) = ctx.audit.clone() else { return stream };
    audit.responded(ResponseStatus::of_code(200));
    audit.started().await;
    stream
        .map(move |item| {
            let _open = &audit;
            item
        })
        .boxed()
}

/// The request is over when the body is.
fn held(audit: &Arc<AuditContext>, response: Response<Body>) -> Response<Body> {
    let held = Box::new(audit.clone());
    response.map(|body| Body::Held { body: Box::new(body), held })
}

fn is_whole(body: &Body) -> bool {
    match body {
        Body::Full(_) | Body::Chunks { .. } => true,
        Body::Held { body, .. } => is_whole(body),
        Body::Stream(_) | Body::Incoming(_) => false,
    }
}

/// What the policy is asked.
fn asked<'a>(user: &'a UserInfo, info: &'a RequestInfo) -> Asked<'a> {
    Asked {
        user: &user.name,
        groups: &user.groups,
        verb: &info.verb,
        path: &info.path,
        is_resource: info.is_resource,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
    }
}

/// Upstream's list of what may last.
fn is_long_running(info: &RequestInfo) -> bool {
    if !info.is_resource {
        return info.path.starts_with("/debug/pprof/");
    }
    info.verb == "watch"
        || matches!(info.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
}

/// Where a request comes from.
pub(crate) fn peer(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Peer>().map_or(HERE, |peer| peer.0)
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

fn user_agent(headers: &HeaderMap) -> String {
    let given = headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    if given.len() <= USER_AGENT_BYTES {
        return String::from_utf8_lossy(given).into_owned();
    }
    let mut shortened = String::from_utf8_lossy(&given[..USER_AGENT_BYTES]).into_owned();
    shortened.push_str(SHORTENED);
    shortened
}

/// Whether the answer is an object of the API: of a resource, or of discovery.
fn has_object(info: &RequestInfo) -> bool {
    if info.is_resource {
        return !is_long_running(info);
    }
    info.path == "/api" || info.path.starts_with("/api/") || info.path.starts_with("/apis")
}

/// The object of an answer, its bytes shared.
fn object(response: &Response<Body>) -> Option<Recorded> {
    let content_type = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let media = match content_type.split(';').next()?.trim() {
        "application/json" => Media::Json,
        "application/yaml" => Media::Yaml,
        "application/vnd.kubernetes.protobuf" => Media::Protobuf,
        _ => return None,
    };
    let chunks = chunks(response.body())?;
    Some(Recorded { media, chunks }).filter(|object| !object.is_empty())
}

fn chunks(body: &Body) -> Option<Vec<Bytes>> {
    match body {
        Body::Full(bytes) => Some(bytes.iter().cloned().collect()),
        Body::Chunks { chunks, .. } => Some(chunks.iter().cloned().collect()),
        Body::Held { body, .. } => chunks(body),
        Body::Stream(_) | Body::Incoming(_) => None,
    }
}

/// The `Status` that an answer is, if it is one.
fn status(response: &Response<Body>) -> Option<Status> {
    let Body::Full(Some(bytes)) = response.body() else { return None };
    if bytes.len() as u64 > STATUS_BYTES {
        return None;
    }
    if bytes.starts_with(br#"{"kind":"Status","apiVersion":"v1""#) {
        return serde_json::from_slice(bytes).ok();
    }
    let content_type = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    if content_type.starts_with("application/vnd.kubernetes.protobuf") {
        let (gvk, _) = schema::read_envelope(bytes).ok()?;
        if gvk.kind != "Status" {
            return None;
        }
        return serde_json::from_value(schema::decode_protobuf(bytes).ok()?.1).ok();
    }
    if content_type.starts_with("application/yaml") && !response.status().is_success() {
        let (value, _) = schema::yaml_to_value(bytes).ok()?;
        return (value["kind"] == "Status").then(|| serde_json::from_value(value).ok())?;
    }
    None
}
