//! The server behind one `APIService`, and the connection to it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use http::{Request, Response};
use hyper::body::Incoming;
use meta::Object;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::discovery::Description;
use crate::proxy::service_endpoint;
use crate::server::Server;
use crate::tls;
use connection::Body;
use connection::outbound::{self, Shared};

/// A server that does not take a connection by then is taken to be gone.
const CONNECT: Duration = Duration::from_secs(10);
/// Upstream's default.
const PORT: u16 = 443;

/// A server of another API.
pub(crate) struct Backend {
    /// Name of the `APIService`.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) group_priority: i64,
    pub(crate) version_priority: i64,
    /// What its condition says.
    pub(crate) is_available: bool,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    trust: Trust,
    tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
    /// One connection is enough for HTTP/2.
    shared: Arc<Mutex<Option<Shared>>>,
    description: Arc<Mutex<Description>>,
    /// Held while it is asked for its documents.
    pub(super) documenting: Arc<tokio::sync::Mutex<()>>,
}

/// Host and port.
pub(super) type Endpoint = (String, u16);

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those of these authorities, PEM.
    Authorities(Vec<u8>),
    /// Anybody's.
    Anybody,
}

#[derive(Deserialize)]
struct ApiService {
    spec: Spec,
    #[serde(default)]
    status: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    service: Option<ServiceReference>,
    #[serde(default, rename = "insecureSkipTLSVerify")]
    insecure_skip_tls_verify: bool,
    #[serde(default)]
    ca_bundle: String,
    #[serde(default)]
    group_priority_minimum: i64,
    #[serde(default)]
    version_priority: i64,
}

#[derive(Deserialize)]
struct ServiceReference {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
struct State {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Backend {
    /// The server an `APIService` names; `None` when that is this one.
    pub(super) fn of(object: &Object) -> Option<Self> {
        let ApiService { spec, status } = object.decode().ok()?;
        let service = spec.service?;
        let trust = if spec.insecure_skip_tls_verify {
            Trust::Anybody
        } else {
            let bundle = base64::engine::general_purpose::STANDARD.decode(&spec.ca_bundle);
            Trust::Authorities(bundle.unwrap_or_default())
        };
        let is_true = |found: &Condition| found.r#type == "Available" && found.status == "True";
        Some(Self {
            name: object.header().name.clone(),
            group: spec.group,
            version: spec.version,
            group_priority: spec.group_priority_minimum,
            version_priority: spec.version_priority,
            is_available: status.conditions.iter().any(is_true),
            namespace: service.namespace,
            service: service.name,
            port: service.port.unwrap_or(PORT),
            trust,
            tls: OnceLock::new(),
            shared: Arc::default(),
            description: Arc::default(),
            documenting: Arc::default(),
        })
    }

    /// Whether the same connection serves for both.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let place = |it: &Self| (it.namespace.clone(), it.service.clone(), it.port);
        place(self) == place(other) && self.trust == other.trust
    }

    pub(super) fn with_connection_of(self, other: &Self) -> Self {
        Self {
            shared: other.shared.clone(),
            description: other.description.clone(),
            documenting: other.documenting.clone(),
            tls: other.tls.clone(),
            ..self
        }
    }

    /// Sends a request. Those that switch protocols have a connection of their own, which only
    /// HTTP/1 allows.
    pub(super) async fn send(
        &self,
        server: &Server,
        request: Request<Body>,
        switches: bool,
    ) -> Result<Response<Incoming>, SendError> {
        if !switches && let Some(mut sender) = self.kept() {
            return sender.send(over_http2(request, self)).await.map_err(SendError::Http);
        }
        let endpoint = self.endpoint(server).map_err(SendError::Resolve)?;
        let stream = self.connect(server, &endpoint, switches).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let mut sender = self.share(stream).await?;
            return sender.send(over_http2(request, self)).await.map_err(SendError::Http);
        }
        outbound::send(Box::new(stream), request).await.map_err(SendError::Http)
    }

    /// Sends a request to one endpoint, over a connection of its own.
    pub(super) async fn send_to(
        &self,
        server: &Server,
        endpoint: &Endpoint,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        let stream = self.connect(server, endpoint, false).await?;
        let sent = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let mut line = Shared::begin(Box::new(stream)).await.map_err(SendError::Http)?;
            line.send(over_http2(request, self)).await
        } else {
            outbound::send(Box::new(stream), request).await
        };
        sent.map_err(SendError::Http)
    }

    /// One of the places where the server is.
    pub(super) fn endpoint(&self, server: &Server) -> Result<Endpoint, String> {
        service_endpoint(server, &self.namespace, &self.service, self.port)
    }

    /// What the server said of its API when it was last asked.
    pub(super) fn description(&self) -> MutexGuard<'_, Description> {
        self.description.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name in the server's certificate.
    pub(super) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    fn trust(&self) -> Option<&[u8]> {
        match &self.trust {
            Trust::Authorities(pem) => Some(pem),
            Trust::Anybody => None,
        }
    }

    fn kept(&self) -> Option<Shared> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.clone().filter(|sender| !sender.is_closed())
    }

    async fn share(
        &self,
        stream: tokio_rustls::client::TlsStream<TcpStream>,
    ) -> Result<Shared, SendError> {
        let shared = Shared::begin(Box::new(stream)).await.map_err(SendError::Http)?;
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
        Ok(shared)
    }

    async fn connect(
        &self,
        server: &Server,
        (host, port): &Endpoint,
        switches: bool,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, SendError> {
        let pki = &server.config.pki;
        let config = self.tls.get_or_init(|| tls::aggregated_config(pki, self.trust()));
        let mut config = (**config.as_ref().map_err(|why| SendError::Tls(why.clone()))?).clone();
        if switches {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let name =
            ServerName::try_from(self.server_name()).map_err(|e| SendError::Tls(e.to_string()))?;
        let connecting = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true).ok();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        tokio::select! {
            connected = connecting => connected.map_err(|error| {
                SendError::Connect(format!("dial tcp {host}:{port}: {error}"))
            }),
            () = server.clock.sleep(CONNECT) => {
                Err(SendError::Connect(format!("dial tcp {host}:{port}: i/o timeout")))
            }
        }
    }
}

/// HTTP/2 wants the whole address in the request, and no `Host`.
fn over_http2(mut request: Request<Body>, backend: &Backend) -> Request<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = format!("https://{}{path}", backend.server_name()).parse() {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(http::header::HOST);
    request
}

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The service leads nowhere.
    #[error("{0}")]
    Resolve(String),
    /// The certificates to use are unusable.
    #[error("{0}")]
    Tls(String),
    /// Nobody is there, or not who was meant.
    #[error("{0}")]
    Connect(String),
    /// The connection broke.
    #[error("{0}")]
    Http(#[source] hyper::Error),
}
