//! The port that a component of its own process serves: whether it is healthy, and its metrics.
//!
//! Upstream's `--secure-port`: health is told to everybody, the rest to whom the API server lets
//! have it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use client::{Client, ClientError};
use connection::Body;
use connection::listener::{Accept, Settings, serve};
use http::{Response, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use prometheus::{Encoder, TextEncoder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use stdx::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::command::alone::Alone;

/// Connections at once: probes, a collector of metrics, and whoever looks.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);

/// What answers requests.
struct OwnPort {
    client: Client,
    metrics: telemetry::Registry,
}

/// Where it is, and under which certificate.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Where health and metrics are served.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// At which port; 0 for none. Default: upstream's, 10257 for the controllers and 10259 for the
    /// scheduler.
    #[arg(long)]
    secure_port: Option<u16>,
    /// Certificate to serve with; default: one that is made for this process.
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
}

/// Serves until shutdown, at this port if nobody has chosen one.
pub(crate) async fn start(
    args: &Place,
    alone: &Alone,
    name: &str,
    default_port: u16,
) -> anyhow::Result<()> {
    let port = args.secure_port.unwrap_or(default_port);
    if port == 0 {
        return Ok(());
    }
    let address = SocketAddr::new(args.bind_address, port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen at {address}; choose another --secure-port"))?;
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (certificate, key) = match (&args.tls_cert_file, &args.tls_private_key_file) {
        (Some(certificate), Some(key)) => (read(certificate)?, read(key)?),
        _ => {
            let made = setup::self_signed(name, alone.clock.now())?;
            (made.certificate.into_bytes(), made.key.into_bytes())
        }
    };
    let certificates = CertificateDer::pem_slice_iter(&certificate);
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&key)?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let settings = Settings {
        tls: Arc::new(tls),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        header_timeout: HEADER_TIMEOUT,
        lanes: Arc::default(),
        clock: Arc::clone(&alone.clock),
    };
    let port = Arc::new(OwnPort { client: alone.client.clone(), metrics: alone.metrics.clone() });
    let accept: Accept = Arc::new(move |_| {
        let port = Arc::clone(&port);
        Arc::new(move |request| {
            let port = Arc::clone(&port);
            let token = request
                .headers()
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
                .map(str::to_owned);
            let path = request.uri().path().to_owned();
            Box::pin(async move { port.answer(&path, token).await })
        })
    });
    let shutdown: Shutdown = alone.shutdown.clone();
    drop(stdx::task::spawn("own port", serve(listener, settings, accept, shutdown)));
    Ok(())
}

impl OwnPort {
    async fn answer(&self, path: &str, token: Option<String>) -> Response<Body> {
        // Upstream's `--authorization-always-allow-paths`.
        if matches!(path, "/healthz" | "/livez" | "/readyz") {
            return text(StatusCode::OK, "ok".to_owned());
        }
        match self.may(path, token).await {
            Ok(Access::Granted) => {}
            Ok(Access::Unknown) => {
                return text(StatusCode::UNAUTHORIZED, "Unauthorized\n".to_owned());
            }
            Ok(Access::Denied(user)) => {
                let why = format!("Forbidden: User {user:?} cannot get path {path:?}.\n");
                return text(StatusCode::FORBIDDEN, why);
            }
            Err(error) => {
                tracing::warn!(error = %telemetry::Chain(&error), "access not reviewed");
                let why = "Internal Server Error\n".to_owned();
                return text(StatusCode::INTERNAL_SERVER_ERROR, why);
            }
        }
        if path != "/metrics" {
            return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
        }
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.metrics.gather(), &mut out) {
            Ok(()) => text(StatusCode::OK, String::from_utf8(out).unwrap_or_default()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn may(&self, path: &str, token: Option<String>) -> Result<Access, ClientError> {
        let Some(token) = token else { return Ok(Access::Unknown) };
        let review = TokenReview {
            spec: TokenReviewSpec { token, ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let reviewed = self.client.api::<TokenReview>("").create(&review).await?.status;
        let reviewed = reviewed.filter(|status| status.authenticated == Some(true));
        let Some(user) = reviewed.and_then(|status| status.user) else {
            return Ok(Access::Unknown);
        };
        let UserInfo { username, uid, groups, extra } = user;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: username.clone(),
                uid,
                groups,
                extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.client.api::<SubjectAccessReview>("").create(&review).await?;
        let is_allowed = answer.status.is_some_and(|status| status.allowed);
        let denied = || Access::Denied(username.unwrap_or_default());
        Ok(if is_allowed { Access::Granted } else { denied() })
    }
}

/// What a caller may do.
enum Access {
    Granted,
    Unknown,
    Denied(String),
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::chunks([Bytes::from(body)].into()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
