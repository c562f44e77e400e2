//! A conversion webhook, played by the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::{define, definition, version};
use crate::fixture::Fixture;
use crate::https;

/// What the webhook does with a request.
pub(super) enum Reply {
    /// The converted objects.
    Objects(Vec<Value>),
    /// This response, whatever the request's uid is.
    Response(Value),
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing, for a long time.
    Never,
}

/// A webhook: its port and how many objects it was asked to convert each time.
pub(super) struct Converter {
    port: u16,
    pub(super) asked: Arc<Mutex<Vec<usize>>>,
}

impl Converter {
    pub(super) async fn serve(server: &Fixture, reply: fn(&Value) -> Reply) -> Self {
        let names = ["localhost", "127.0.0.1"];
        let asked: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = asked.clone();
        let port = https::serve(server, &names, move |request| {
            let seen = seen.clone();
            async move { answer(request, reply, &seen).await }
        })
        .await;
        Self { port, asked }
    }

    /// The conversion of a definition.
    pub(super) fn conversion(&self, server: &Fixture) -> Value {
        let url = format!("https://localhost:{}/convert", self.port);
        let bundle = STANDARD.encode(&server.authority.pem);
        json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": url, "caBundle": bundle}}})
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    reply: fn(&Value) -> Reply,
    seen: &Mutex<Vec<usize>>,
) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("a review");
    let request = &review["request"];
    let count = request["objects"].as_array().map_or(0, Vec::len);
    seen.lock().expect("nobody panicked").push(count);
    let response = match reply(request) {
        Reply::Objects(objects) => json!({"uid": request["uid"],
            "result": {"status": "Success"}, "convertedObjects": objects}),
        Reply::Response(response) => response,
        Reply::Bytes(bytes) => return Response::new(Full::new(bytes.into())),
        Reply::Never => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            Value::Null
        }
    };
    let body = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": response});
    Response::new(Full::new(body.to_string().into()))
}

/// v1 has `hostPort`, v2 has `host` and `port`.
pub(super) fn host_and_port(request: &Value) -> Reply {
    let wanted = request["desiredAPIVersion"].as_str().expect("a version").to_owned();
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let convert = |mut object: Value| {
        let spec = object["spec"].clone();
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        object["spec"] = match wanted.as_str() {
            "example.com/v1" => json!({"hostPort": format!("{}:{}", text("host"), text("port"))}),
            _ => {
                let (host, port) = spec["hostPort"]
                    .as_str()
                    .and_then(|text| text.split_once(':'))
                    .unwrap_or_default();
                json!({"host": host, "port": port})
            }
        };
        object["apiVersion"] = json!(wanted);
        object
    };
    Reply::Objects(objects.into_iter().map(convert).collect())
}

/// The names of the two fields in each version.
const NAMES: [(&str, [&str; 2]); 3] =
    [("v1", ["size", "color"]), ("v2", ["magnitude", "colour"]), ("v3", ["breadth", "tint"])];

/// Renames the fields; objects that say so are not converted to v3.
fn rename(request: &Value) -> Reply {
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let names = |version: &str| {
        let version = version.strip_prefix("example.com/").unwrap();
        NAMES.iter().find(|(name, _)| *name == version).unwrap().1
    };
    let mut converted = Vec::new();
    for object in request["objects"].as_array().unwrap() {
        let is_broken = object["metadata"]["annotations"]["broken"] == "yes";
        if is_broken && wanted == "example.com/v3" {
            let result = json!({"status": "Failure", "message": "it is broken"});
            return Reply::Response(json!({"uid": request["uid"], "result": result}));
        }
        let (from, to) = (names(object["apiVersion"].as_str().unwrap()), names(wanted));
        let mut spec = json!({});
        for (from, to) in from.into_iter().zip(to) {
            if let Some(value) = object["spec"].get(from) {
                spec[to] = value.clone();
            }
        }
        let mut object = object.clone();
        object["spec"] = spec;
        object["apiVersion"] = json!(wanted);
        converted.push(object);
    }
    Reply::Objects(converted)
}

/// A server with a definition of three versions, between which a webhook renames fields.
pub(super) async fn renaming() -> (Fixture, Converter) {
    let server = Fixture::start().await;
    let converter = Converter::serve(&server, rename).await;
    let text = json!({"type": "string"});
    let of = |(name, fields): (&str, [&str; 2])| {
        version(name, name == "v1", &json!({fields[0]: text, fields[1]: text}))
    };
    let mut definition = definition(&json!(NAMES.map(of)));
    definition["spec"]["conversion"] = converter.conversion(&server);
    define(&server, &definition).await;
    (server, converter)
}
