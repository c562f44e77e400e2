//! Requests on their way to another server, and its answers on their way back.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONNECTION, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use meta::{Reason, Status};

use super::backend::{Backend, SendError};
use crate::audit;
use crate::chain::OnUpgrade;
use crate::context::RequestContext;
use crate::proxy::{add_forwarded_for, strip_hop_by_hop, tunnel};
use crate::query::escape;
use crate::render::respond;
use connection::{Body, BodyError, RequestBody};

/// How long an answer may be in coming, unless it is a watch; upstream's limit of any request.
const PATIENCE: Duration = Duration::from_secs(60);

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Forwards a request and its answer.
pub(crate) async fn serve(
    ctx: &RequestContext,
    backend: &Backend,
    body: RequestBody,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, Status> {
    if !backend.is_available {
        return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
    }
    let switches = ctx.headers.contains_key(UPGRADE);
    let body = match body {
        RequestBody::Whole(bytes) => bytes.into(),
        RequestBody::Incoming(incoming) => Body::Incoming(incoming),
    };
    let mut request = Request::new(body);
    *request.method_mut() = ctx.method.clone();
    let path = match ctx.query.raw() {
        "" => ctx.info.path.clone(),
        query => format!("{}?{query}", ctx.info.path),
    };
    *request.uri_mut() = path
        .parse()
        .map_err(|_| Status::failure(Reason::BadRequest, "the path cannot be forwarded"))?;
    *request.headers_mut() = headers(ctx, backend, switches);
    let is_long = switches || ctx.query.flag("watch") || ctx.info.path.contains("/watch/");
    let sent = backend.send(&ctx.server, request, switches);
    let sent = tokio::select! {
        sent = sent => sent,
        () = ctx.server.clock.sleep(PATIENCE), if !is_long => {
            let why = "Timeout: request did not complete within the allotted timeout";
            return Err(Status::failure(Reason::Timeout, why));
        }
    };
    let response = match sent {
        Ok(response) => response,
        Err(SendError::Resolve(why)) => {
            tracing::warn!(service = %backend.name, why, "an aggregated server is not to be found");
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
        }
        Err(SendError::Tls(why)) => return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, &why)),
        Err(error) => {
            let why = format!("error trying to reach service: {}", telemetry::Chain(&error));
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, &why));
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return tunnel(ctx, upgrade, response);
    }
    if response.status().is_redirection() && response.headers().contains_key(LOCATION) {
        // The client would be sent to a place of the other server's choice with its credentials.
        let why = "the backend attempted to redirect this request, which is not permitted";
        return Ok(plain(StatusCode::BAD_GATEWAY, why));
    }
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    let end = (!is_long).then(|| ctx.server.clock.sleep(PATIENCE));
    let body = match end {
        None => Body::Incoming(body),
        Some(end) => bounded(body, end),
    };
    Ok(Response::from_parts(parts, body))
}

/// An answer that breaks off when it has not ended by then.
fn bounded<B>(body: B, end: BoxFuture<'static, ()>) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    Body::Stream(Box::pin(futures::stream::unfold(Some((body, end)), |state| async {
        let (mut body, mut end) = state?;
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame?,
                () = &mut end => return Some((Err("the answer has no end".into()), None)),
            };
            match frame {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some((body, end))));
                    }
                }
                Err(error) => return Some((Err(error.into()), None)),
            }
        }
    })))
}

/// An answer of Go's `http.Error`.
fn plain(code: StatusCode, text: &str) -> Response<Body> {
    let mut response =
        respond(code, "text/plain; charset=utf-8", format!("{text}\n").into_bytes().into());
    let headers = response.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The client's headers, without what is for this server alone, and with who the client is.
fn headers(ctx: &RequestContext, backend: &Backend, switches: bool) -> HeaderMap {
    let mut headers = ctx.headers.clone();
    let protocol = headers.get(UPGRADE).filter(|_| switches).cloned();
    strip_hop_by_hop(&mut headers);
    add_forwarded_for(&mut headers, ctx.address);
    headers.remove("authorization");
    // Who the client is said to be is ours to say.
    for name in headers.keys().cloned().collect::<Vec<_>>() {
        let name_text = name.as_str();
        if name_text.starts_with("impersonate-") || name_text.starts_with("x-remote-") {
            headers.remove(name);
        }
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    // So that both servers record it under one id.
    headers.insert(audit::HEADER, ctx.audit_id.clone());
    let user = &ctx.user;
    identify(&mut headers, (&user.name, &user.uid), &user.groups, &user.extra);
    if let Ok(host) = HeaderValue::from_str(&backend.server_name()) {
        headers.insert(HOST, host);
    }
    headers
}

/// Says who asks.
pub(super) fn identify<'a>(
    headers: &mut HeaderMap,
    (name, uid): (&str, &str),
    groups: &[String],
    extra: impl IntoIterator<Item = (&'a String, &'a Vec<String>)>,
) {
    let mut append = |key: &str, value: &str| {
        let key = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(key), Ok(value)) = (key, HeaderValue::from_str(value)) {
            headers.append(key, value);
        }
    };
    append(USER, name);
    if !uid.is_empty() {
        append(UID, uid);
    }
    groups.iter().for_each(|group| append(GROUP, group));
    for (key, values) in extra {
        let key = format!("{EXTRA}{}", escape(&key.to_lowercase()));
        values.iter().for_each(|value| append(&key, value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use clock::{Clock, ManualClock};
    use futures::{FutureExt, StreamExt};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_end_breaks_off() {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let first = futures::stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from("a")))]);
        let body = StreamBody::new(Box::pin(first.chain(futures::stream::pending())));
        let mut body = bounded(body, clock.sleep(PATIENCE));
        let mut next = || body.frame().now_or_never();
        assert_eq!(next().unwrap().unwrap().unwrap().into_data().unwrap(), "a");
        assert!(next().is_none(), "it waits");
        clock.advance(PATIENCE);
        assert!(next().unwrap().unwrap().is_err());
        assert!(next().unwrap().is_none());
    }

    #[test]
    fn the_user_goes_along_in_headers() {
        let mut headers = HeaderMap::new();
        let extra = BTreeMap::from([("Scopes/x".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
        let groups = ["g".to_owned(), "h".to_owned()];
        identify(&mut headers, ("jane", "7"), &groups, &extra);
        let all = |name: &str| -> Vec<&str> {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all(USER), ["jane"]);
        assert_eq!(all(UID), ["7"]);
        assert_eq!(all(GROUP), ["g", "h"]);
        assert_eq!(all("x-remote-extra-scopes%2fx"), ["a", "b"]);
    }
}
