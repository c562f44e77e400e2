//! What extends a cluster in tests: one server that is an admission webhook, a conversion webhook and an
//! API of its own, over TLS.
//!
//! | request | answer |
//! |---|---|
//! | `/readyz` | `ok` |
//! | `/convert` | objects in another version, see `conversion.rs` |
//! | `/apis…` | the API `wardle.example.com/v1alpha1`, see `flunders.rs` |
//! | anything else | an admission review, see `admission.rs` |
//!
//! Usage: `testkit-extension PORT CERTIFICATE KEY`, the files in PEM; or
//! `testkit-extension discover TOKEN AUDIENCE`, a client of the cluster's issuer, see `discovery.rs`.

mod admission;
mod conversion;
mod discovery;
mod flunders;
mod http;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use self::flunders::Flunders;
use self::http::{Answer, Request};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["discover", token, audience] => {
            discovery::subject(token, audience).map(|subject| say(&subject))
        }
        [port, certificate, key] => serve(port, Path::new(certificate), Path::new(key)),
        _ => {
            say("usage: testkit-extension PORT CERTIFICATE KEY, or discover TOKEN AUDIENCE");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str, certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)?.collect();
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain?, key)
        .context("the certificate")?;
    let (config, flunders) = (Arc::new(config), Arc::new(Flunders::default()));
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    say(&format!("serving on port {port}"));
    for stream in listener.incoming().flatten() {
        let (config, flunders) = (config.clone(), flunders.clone());
        std::thread::spawn(move || {
            // A client that is gone is no reason to end.
            converse(stream, config, &flunders).ok();
        });
    }
    Ok(())
}

/// Answers the requests of a connection, one after the other.
fn converse(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    flunders: &Flunders,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    while let Some(request) = http::read(&mut stream)? {
        http::write(&mut stream, &answer(&request, flunders))?;
    }
    Ok(())
}

fn answer(request: &Request, flunders: &Flunders) -> Answer {
    match request.path.as_str() {
        "/readyz" | "/healthz" | "/livez" => Answer::text(200, "ok"),
        "/convert" => conversion::answer(request),
        path if path == "/apis" || path.starts_with("/apis/") => flunders.answer(request),
        path if path.starts_with("/openapi") => Answer::text(404, "404 page not found"),
        _ => admission::answer(request),
    }
}

/// Standard output is the pod's log. A reader that is gone is no reason to end.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}
