//! Paths that are not resources: health, version, metrics, OpenAPI, token keys.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Method, Response, StatusCode};
use meta::{Reason, Status, StatusDetails};
use serde_json::{Value, json};

use crate::body::Body;
use crate::context::RequestContext;
use crate::errors;
use crate::render::respond;
use crate::request_info::RequestInfo;

/// The checks of `/readyz`, in the order in which they are printed.
const CHECKS: [&str; 5] = ["ping", "log", "etcd", "informer-sync", "poststarthook/bootstrap"];
/// What the check of the store is called in `/readyz`.
const READY_STORE: &str = "etcd-readiness";

/// Upstream answers health to everybody.
pub(crate) fn is_always_allowed(info: &RequestInfo) -> bool {
    !info.is_resource && matches!(info.path.as_str(), "/healthz" | "/livez" | "/readyz")
}

pub(crate) async fn serve(ctx: &RequestContext) -> Result<Response<Body>, Status> {
    if !is_health_path(&ctx.info.path) && !matches!(ctx.method, Method::GET | Method::HEAD) {
        return Err(Status::failure(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with_details(StatusDetails::default()));
    }
    let path = ctx.info.path.trim_end_matches('/');
    match path {
        "" => Ok(index()),
        "/version" => Ok(version()),
        "/metrics" => Ok(metrics(ctx)),
        "/openapi/v2" => Ok(openapi_v2(ctx)),
        "/openapi/v3" => Ok(openapi_index()),
        "/openid/v1/jwks" => {
            let keys = ctx.server.authenticator.verifier().key_set();
            Ok(respond(
                StatusCode::OK,
                "application/jwk-set+json",
                keys.to_string().into_bytes().into(),
            ))
        }
        "/.well-known/openid-configuration" => Ok(openid_configuration(ctx)),
        _ => {
            if let Some(document) = path.strip_prefix("/openapi/v3/") {
                return openapi_v3(ctx, document);
            }
            for root in ["/healthz", "/livez", "/readyz"] {
                if let Some(check) = path.strip_prefix(root) {
                    return health(ctx, root, check.trim_start_matches('/')).await;
                }
            }
            Ok(no_such_path())
        }
    }
}

/// Health is answered whatever the method, as upstream does.
fn is_health_path(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"].iter().any(|root| path.starts_with(root))
}

fn no_such_path() -> Response<Body> {
    let text = Bytes::from_static(b"404 page not found\n");
    respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text.into())
}

fn not_found() -> Status {
    errors::no_such_resource()
}

fn index() -> Response<Body> {
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
    for root in ["/healthz", "/livez", "/readyz"] {
        paths.push(root.to_owned());
        paths.extend(CHECKS.iter().map(|check| format!("{root}/{check}")));
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
    paths.sort();
    json_answer(&json!({ "paths": paths }))
}

fn version() -> Response<Body> {
    json_answer(&json!({
        "major": "1", "minor": "36",
        "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": format!("linux/{}", architecture()),
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
        let count = i64::try_from(storage.cache.len()).unwrap_or(i64::MAX);
        let resource = storage.resource.to_string();
        server.metrics.objects.with_label_values(&[resource.as_str()]).set(count);
    }
    respond(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        server.metrics.text().into(),
    )
}

fn openapi_v2(ctx: &RequestContext) -> Response<Body> {
    let json = openapi::v2_json();
    let etag = format!("\"{:016X}\"", hash(&json));
    cached(ctx, "application/json", json, &etag)
}

fn openapi_index() -> Response<Body> {
    let paths: serde_json::Map<String, Value> = openapi::v3_index()
        .into_iter()
        .map(|(path, hash)| {
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json_answer(&json!({ "paths": paths }))
}

fn openapi_v3(ctx: &RequestContext, document: &str) -> Result<Response<Body>, Status> {
    let accept = ctx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let takes_json = accept.contains("json") || accept.contains("*/*");
    if !takes_json {
        return Err(Status::failure(Reason::NotAcceptable, "only JSON is served here"));
    }
    let json = openapi::v3(document).ok_or_else(not_found)?;
    let etag = format!("\"{:016X}\"", hash(&json));
    Ok(cached(ctx, "application/json", json, &etag))
}

fn cached(
    ctx: &RequestContext,
    content_type: &'static str,
    body: Bytes,
    etag: &str,
) -> Response<Body> {
    let is_known =
        ctx.headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond(StatusCode::OK, content_type, body.into())
    };
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// FNV-1a: stable over runs, and nothing depends on its strength.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
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

async fn health(ctx: &RequestContext, root: &str, one: &str) -> Result<Response<Body>, Status> {
    let server = &ctx.server;
    let store_answers = server.store.revision().await.is_ok();
    let is_ready = server.is_ready.load(Ordering::Relaxed);
    let is_live = root != "/readyz";
    let passes = |check: &str| match check {
        "etcd" | READY_STORE => store_answers,
        "informer-sync" => is_live || server.pump.applied() > 0,
        "poststarthook/bootstrap" => is_live || is_ready,
        "shutdown" => !server.shutdown.is_begun(),
        _ => true,
    };
    let plain = |code, text: String| {
        let mut response = respond(code, "text/plain; charset=utf-8", text.into_bytes().into());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Ok(response)
    };
    if !one.is_empty() {
        let is_known = match one {
            "etcd" => is_live,
            READY_STORE | "shutdown" => !is_live,
            one => CHECKS.contains(&one),
        };
        if !is_known {
            return Ok(no_such_path());
        }
        return if passes(one) {
            plain(StatusCode::OK, "ok".to_owned())
        } else {
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal server error: check failed\n".to_owned(),
            )
        };
    }
    let excluded: Vec<&str> = ctx.query.all("exclude").collect();
    let mut checks: Vec<&str> = CHECKS.to_vec();
    if !is_live {
        checks.iter_mut().filter(|check| **check == "etcd").for_each(|check| *check = READY_STORE);
        checks.push("shutdown");
    }
    let mut text = String::new();
    let mut failed = false;
    for check in checks {
        if excluded.contains(&check) {
            text.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if passes(check) {
            text.push_str(&format!("[+]{check} ok\n"));
        } else {
            failed = true;
            text.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    let name = root.trim_start_matches('/');
    if failed {
        text.push_str(&format!("{name} check failed\n"));
        return plain(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    if ctx.query.get("verbose").is_some() {
        text.push_str(&format!("{name} check passed\n"));
        return plain(StatusCode::OK, text);
    }
    plain(StatusCode::OK, "ok".to_owned())
}

/// Go's name of the machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
