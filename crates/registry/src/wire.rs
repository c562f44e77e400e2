//! Requests to one host, and answers within limits of time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clock::SharedClock;
use futures::future::{BoxFuture, Either, select};
use http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::PullError;
use crate::hosts::Host;
use crate::line::Connector;
use crate::proxy::Proxies;
use crate::tls::client_config;

/// Redirects that are followed: registries need one or two.
const REDIRECTS_MAX: usize = 5;
/// What must come within the patience, lest the registry be given up: a slow line brings a
/// thousand times as much in a minute.
const PROGRESS_BYTES: usize = 16 << 10;

/// What is sent with each request, so that a registry's owner can tell.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ironclad/", env!("CARGO_PKG_VERSION")));

/// Connections to a host and to where it redirects. HTTP/1, so that layers come over connections
/// of their own.
pub(crate) struct Wire {
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    proxies: Arc<Proxies>,
    /// How long nothing may come.
    patience: Duration,
    clock: SharedClock,
}

/// A request.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    /// Goes to the host of the address alone.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn get(url: Uri) -> Self {
        let headers = HeaderMap::new();
        Self { method: Method::GET, url, headers, authorization: None, body: Bytes::new() }
    }
}

/// An answer whose body has not been read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// A body on its way.
pub(crate) struct Body {
    incoming: Incoming,
    url: String,
    patience: Duration,
    clock: SharedClock,
    deadline: BoxFuture<'static, ()>,
    since_deadline: usize,
}

impl Wire {
    pub(crate) fn new(
        host: &Host,
        proxies: &Arc<Proxies>,
        patience: Duration,
        clock: &SharedClock,
    ) -> Result<Self, PullError> {
        let tls = client_config(&host.tls)
            .map_err(|source| PullError::Tls { host: host.authority.to_string(), source })?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(host.dial_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector { tcp, proxies: Arc::clone(proxies) });
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let (proxies, clock) = (Arc::clone(proxies), Arc::clone(clock));
        Ok(Self { client, proxies, patience, clock })
    }

    /// Sends a request, and follows where the answer leads.
    pub(crate) async fn send(&self, ask: Ask) -> Result<Answer, PullError> {
        let mut ask = ask;
        let first = ask.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_once(&ask).await?;
            let Some(to) = redirect(&ask, &answer)? else { return Ok(answer) };
            if to.authority() != ask.url.authority() {
                // It belongs to whom it was given for; so do headers of the configuration.
                ask.authorization = None;
                let keep = ["accept", "range"];
                let names: Vec<_> = ask.headers.keys().cloned().collect();
                for name in names.iter().filter(|name| !keep.contains(&name.as_str())) {
                    ask.headers.remove(name);
                }
            }
            ask.url = to;
        }
        Err(PullError::Redirect { url: shown(&first), problem: "it has no end" })
    }

    async fn send_once(&self, ask: &Ask) -> Result<Answer, PullError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PullError::Request {
            method: ask.method.clone(),
            url: shown(&ask.url),
            source,
        };
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.url.clone();
        *request.headers_mut() = ask.headers.clone();
        request.headers_mut().insert(USER_AGENT, AGENT);
        if let Some(value) = &ask.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        if ask.url.scheme() == Some(&Scheme::HTTP)
            && let Some(value) = self.proxies.of(&ask.url).and_then(|p| p.authorization.clone())
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        let answer =
            match select(self.client.request(request), self.clock.sleep(self.patience)).await {
                Either::Left((answer, _)) => answer.map_err(|error| failed(Box::new(error)))?,
                Either::Right(_) => {
                    let (url, seconds) = (shown(&ask.url), self.patience.as_secs());
                    return Err(PullError::Stalled { url, seconds });
                }
            };
        let (parts, incoming) = answer.into_parts();
        let body = Body {
            incoming,
            url: shown(&ask.url),
            patience: self.patience,
            deadline: self.clock.sleep(self.patience),
            clock: self.clock.clone(),
            since_deadline: 0,
        };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Where an answer leads, if it does.
fn redirect(ask: &Ask, answer: &Answer) -> Result<Option<Uri>, PullError> {
    let refused = |problem| PullError::Redirect { url: shown(&ask.url), problem };
    let leads = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !leads || !matches!(ask.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| refused("it leads nowhere"))?;
    let parsed = location.parse::<Uri>().map_err(|_| refused("it leads to no address"))?;
    let mut parts = parsed.into_parts();
    if parts.authority.is_none() {
        parts.scheme = ask.url.scheme().cloned();
        parts.authority = ask.url.authority().cloned();
    }
    let to = Uri::from_parts(parts).map_err(|_| refused("it leads to no address"))?;
    match to.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Ok(Some(to)),
        Some(scheme) if *scheme == Scheme::HTTP && ask.url.scheme() == Some(&Scheme::HTTP) => {
            Ok(Some(to))
        }
        _ => Err(refused("it leads away from TLS")),
    }
}

/// Without the query, which may hold a signature that is worth as much as a password.
fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map(|a| a.as_str()).unwrap_or_default();
    format!("{scheme}://{authority}{}", url.path())
}

impl Answer {
    /// The answer as an error.
    pub(crate) fn unexpected(&self, method: &Method) -> PullError {
        let (method, url, status) = (method.clone(), self.body.url.clone(), self.status);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return PullError::TooManyRequests { method, url, status };
        }
        PullError::Status { method, url, status }
    }
}

impl Body {
    /// The address that it comes from.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The next bytes, `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            let frame = match select(self.incoming.frame(), &mut self.deadline).await {
                Either::Left((frame, _)) => frame,
                Either::Right(_) => {
                    let (url, seconds) = (self.url.clone(), self.patience.as_secs());
                    return Err(PullError::Stalled { url, seconds });
                }
            };
            let broken = |error| PullError::Body { url: self.url.clone(), source: Box::new(error) };
            let Some(frame) = frame.transpose().map_err(broken)? else { return Ok(None) };
            let Ok(bytes) = frame.into_data() else { continue };
            self.since_deadline += bytes.len();
            if self.since_deadline >= PROGRESS_BYTES {
                self.since_deadline = 0;
                self.deadline = self.clock.sleep(self.patience);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All of it, when it is not larger than that.
    pub(crate) async fn whole(mut self, what: &str, limit: u64) -> Result<Bytes, PullError> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.chunk().await? {
            if whole.len() + bytes.len() > most {
                return Err(PullError::TooLarge { what: what.to_owned(), limit });
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }
}
