//! OpenAPI documents.
//!
//! They are rendered off the threads that serve requests: the whole v2 document takes tens of
//! milliseconds.

use http::header::{ACCEPT, CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use meta::{Reason, Status};
use openapi::{CustomKinds, Document, Documents, Encoding};
use serde_json::{Map, Value, json};

use crate::aggregation;
use crate::context::RequestContext;
use crate::errors;
use crate::etag;
use crate::render::respond;
use connection::Body;

/// What clients ask for, and what upstream answers with: Go's parser of media types dislikes the
/// at-sign of the name that came first.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF_V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
const PROTOBUF_V3_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
const JSON: &str = "application/json";
/// How long a document may be kept that was asked for by its hash.
const KEPT_SECS: i64 = 365 * 24 * 3600;

/// Answers the paths of OpenAPI; `None` when the path is none of them.
pub(super) async fn serve(
    ctx: &RequestContext,
    path: &str,
) -> Result<Option<Response<Body>>, Status> {
    if path == "/openapi/v2" {
        return v2(ctx).await.map(Some);
    }
    if path == "/openapi/v3" {
        return index(ctx).await.map(Some);
    }
    match path.strip_prefix("/openapi/v3/") {
        Some(document) => v3(ctx, document).await.map(Some),
        None => Ok(None),
    }
}

async fn v2(ctx: &RequestContext) -> Result<Response<Body>, Status> {
    let encoding = encoding(ctx, [PROTOBUF, PROTOBUF_OLD]).ok_or_else(not_acceptable)?;
    let content_type = if encoding == Encoding::Json { JSON } else { PROTOBUF };
    let others = aggregation::foreign_documents(&ctx.server);
    let document =
        render(ctx, move |documents, custom| documents.v2_with(encoding, custom, &others)).await?;
    Ok(etag::answer(&ctx.headers, content_type, document.bytes.into(), &document.hash))
}

/// The first form in the client's list that is there; protobuf has two names.
fn encoding(ctx: &RequestContext, protobuf: [&str; 2]) -> Option<Encoding> {
    let accept = ctx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    accept.split(',').find_map(|clause| match clause.split(';').next()?.trim() {
        JSON | "application/*" | "*/*" | "" => Some(Encoding::Json),
        other => protobuf.contains(&other).then_some(Encoding::Protobuf),
    })
}

/// Where the documents of v3 are. Upstream does not say what it is: its file server guesses.
async fn index(ctx: &RequestContext) -> Result<Response<Body>, Status> {
    let mut paths: Map<String, Value> = render(ctx, |documents, custom| {
        let entry = |(path, hash): (String, std::sync::Arc<str>)| {
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({ "serverRelativeURL": url }))
        };
        documents.v3_index(custom).into_iter().map(entry).collect()
    })
    .await?;
    aggregation::add_documents(&ctx.server, &mut paths);
    let text = json!({ "paths": paths }).to_string().into_bytes();
    let hash = etag::strong(&text);
    Ok(etag::answer(&ctx.headers, "text/plain; charset=utf-8", text.into(), &hash))
}

async fn v3(ctx: &RequestContext, path: &str) -> Result<Response<Body>, Status> {
    let encoding = encoding(ctx, [PROTOBUF_V3, PROTOBUF_V3_OLD]).ok_or_else(not_acceptable)?;
    let content_type = if encoding == Encoding::Json { JSON } else { PROTOBUF_V3 };
    let wanted = path.to_owned();
    let document: Option<Document> =
        render(ctx, move |documents, custom| documents.v3(&wanted, encoding, custom)).await?;
    let document = document.ok_or_else(errors::no_such_resource)?;
    let asked = ctx.query.non_empty("hash");
    if asked.is_some_and(|asked| *asked != *document.hash) {
        let location = format!("/openapi/v3/{path}?hash={}", document.hash);
        let mut response = respond(StatusCode::MOVED_PERMANENTLY, JSON, Body::empty());
        if let Ok(value) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(LOCATION, value);
        }
        return Ok(response);
    }
    let bytes = document.bytes.into();
    let mut response = etag::answer(&ctx.headers, content_type, bytes, &document.hash);
    if asked.is_some() {
        keep(ctx, &mut response);
    }
    Ok(response)
}

/// What is asked for by its hash never changes.
fn keep(ctx: &RequestContext, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let until = ctx.server.clock.now() + jiff::SignedDuration::from_secs(KEPT_SECS);
    let until = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(value) = HeaderValue::from_str(&until) {
        headers.insert(EXPIRES, value);
    }
}

async fn render<T: Send + 'static>(
    ctx: &RequestContext,
    make: impl FnOnce(&Documents, &dyn CustomKinds) -> T + Send + 'static,
) -> Result<T, Status> {
    let server = ctx.server.clone();
    let made = tokio::task::spawn_blocking(move || {
        let served = server.resources.served();
        make(&server.documents, &*served)
    });
    made.await.map_err(errors::internal)
}

fn not_acceptable() -> Status {
    Status::failure(Reason::NotAcceptable, "none of the accepted forms is served here")
}
