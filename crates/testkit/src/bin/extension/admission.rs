//! Admission reviews: what becomes of an object is said by the path.
//!
//! | path | what it does |
//! |---|---|
//! | `/allow` | allows |
//! | `/allow-late` | the same after five seconds |
//! | `/deny` | refuses |
//! | `/label` | adds a label |
//! | `/marked` | refuses what has the label `marker: deny` |
//! | `/attach` | refuses to attach |
//! | `/exec` | refuses to execute |
//! | `/config-maps` | refuses the value `webhook-disallow` |
//! | `/stage-1`, `/stage-2` | adds a key to the data, the second only after the first |
//! | `/init-container` | adds one to a pod, with little said |
//! | `/unknown-field` | adds a field that the schema does not have |
//! | `/call-back/HOST` | allows after connecting to the HTTPS port of a host |
//! | `/garbage` | no review |

use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::say;

/// How late the late answer is.
const LATE: Duration = Duration::from_secs(5);

pub(crate) fn answer(request: &Request) -> Answer {
    let review = request.json();
    let asked = &review["request"];
    let (operation, name) = (&asked["operation"], &asked["name"]);
    say(&format!("{} {operation} {} {name}", request.path, asked["resource"]["resource"]));
    if request.path == "/garbage" {
        return Answer::text(200, "<html>");
    }
    let mut response = decide(&request.path, asked);
    response["uid"] = asked["uid"].clone();
    let kind = "AdmissionReview";
    let version = review["apiVersion"].clone();
    Answer::json(200, &json!({"kind": kind, "apiVersion": version, "response": response}))
}

fn decide(path: &str, asked: &Value) -> Value {
    let name = asked["name"].as_str().unwrap_or_default();
    let object = &asked["object"];
    let either = |holds: fn(&Value) -> bool| holds(object) || holds(&asked["oldObject"]);
    match path {
        "/deny" => refuse("this webhook denies all requests"),
        "/attach" => refuse(&format!("attaching to pod '{name}' is not allowed")),
        "/exec" => refuse(&format!("executing in pod '{name}' is not allowed")),
        "/allow-late" => {
            late();
            allow()
        }
        "/label" => {
            change(&json!([{"op": "add", "path": "/metadata/labels/hooked", "value": "yes"}]))
        }
        "/marked" if object["metadata"]["labels"]["marker"] == "deny" => {
            refuse("the object is marked")
        }
        "/config-maps" if either(|it| it["data"]["webhook-e2e-test"] == "webhook-disallow") => {
            refuse("the configmap contains unwanted key and value")
        }
        "/stage-1" if object["data"]["mutation-start"] == "yes" => {
            change(&json!([{"op": "add", "path": "/data/mutation-stage-1", "value": "yes"}]))
        }
        "/stage-2" if object["data"]["mutation-stage-1"] == "yes" => {
            change(&json!([{"op": "add", "path": "/data/mutation-stage-2", "value": "yes"}]))
        }
        "/init-container" => {
            let added = json!([{"name": "webhook-added-init-container",
                "image": "testkit-pod:1", "args": ["print", "added"], "resources": {}}]);
            change(&json!([{"op": "add", "path": "/spec/initContainers", "value": added}]))
        }
        "/unknown-field" => {
            change(&json!([{"op": "add", "path": "/data/unknown", "value": "pruned"}]))
        }
        path => match path.strip_prefix("/call-back/") {
            Some(host) if TcpStream::connect((host, 443)).is_err() => refuse("nobody is there"),
            _ => allow(),
        },
    }
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn refuse(why: &str) -> Value {
    json!({"allowed": false, "status": {"message": why}})
}

fn change(patch: &Value) -> Value {
    let patch = STANDARD.encode(patch.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

#[expect(clippy::disallowed_methods, reason = "it is real time that is to pass for the server")]
fn late() {
    std::thread::sleep(LATE);
}
