//! GET requests to containers, for probes and hooks, and for manifests. Certificates of containers are
//! not verified: upstream does not either, because a pod's certificate says nothing about its address.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use stdx::tls::AnyCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What is read of an answer's body: upstream `maxRespBodyLength`.
const BODY_BYTES_MAX: usize = 10 << 10;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// How it is sent.
pub(crate) struct How {
    /// Whom a server's certificate must come from; without any it is not verified.
    pub(crate) roots: Option<RootCertStore>,
    pub(crate) body_bytes_max: usize,
}

impl Get {
    /// The request an action asks for.
    ///
    /// # Errors
    /// When the port cannot be found.
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
    ) -> Result<Self, String> {
        let path = action.path.clone().unwrap_or_default();
        let headers = action.http_headers.iter().flatten();
        Ok(Self {
            https: action.scheme.as_deref() == Some("HTTPS"),
            host: host(action.host.as_deref(), pod_ip),
            port: port(&action.port, container)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    /// The URL as messages show it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.path)
    }

    /// Sends it and answers code and body; of a body that is too long, nothing.
    ///
    /// # Errors
    /// A text in the form in which Go's client tells its errors.
    pub(crate) async fn send(
        &self,
        clock: &dyn clock::Clock,
        timeout: Duration,
    ) -> Result<(u16, String), String> {
        let how = How { roots: None, body_bytes_max: BODY_BYTES_MAX };
        let (code, body) = self.send_as(how, clock, timeout).await?;
        // Nothing depends on it.
        Ok((code, String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()))
    }

    /// The same with limits of one's own; of a body that is too long there is none.
    ///
    /// # Errors
    /// A text in the form in which Go's client tells its errors.
    pub(crate) async fn send_as(
        &self,
        how: How,
        clock: &dyn clock::Clock,
        timeout: Duration,
    ) -> Result<(u16, Option<Bytes>), String> {
        let failed = |why: String| format!("Get {:?}: {why}", self.url());
        let late = || {
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned()
        };
        tokio::select! {
            answer = self.exchange(how) => answer.map_err(failed),
            () = clock.sleep(timeout) => Err(failed(late())),
        }
    }

    async fn exchange(&self, how: How) -> Result<(u16, Option<Bytes>), String> {
        let stream = connect(&self.host, self.port).await?;
        let most = how.body_bytes_max;
        if !self.https {
            return self.request(TokioIo::new(stream), most).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let config = tls_config(how.roots).map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        self.request(TokioIo::new(stream), most).await
    }

    async fn request<S>(
        &self,
        stream: TokioIo<S>,
        most: usize,
    ) -> Result<(u16, Option<Bytes>), String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let text = |error: &(dyn std::error::Error + 'static)| telemetry::Chain(error).to_string();
        let handshake = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(|error| text(&error))?;
        // The connection ends with the exchange, because the sender is dropped then.
        let driving = stdx::task::spawn("http-get", connection);
        let request = self.build().map_err(|error| text(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), most).collect().await;
        driving.abort();
        Ok((code, body.ok().map(http_body_util::Collected::to_bytes)))
    }

    fn build(&self) -> Result<http::Request<Empty<Bytes>>, http::Error> {
        let mut request = http::Request::get(&self.path);
        let given = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !given("host") {
            request = request.header("host", authority(&self.host, self.port));
        }
        if !given("user-agent") {
            let version = telemetry::VERSION.trim_start_matches('v');
            let version = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
            request = request.header("user-agent", format!("kube-probe/{version}"));
        }
        if !given("accept") {
            request = request.header("accept", "*/*");
        }
        request.header("connection", "close").body(Empty::new())
    }
}

/// Connects; the error is in the form in which Go tells it.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {}: connect: {why}", authority(host, port))
    })
}

/// The host an action asks for: the pod's address when it names none.
pub(crate) fn host(given: Option<&str>, pod_ip: &str) -> String {
    given.filter(|host| !host.is_empty()).unwrap_or(pod_ip).to_owned()
}

/// The port an action asks for, which may be the name of one of the container's.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0);
    number.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name}"),
    })
}

/// Host and port as one word.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn tls_config(roots: Option<RootCertStore>) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let any = AnyCertificate(Arc::clone(&provider));
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(any)),
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerPort;

    use super::*;

    #[test]
    fn a_port_is_a_number_or_a_name_of_the_container() {
        let container = Container {
            ports: Some(vec![ContainerPort {
                name: Some("http".into()),
                container_port: 8080,
                ..ContainerPort::default()
            }]),
            ..Container::default()
        };
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(port(&IntOrString::String("http".into()), &container), Ok(8080));
        assert_eq!(
            port(&IntOrString::String("x".into()), &container),
            Err("couldn't find port: x".into())
        );
        assert!(port(&IntOrString::Int(0), &container).is_err());
    }

    #[tokio::test]
    async fn errors_are_told_as_upstream_tells_them() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let get = Get {
            https: false,
            host: "127.0.0.1".into(),
            port,
            path: "/x".into(),
            headers: Vec::new(),
        };
        let error = get.send(&clock::SystemClock, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(
            error,
            format!(
                "Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: \
                 connection refused"
            )
        );
    }
}
