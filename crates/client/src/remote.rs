//! The transport over HTTP/2 and TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::SharedClock;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::api::decode_list;
use crate::refusal::refused;
use crate::rest_metrics::{HostMetrics, RestMetrics};
use crate::watch_decoder::WatchDecoder;
use crate::{
    ClientError, Credentials, KubeConfig, ObjectList, TokenSource, Transport, WatchStream,
};

/// client-go's default for one request; a watch only has to begin within it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an idle HTTP/2 connection is tried, and how long an answer may take: client-go's
/// defaults, so that a dead server is noticed within 45 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read whole. A list of 150,000 pods of 3 KB stays below it.
const BODY_BYTES_MAX: usize = 512 << 20;

/// A connection to an API server elsewhere.
pub struct Remote {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Uri,
    user_agent: HeaderValue,
    authorization: Authorization,
    clock: SharedClock,
    metrics: Option<HostMetrics>,
}

enum Authorization {
    None,
    Token(HeaderValue),
    File(PathBuf),
    Source(Arc<dyn TokenSource>),
}

impl Remote {
    /// Prepares connections; none is made before the first request.
    ///
    /// # Errors
    /// When the URL, the certificates or the key cannot be used.
    pub fn new(
        config: &KubeConfig,
        user_agent: &str,
        clock: SharedClock,
    ) -> Result<Self, ClientError> {
        let tls = tls_config(config)?;
        let mut builder =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        if let Some(name) = &config.tls_server_name {
            let name = ServerName::try_from(name.clone()).map_err(ClientError::transport)?;
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(PING_INTERVAL));
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_adaptive_window(true)
            .build(builder.enable_http1().enable_http2().wrap_connector(tcp));
        let authorization = match &config.credentials {
            Credentials::Token(token) => Authorization::Token(bearer(token)?),
            Credentials::TokenFile(path) => Authorization::File(path.clone()),
            Credentials::Certificate { .. } | Credentials::Anonymous => Authorization::None,
        };
        Ok(Self {
            http,
            base: config.server.parse().map_err(ClientError::transport)?,
            user_agent: HeaderValue::from_str(user_agent).map_err(ClientError::transport)?,
            authorization,
            clock,
            metrics: None,
        })
    }

    /// The same, and its requests are counted.
    #[must_use]
    pub fn measured(self, metrics: &RestMetrics) -> Self {
        let host = self.base.authority().map_or("", |authority| authority.as_str());
        Self { metrics: Some(metrics.of(host)), ..self }
    }

    /// The same server over the same connections, as whoever the tokens are of. The connections must
    /// not show a certificate, which would count for more.
    #[must_use]
    pub fn with_tokens(&self, tokens: Arc<dyn TokenSource>) -> Self {
        Self {
            http: self.http.clone(),
            base: self.base.clone(),
            user_agent: self.user_agent.clone(),
            authorization: Authorization::Source(tokens),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
        }
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Incoming>, ClientError> {
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).map_err(ClientError::transport)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.user_agent.clone());
        match &self.authorization {
            Authorization::None => {}
            Authorization::Token(value) => {
                headers.insert(AUTHORIZATION, value.clone());
            }
            Authorization::File(path) => {
                let token =
                    tokio::fs::read_to_string(path).await.map_err(ClientError::transport)?;
                headers.insert(AUTHORIZATION, bearer(token.trim())?);
            }
            Authorization::Source(tokens) => {
                let token = tokens.token().await?;
                headers.insert(AUTHORIZATION, bearer(&token)?);
                let answer = self.answer(request).await?;
                if answer.status() == StatusCode::UNAUTHORIZED {
                    tokens.refused(&token).await;
                }
                return Ok(answer);
            }
        }
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Incoming>, ClientError> {
        let (method, begun) = (request.method().clone(), self.clock.monotonic());
        if let Some(metrics) = &self.metrics {
            metrics.sent(&request);
        }
        let answer = self.http.request(request.map(Full::new));
        let answer =
            self.within_timeout(async { answer.await.map_err(ClientError::transport) }).await;
        if let Some(metrics) = &self.metrics {
            let took = self.clock.monotonic().saturating_duration_since(begun);
            metrics.answered(&method, &answer, took);
        }
        answer
    }

