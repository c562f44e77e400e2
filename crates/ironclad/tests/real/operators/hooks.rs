//! The webhooks of an operator: conversion between its versions, defaults, and a limit.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use connection::{Body, RequestBody, listener};
use futures::FutureExt;
use http::{Request, Response};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use stdx::shutdown::Shutdown;
use tokio::net::TcpListener;

/// More than this does not fit into a basket.
pub(super) const LARGEST: i64 = 1000;

/// Running webhooks.
pub(super) struct Hooks {
    pub(super) address: SocketAddr,
    /// The authority of their certificate, base64 of PEM.
    pub(super) bundle: String,
    shutdown: Shutdown,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl Hooks {
    /// Serves them on a free port of the loopback.
    pub(super) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap().pem();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = listener::Settings {
            tls: Arc::new(tls),
            connections: Arc::new(tokio::sync::Semaphore::new(1000)),
            header_timeout: Duration::from_secs(10),
            lanes: Arc::default(),
            clock: Arc::new(clock::SystemClock),
        };
        let accept: listener::Accept = Arc::new(|_| Arc::new(|request| answer(request).boxed()));
        let shutdown = Shutdown::new();
        drop(stdx::task::spawn(
            "webhooks",
            listener::serve(listener, settings, accept, shutdown.clone()),
        ));
        let bundle = base64::engine::general_purpose::STANDARD.encode(certificate);
        Self { address, bundle, shutdown }
    }

    /// How the API server reaches one of them.
    pub(super) fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}/{path}", self.address), "caBundle": self.bundle})
    }
}

async fn answer(request: Request<hyper::body::Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let clock: clock::SharedClock = Arc::new(clock::SystemClock);
    let body = RequestBody::Incoming(body).read(&clock, Duration::from_secs(10)).await.unwrap();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    let request = review["request"].take();
    let response = match parts.uri.path() {
        "/convert" => convert(&request),
        "/default" => default(&request),
        _ => check(&request),
    };
    review["response"] = response;
    review["response"]["uid"] = request["uid"].clone();
    if let Some(review) = review.as_object_mut() {
        review.remove("request");
    }
    let mut response = Response::new(Body::from(review.to_string().into_bytes()));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// `size` of v1 is `capacity` in v2.
fn convert(request: &Value) -> Value {
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let (from, to) =
        if wanted.ends_with("/v2") { ("size", "capacity") } else { ("capacity", "size") };
    let converted = request["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = json!(wanted);
        if let Some(spec) = object["spec"].as_object_mut()
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.to_owned(), value);
        }
        object
    });
    let converted: Vec<Value> = converted.collect();
    json!({"result": {"status": "Success"}, "convertedObjects": converted})
}

fn default(request: &Value) -> Value {
    let patch = match &request["object"]["metadata"]["labels"] {
        Value::Null => json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]),
        _ => json!([{"op": "add", "path": "/metadata/labels/seen", "value": "yes"}]),
    };
    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

fn check(request: &Value) -> Value {
    let size = request["object"]["spec"]["size"].as_i64().unwrap_or_default();
    if size <= LARGEST {
        return json!({ "allowed": true });
    }
    let message = format!("a basket holds {LARGEST}, not {size}");
    json!({"allowed": false, "status": {"code": 422, "reason": "Invalid", "message": message}})
}
