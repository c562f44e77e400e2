//! The API `wardle.example.com/v1alpha1` with one resource, `flunders`, kept in memory.
//!
//! It believes the headers that a front proxy sets, and answers nobody without them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::say;

const GROUP: &str = "wardle.example.com";
const VERSION: &str = "wardle.example.com/v1alpha1";

/// Objects by namespace and name.
#[derive(Default)]
pub(crate) struct Flunders(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Value>,
    version: u64,
}

impl Flunders {
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let Some(user) = request.header("x-remote-user") else {
            return failure(401, "Unauthorized", "nobody says who asks");
        };
        say(&format!("{} {} for {user}", request.method, request.path));
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["apis"] => Answer::json(
                200,
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}),
            ),
            ["apis", GROUP] => Answer::json(200, &group()),
            ["apis", GROUP, "v1alpha1"] => Answer::json(200, &resources()),
            ["apis", GROUP, "v1alpha1", "flunders"] => self.list(""),
            ["apis", GROUP, "v1alpha1", "namespaces", namespace, "flunders"] => {
                match request.method.as_str() {
                    "POST" => self.create(namespace, request.json(), user),
                    "DELETE" => self.delete_all(namespace),
                    _ => self.list(namespace),
                }
            }
            ["apis", GROUP, "v1alpha1", "namespaces", namespace, "flunders", name] => {
                self.one(&request.method, namespace, name)
            }
            _ => failure(404, "NotFound", "the server could not find the requested resource"),
        }
    }

    fn create(&self, namespace: &str, mut object: Value, user: &str) -> Answer {
        let state = &mut *self.state();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = (namespace.to_owned(), name.clone());
        if state.objects.contains_key(&key) {
            let why = format!("flunders.{GROUP} {name:?} already exists");
            return failure(409, "AlreadyExists", &why);
        }
        state.version += 1;
        object["kind"] = json!("Flunder");
        object["apiVersion"] = json!(VERSION);
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["uid"] = json!(format!("flunder-{}", state.version));
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        object["metadata"]["annotations"]["made-by"] = json!(user);
        state.objects.insert(key, object.clone());
        Answer::json(201, &object)
    }

    fn one(&self, method: &str, namespace: &str, name: &str) -> Answer {
        let key = (namespace.to_owned(), name.to_owned());
        let state = &mut *self.state();
        let found = match method {
            "DELETE" => state.objects.remove(&key),
            _ => state.objects.get(&key).cloned(),
        };
        match found {
            Some(object) => Answer::json(200, &object),
            None => failure(404, "NotFound", &format!("flunders.{GROUP} {name:?} not found")),
        }
    }

    fn delete_all(&self, namespace: &str) -> Answer {
        self.state().objects.retain(|(of, _), _| of != namespace);
        self.list(namespace)
    }

    fn list(&self, namespace: &str) -> Answer {
        let state = self.state();
        let objects = state.objects.iter();
        let of = objects.filter(|((found, _), _)| namespace.is_empty() || found == namespace);
        let items: Vec<&Value> = of.map(|(_, object)| object).collect();
        Answer::json(
            200,
            &json!({"kind": "FlunderList", "apiVersion": VERSION,
                "metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn group() -> Value {
    let version = json!({"groupVersion": VERSION, "version": "v1alpha1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version],
        "preferredVersion": version})
}

/// Nobody can watch, so that nobody tries.
fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "verbs": ["create", "delete", "deletecollection", "get", "list"]}]})
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    Answer::json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code}),
    )
}