    /// Reads the body of an answer.
    async fn read(&self, method: &Method, body: Incoming) -> Result<Bytes, ClientError> {
        let body = self.within_timeout(read_whole(body)).await?;
        if let Some(metrics) = &self.metrics {
            metrics.received(method, &body);
        }
        Ok(body)
    }

    async fn within_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let work = std::pin::pin!(work);
        match futures::future::select(work, self.clock.sleep(REQUEST_TIMEOUT)).await {
            futures::future::Either::Left((result, _)) => result,
            futures::future::Either::Right(_) => {
                Err(ClientError::Timeout { seconds: REQUEST_TIMEOUT.as_secs() })
            }
        }
    }

    async fn get(&self, path_and_query: &str) -> Result<Response<Incoming>, ClientError> {
        let request = Request::get(path_and_query)
            .header("accept", "application/json")
            .body(Bytes::new())
            .map_err(ClientError::transport)?;
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = self.read(&Method::GET, body).await?;
        Err(refused(&Method::GET, path_and_query, &parts, &body))
    }
}

impl Transport for Remote {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
        async move {
            let method = request.method().clone();
            let (parts, body) = self.send(request).await?.into_parts();
            let body = self.read(&method, body).await?;
            Ok(Response::from_parts(parts, body))
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
        async move {
            let response = self.get(path_and_query).await?;
            let body = self.read(&Method::GET, response.into_body()).await?;
            decode_list(&body)
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        path_and_query: &'a str,
    ) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
        async move {
            let body = self.get(path_and_query).await?.into_body();
            let state = (body, WatchDecoder::default(), false);
            Ok(stream::unfold(state, next_event).boxed())
        }
        .boxed()
    }
}

/// The last member of the state says that an error was delivered and nothing may follow it.
async fn next_event(
    (mut body, mut decoder, failed): (Incoming, WatchDecoder, bool),
) -> Option<(Result<meta::WatchEvent, ClientError>, (Incoming, WatchDecoder, bool))> {
    if failed {
        return None;
    }
    loop {
        match decoder.next_event() {
            Ok(Some(event)) => return Some((Ok(event), (body, decoder, false))),
            Ok(None) => {}
            Err(error) => return Some((Err(error), (body, decoder, true))),
        }
        match body.frame().await? {
            Ok(frame) => {
                if let Some(bytes) = frame.data_ref() {
                    decoder.push(bytes);
                }
            }
            Err(error) => return Some((Err(ClientError::transport(error)), (body, decoder, true))),
        }
    }
}

async fn read_whole(body: Incoming) -> Result<Bytes, ClientError> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ClientError::TooLarge { limit: BODY_BYTES_MAX })
        }
        Err(error) => Err(ClientError::Transport(error)),
    }
}

fn bearer(token: &str) -> Result<HeaderValue, ClientError> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(ClientError::transport)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The TLS of a connection to the server, for protocols that [`Remote`] does not speak.
///
/// # Errors
/// When a certificate or the key cannot be used.
pub fn tls_config(config: &KubeConfig) -> Result<rustls::ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientError::transport)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&config.certificate_authority)? {
        roots.add(certificate).map_err(ClientError::transport)?;
    }
    let builder = builder.with_root_certificates(roots);
    match &config.credentials {
        Credentials::Certificate { certificate, key } => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(ClientError::transport)?;
            builder.with_client_auth_cert(certificates(certificate)?, key)
        }
        _ => return Ok(builder.with_no_client_auth()),
    }
    .map_err(ClientError::transport)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(ClientError::transport)
}
