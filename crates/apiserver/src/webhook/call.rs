//! One HTTPS request to a webhook.
//!
//! Connections are used again; the timeout of the webhook is over all that is done for an answer.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use connection::Body;
use connection::outbound::{Serial, Shared};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use meta::Status;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::hook::Hook;
use super::kept::{Address, Sender};
use crate::proxy::service_endpoint;
use crate::server::Server;

/// The longest answer that is read; upstream reads requests up to this.
const ANSWER: usize = 3 << 20;

/// The port of a service reference without one; upstream's default.
const PORT: u16 = 443;

/// Where to connect, and as whom to greet whoever is there.
struct Target {
    url: Uri,
    server_name: String,
    address: Result<(String, u16), String>,
}

/// Sends a review and returns the body of the answer, or what upstream's client would say.
pub(crate) async fn post(server: &Server, hook: &Hook, body: Bytes) -> Result<Bytes, String> {
    let target = target(server, hook)?;
    let failed = |why: String| format!("Post {:?}: {why}", target.url.to_string());
    tokio::select! {
        answer = exchange(server, hook, &target, body) => answer.map_err(|error| match error {
            ExchangeError::Transport(why) => failed(why),
            ExchangeError::Refused(why) => why,
        })?,
        () = server.clock.sleep(hook.timeout) => Err(failed("context deadline exceeded".to_owned())),
    }
}

enum ExchangeError {
    /// No answer came.
    Transport(String),
    /// An answer that is none.
    Refused(String),
}

fn target(server: &Server, hook: &Hook) -> Result<Target, String> {
    let timeout = query(hook.timeout);
    if let Some(service) = &hook.client.service {
        let server_name = format!("{}.{}.svc", service.name, service.namespace);
        let path = service.path.as_deref().unwrap_or("/");
        let port = service.port.unwrap_or(PORT);
        let url = parse(&format!("https://{server_name}:{port}{path}?{timeout}"))?;
        let address = service_endpoint(server, &service.namespace, &service.name, port);
        return Ok(Target { url, server_name, address });
    }
    let text = hook.client.url.as_deref().unwrap_or_default();
    let separator = if text.contains('?') { '&' } else { '?' };
    let url = parse(&format!("{text}{separator}{timeout}"))?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let address = Ok((host.clone(), url.port_u16().unwrap_or(PORT)));
    Ok(Target { url, server_name: host, address })
}

fn query(timeout: Duration) -> String {
    format!("timeout={}s", timeout.as_secs())
}

fn parse(url: &str) -> Result<Uri, String> {
    url.parse().map_err(|error: http::uri::InvalidUri| format!("parse {url:?}: {error}"))
}

async fn exchange(
    server: &Server,
    hook: &Hook,
    target: &Target,
    body: Bytes,
) -> Result<Result<Bytes, String>, ExchangeError> {
    let address = target.address.clone().map_err(ExchangeError::Transport)?;
    let kept = hook.kept.take(&address, server.clock.monotonic());
    let (mut sender, mut is_used) = match kept {
        Some(sender) => (sender, true),
        None => (dial(hook, target, &address).await?, false),
    };
    let answer = loop {
        match sender.send(request(target, &sender, body.clone())?).await {
            Ok(answer) => break answer,
            // Whoever ends an idle connection has not read what was sent over it.
            Err(_) if is_used => {
                sender = dial(hook, target, &address).await?;
                is_used = false;
            }
            Err(error) => return Err(transport(&error)),
        }
    };
    let (answer, body) = answer.into_parts();
    let read = Limited::new(body, ANSWER).collect().await;
    let body = read.map_err(|error| transport(&*error))?.to_bytes();
    hook.kept.put(address, sender, server.clock.monotonic());
    if answer.status.is_success() {
        return Ok(Ok(body));
    }
    let status = Status::of_answer(&Method::POST, &answer, &body);
    Err(ExchangeError::Refused(status.message))
}

fn transport(error: &(dyn Error + 'static)) -> ExchangeError {
    ExchangeError::Transport(telemetry::Chain(error).to_string())
}

async fn dial(
    hook: &Hook,
    target: &Target,
    (host, port): &Address,
) -> Result<Sender, ExchangeError> {
    let refused = |error: std::io::Error| {
        let why = plain(&error);
        ExchangeError::Transport(format!("dial tcp {}: connect: {why}", join(host, *port)))
    };
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
    stream.set_nodelay(true).ok();
    let name = ServerName::try_from(target.server_name.clone());
    let name = name.map_err(|error| transport(&error))?;
    let tls = TlsConnector::from(hook.tls().map_err(ExchangeError::Transport)?);
    let stream = tls.connect(name, stream).await;
    let stream = stream.map_err(|error| ExchangeError::Transport(tls_error(&error)))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let begun = if is_http2 {
        Shared::begin(Box::new(stream)).await.map(Sender::Shared)
    } else {
        Serial::begin(Box::new(stream)).await.map(Sender::Serial)
    };
    begun.map_err(|error| transport(&error))
}

fn request(target: &Target, sender: &Sender, body: Bytes) -> Result<Request<Body>, ExchangeError> {
    let request = Request::builder()
        .method(Method::POST)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission");
    let request = match sender {
        // HTTP/2 wants the whole address in the request, and no `Host`.
        Sender::Shared(_) => request.uri(target.url.clone()),
        Sender::Serial(_) => {
            let path = target.url.path_and_query().map_or("/", |path| path.as_str());
            let authority = target.url.authority().map_or("", |authority| authority.as_str());
            request.uri(path).header(HOST, authority)
        }
    };
    request.body(Body::from(body)).map_err(|error| transport(&error))
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The error without the number that Rust adds.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn tls_error(error: &std::io::Error) -> String {
    use rustls::CertificateError as Wrong;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(Wrong::UnknownIssuer)) => {
            "x509: certificate signed by unknown authority"
        }
        Some(rustls::Error::InvalidCertificate(
            Wrong::Expired | Wrong::ExpiredContext { .. } | Wrong::NotValidYet,
        )) => "x509: certificate has expired or is not yet valid",
        _ => return telemetry::Chain(error).to_string(),
    };
    format!("tls: failed to verify certificate: {why}")
}
