//! Connecting to where a request goes.

use std::sync::Arc;
use std::time::Duration;

use connection::outbound::Stream;
use meta::{Reason, Status};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::{Scheme, Target};
use crate::context::RequestContext;
use stdx::tls::AnyCertificate;

/// A node or pod that does not answer by then is taken to be gone.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects, with TLS where the target wants it.
pub(super) async fn dial(ctx: &RequestContext, target: &Target) -> Result<Box<dyn Stream>, Status> {
    let address = target.authority();
    let unreachable = |why: String| {
        let message = format!("error trying to reach service: dial tcp {address}: {why}");
        Status::failure(Reason::ServiceUnavailable, message)
    };
    let connected = tokio::select! {
        connected = TcpStream::connect((target.host.as_str(), target.port)) => connected,
        () = ctx.server.clock.sleep(CONNECT) => return Err(unreachable("i/o timeout".to_owned())),
    };
    let stream = connected.map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).ok();
    let config = match target.scheme {
        Scheme::Http => return Ok(Box::new(stream)),
        Scheme::Kubelet => ctx.server.kubelet_tls.clone().ok_or_else(|| {
            unreachable("the server has no client certificate for kubelets".to_owned())
        })?,
        Scheme::Https => unverified().map_err(|error| unreachable(error.to_string()))?,
    };
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| unreachable(error.to_string()))?;
    let secured = tokio::select! {
        secured = TlsConnector::from(config).connect(name, stream) => secured,
        () = ctx.server.clock.sleep(CONNECT) => {
            return Err(unreachable("TLS handshake timeout".to_owned()));
        }
    };
    Ok(Box::new(secured.map_err(|error| unreachable(error.to_string()))?))
}

/// Pods and services have certificates nobody here knows; upstream does not verify them either.
fn unverified() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}
