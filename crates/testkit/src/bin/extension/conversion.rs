//! Conversion reviews: objects have `hostPort` in v1, `host` and `port` in v2.

use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::say;

pub(crate) fn answer(request: &Request) -> Answer {
    let review = request.json();
    let asked = &review["request"];
    let wanted = asked["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = asked["objects"].as_array().cloned().unwrap_or_default();
    say(&format!("/convert {} to {wanted}", objects.len()));
    let converted: Vec<Value> =
        objects.into_iter().map(|object| converted(object, wanted)).collect();
    let response = json!({"uid": asked["uid"], "result": {"status": "Success"},
        "convertedObjects": converted});
    let version = review["apiVersion"].clone();
    Answer::json(
        200,
        &json!({"kind": "ConversionReview", "apiVersion": version, "response": response}),
    )
}

fn converted(mut object: Value, wanted: &str) -> Value {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    if wanted.ends_with("/v1") {
        object["hostPort"] = json!(format!("{}:{}", text("host"), text("port")));
        remove(&mut object, &["host", "port"]);
    } else {
        let joint = text("hostPort");
        let (host, port) = joint.split_once(':').unwrap_or((&joint, ""));
        object["host"] = json!(host);
        object["port"] = json!(port);
        remove(&mut object, &["hostPort"]);
    }
    object["apiVersion"] = json!(wanted);
    object
}

fn remove(object: &mut Value, fields: &[&str]) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|name, _| !fields.contains(&name.as_str()));
    }
}
