//! Tests written from the descriptions of upstream's conformance tests of controllers, named at
//! each: through the whole binary, with pods that run or, where nobody looks at them, on simulated
//! nodes.

mod budgets;
mod cron_jobs;
mod daemon_sets;
mod deployments;
mod endpoints;
mod garbage;
mod jobs;
mod namespaces;
mod quotas;
mod replicas;
mod stateful_sets;
mod statuses;
mod storage;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pause_for};

/// An image that no registry is asked for and no node has.
const ABSENT: &str = "absent.example/none:1";

/// The path of an object of the namespace `default`.
fn at(resource: &str, name: &str) -> String {
    format!("{}/{name}", collection(resource))
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// A condition of an object, or nothing.
fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.cloned().unwrap_or_default()
}

/// A template of pods that serve.
fn template(labels: &Value) -> Value {
    json!({ "metadata": { "labels": labels }, "spec": { "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": ["serve", "8080"] }] } })
}

/// The same of an image that is never there.
fn broken(labels: &Value) -> Value {
    let mut template = template(labels);
    let container = &mut template["spec"]["containers"][0];
    container["image"] = json!(ABSENT);
    container["imagePullPolicy"] = json!("Never");
    template
}

/// A template of pods that no node has room for.
fn nowhere(labels: &Value) -> Value {
    let mut template = template(labels);
    template["spec"]["nodeSelector"] = json!({ "nowhere": "at-all" });
    template
}

/// An object with a selector, a template for it and more.
fn workload(name: &str, template: &Value, more: &Value) -> Value {
    let labels = &template["metadata"]["labels"];
    let mut spec = json!({ "selector": { "matchLabels": labels }, "template": template });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "metadata": { "name": name, "labels": labels }, "spec": spec })
}

/// A replication controller, whose selector is a mere map.
fn controller(name: &str, template: &Value, replicas: usize) -> Value {
    let mut object = workload(name, template, &json!({ "replicas": replicas }));
    object["spec"]["selector"] = template["metadata"]["labels"].clone();
    object
}

impl Harness {
    /// Waits until an object is as it should be, and gives it.
    fn becomes(&self, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("{path}: {what}"), || {
            self.request(Method::GET, path, None).ok().filter(|object| is(object))
        })
    }

    /// Waits until an object is gone.
    fn goes(&self, path: &str) {
        self.until(&format!("{path} is gone"), || (!self.exists(path)).then_some(()));
    }

    /// The objects of a collection.
    fn items(&self, path: &str) -> Vec<Value> {
        self.get(path)["items"].as_array().unwrap().clone()
    }

    /// The pods with a label, whatever becomes of them.
    fn pods(&self, selector: &str) -> Vec<Value> {
        self.items(&format!("{}?labelSelector={selector}", collection("pods")))
    }

    /// The version from which on [`Self::seen`] tells what happens after this.
    fn now(&self, path: &str) -> String {
        self.get(path)["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }

    /// What a watch with a selector tells of a collection since a version: sorts and objects.
    fn seen(&self, path: &str, selector: &str, since: &str) -> Vec<(String, Value)> {
        let query =
            format!("watch=1&resourceVersion={since}&labelSelector={selector}&timeoutSeconds=1");
        let told = self.text(&format!("{path}?{query}"));
        let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let part = |event: Value| {
            let sort = event["type"].as_str().unwrap().to_owned();
            assert_ne!(sort, "ERROR", "{event}");
            (sort, event["object"].clone())
        };
        events.map(part).collect()
    }

    /// Deletes an object as the policy says.
    fn delete_as(&self, path: &str, policy: &str) {
        let how = json!({ "propagationPolicy": policy });
        self.request(Method::DELETE, path, Some(&how)).unwrap();
    }

    /// Replaces an object after a change, as often as somebody else was faster.
    fn update(&self, path: &str, change: impl Fn(&mut Value)) -> Value {
        self.until(&format!("{path} is updated"), || {
            let object_path = path.trim_end_matches("/status");
            let mut object = self.get(object_path);
            change(&mut object);
            match self.request(Method::PUT, path, Some(&object)) {
                Err(error) if error.is_conflict() => None,
                result => Some(result.unwrap()),
            }
        })
    }

    /// Patches an object with a strategic merge patch.
    fn merge(&self, path: &str, patch: &Value) -> Value {
        let kind = "application/strategic-merge-patch+json";
        let answer = self.send(Method::PATCH, path, kind, Some(patch)).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// Makes sure that something holds for some time, not only now.
    fn stays(&self, what: &str, time: Duration, holds: impl Fn() -> bool) {
        let pause = Duration::from_millis(100);
        for _ in 0..time.as_millis() / pause.as_millis() {
            assert!(holds(), "{what}");
            pause_for(pause);
        }
    }

    /// Waits for an event of the namespace `default`.
    fn tells(&self, reason: &str, message: &str) {
        self.until(&format!("{reason}: {message}"), || {
            let events = self.items(&collection("events"));
            let is = |event: &&Value| {
                let text = event["message"].as_str().unwrap_or_default();
                event["reason"] == reason && text.contains(message)
            };
            events.iter().find(is).map(drop)
        });
    }
}
