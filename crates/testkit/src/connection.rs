//! Connections to an API server that are no ordinary requests.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use client::KubeConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// A connection as the user of a kubeconfig, on which protocols can be switched, and with whom.
///
/// # Errors
/// When the server is not reached or not trusted.
pub async fn connect(kubeconfig: &Path) -> anyhow::Result<(TlsStream<TcpStream>, String)> {
    let config = KubeConfig::load(kubeconfig)?;
    let authority = config.server.strip_prefix("https://").context("https")?.trim_end_matches('/');
    let tcp = TcpStream::connect(authority).await?;
    tcp.set_nodelay(true)?;
    let mut tls = client::tls_config(&config)?;
    // Only this one lets protocols be switched.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let host = authority.rsplit_once(':').context("a port")?.0;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
    Ok((stream, authority.to_owned()))
}

/// Opens a websocket that speaks `protocol`.
///
/// # Errors
/// When the server refuses it, or speaks another protocol.
pub async fn websocket(
    kubeconfig: &Path,
    path: &str,
    protocol: &str,
) -> anyhow::Result<WebSocketStream<TlsStream<TcpStream>>> {
    let (tls, authority) = connect(kubeconfig).await?;
    let mut request = format!("wss://{authority}{path}").into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse()?);
    let (socket, answer) = tokio_tungstenite::client_async(request, tls).await?;
    let spoken = answer.headers().get("Sec-WebSocket-Protocol");
    ensure!(spoken.is_some_and(|spoken| spoken == protocol), "the server speaks {spoken:?}");
    Ok(socket)
}
