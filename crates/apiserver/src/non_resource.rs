//! Paths that are not resources: version, metrics, token keys, and what lies in the modules below.

mod documents;
mod health;
mod profile;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use meta::Status;
use serde_json::{Value, json};

use crate::chain::not_allowed;
use crate::context::RequestContext;
use crate::negotiate;
use crate::render::respond;
use crate::request_info::RequestInfo;
use connection::Body;

/// A path that may become a label: those of health.
pub(crate) fn known_path(path: &str) -> &'static str {
    health::ROOTS.into_iter().find(|root| *root == path).unwrap_or_default()
}

/// Upstream answers health to everybody.
pub(crate) fn is_always_allowed(info: &RequestInfo) -> bool {
    !info.is_resource && matches!(info.path.as_str(), "/healthz" | "/livez" | "/readyz")
}

/// Whether a request may take long on purpose, and is not counted among those in flight.
pub(crate) fn is_long_running(info: &RequestInfo) -> bool {
    !info.is_resource && profile::is_long_running(&info.path)
}

pub(crate) async fn serve(ctx: &RequestContext) -> Result<Response<Body>, Status> {
    let path = ctx.info.path.trim_end_matches('/');
    match path {
        "" => return Ok(index(ctx)),
        "/metrics" => return Ok(metrics(ctx)),
        _ => {}
    }
    if let Some(answer) = health::serve(ctx, path).await? {
        return Ok(answer);
    }
    if let Some(answer) = documents::serve(ctx, path).await? {
        return Ok(answer);
    }
    if let Some(answer) = profile::serve(ctx, path).await? {
        return Ok(answer);
    }
    if let Some(answer) = flow_control(ctx, path) {
        return Ok(answer);
    }
    // What follows is behind upstream's router, which knows methods and types.
    let answer = match path {
        "/version" => version(),
        "/openid/v1/jwks" => key_set(ctx)?,
        "/.well-known/openid-configuration" => openid_configuration(ctx),
        _ => return Ok(no_such_path()),
    };
    if ctx.method == Method::GET { Ok(answer) } else { Err(not_allowed()) }
}

fn index(ctx: &RequestContext) -> Response<Body> {
    let mut paths: Vec<String> = vec!["/api".into(), "/api/v1".into(), "/apis".into()];
    for group in schema::registry().groups().iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(
            group
                .versions
                .iter()
                .map(|version| format!("/apis/{}/{}", group.name, version.version)),
        );
    }
    for group in ctx.server.resources.served().groups() {
        paths.push(format!("/apis/{}", group.name));
        let of = |version: &schema::Version| format!("/apis/{}/{}", group.name, version.version);
        paths.extend(group.versions.iter().map(of));
    }
    for root in health::ROOTS {
        paths.push(root.to_owned());
        paths.extend(health::checks(root).map(|check| format!("{root}/{check}")));
    }
    paths.extend(
        [
            "/.well-known/openid-configuration",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/version",
        ]
        .map(str::to_owned),
    );
    if ctx.server.config.profiling {
        paths.extend(profile::PATHS.map(str::to_owned));
    }
    paths.sort();
    json_answer(&json!({ "paths": paths }))
}

/// What flow control is doing; not listed in the index.
fn flow_control(ctx: &RequestContext, path: &str) -> Option<Response<Body>> {
    let what = path.strip_prefix("/debug/api_priority_and_fairness/")?;
    let control = ctx.server.traffic.flow_control()?;
    let text = match what {
        "dump_priority_levels" => control.dump_levels(),
        "dump_queues" => control.dump_queues(),
        "dump_requests" => control.dump_requests(),
        _ => return None,
    };
    Some(respond(StatusCode::OK, "text/plain; charset=utf-8", text.into_bytes().into()))
}

fn version() -> Response<Body> {
    json_answer(&json!({
        "major": "1", "minor": "36",
        "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": telemetry::VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": telemetry::platform(),
    }))
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    respond(StatusCode::OK, "application/json", text.into())
}

fn metrics(ctx: &RequestContext) -> Response<Body> {
    let server = &ctx.server;
    for storage in server.resources.storages() {
        let count = i64::try_from(storage.cache.count()).unwrap_or(i64::MAX);
        let resource = storage.resource.to_string();
        server.metrics.objects.with_label_values(&[resource.as_str()]).set(count);
    }
    respond(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        server.metrics.text().into(),
    )
}

fn key_set(ctx: &RequestContext) -> Result<Response<Body>, Status> {
    const MEDIA: &str = "application/jwk-set+json";
    if !negotiate::accepts(&ctx.headers, MEDIA) {
        return Err(negotiate::nothing_acceptable(MEDIA));
    }
    let keys = ctx.server.authenticator.verifier().key_set();
    Ok(respond(StatusCode::OK, MEDIA, keys.to_string().into_bytes().into()))
}

fn openid_configuration(ctx: &RequestContext) -> Response<Body> {
    let issuer = &ctx.server.config.issuer;
    let algorithms: Vec<Value> = ctx.server.authenticator.verifier().key_set()["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| key["alg"].clone())
        .collect();
    let advertised = std::net::SocketAddr::new(
        ctx.server.config.advertise_address,
        ctx.server.config.bind.first().map_or(6443, std::net::SocketAddr::port),
    );
    let mut response = json_answer(&json!({
        "issuer": issuer,
        "jwks_uri": format!("https://{advertised}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    }));
    response
        .headers_mut()
        .insert("cache-control", HeaderValue::from_static("public, max-age=3600"));
    response
}

/// 404 as upstream's multiplexer gives it.
pub(crate) fn no_such_path() -> Response<Body> {
    let text = Bytes::from_static(b"404 page not found\n");
    respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text.into())
}
