//! Just enough of an API server: objects by path, lists and watches by field, merge patches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use client::{ClientError, ObjectList, Transport, WatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::{Method, Request, Response};
use meta::{Object, Reason, ResourceVersion, Status, WatchEvent};
use serde_json::{Value, json};
use tokio::sync::broadcast;

#[derive(Clone)]
struct Event {
    collection: String,
    object: Arc<Object>,
    value: Value,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Added,
    Modified,
    Deleted,
}

struct State {
    /// By path of the object.
    objects: BTreeMap<String, Value>,
    version: u64,
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    is_down: Arc<AtomicBool>,
    events: broadcast::Sender<Event>,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        let state = State { objects: BTreeMap::new(), version: 1 };
        let events = broadcast::Sender::new(4096);
        Self { state: Arc::new(Mutex::new(state)), is_down: Arc::default(), events }
    }

    /// Nobody answers while it is down.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<(), ClientError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(ClientError::transport(std::io::Error::other("nobody is there")));
        }
        Ok(())
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// All objects whose path begins so.
    pub(crate) fn below(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let found = state.objects.iter().filter(|(key, _)| key.starts_with(path));
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Creates or replaces.
    pub(crate) fn put(&self, path: &str, mut value: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        value["metadata"]["resourceVersion"] = state.version.to_string().into();
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["uid"] = format!("uid-{}", state.version).into();
        }
        let kind = match state.objects.insert(path.to_owned(), value.clone()) {
            None => Kind::Added,
            Some(_) => Kind::Modified,
        };
        self.tell(path, &value, kind);
        value
    }

    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.get(path).unwrap();
        change(&mut value);
        self.put(path, value);
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        if let Some(mut value) = state.objects.remove(path) {
            value["metadata"]["resourceVersion"] = state.version.to_string().into();
            self.tell(path, &value, Kind::Deleted);
        }
    }

    fn tell(&self, path: &str, value: &Value, kind: Kind) {
        let collection = path.rsplit_once('/').unwrap().0.to_owned();
        let event = Event { collection, object: object(value), value: value.clone(), kind };
        self.events.send(event).ok();
    }

    fn answer(&self, request: &Request<Bytes>) -> Result<Value, Box<Status>> {
        let path = request.uri().path().to_owned();
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let missing = || Box::new(Status::failure(Reason::NotFound, format!("{path} not found")));
        match *request.method() {
            Method::GET => self.get(&path).ok_or_else(missing),
            Method::POST if path.ends_with("/token") => Ok(json!({
                "metadata": {},
                "spec": { "audiences": [] },
                "status": { "token": "the-token", "expirationTimestamp": "2030-01-01T00:00:00Z" },
            })),
            Method::POST if path.ends_with("/tokenreviews") => {
                let known = body["spec"]["token"] == "good" || body["spec"]["token"] == "other";
                let user = json!({ "username": body["spec"]["token"], "groups": [] });
                let status = json!({ "authenticated": known, "user": user });
                Ok(json!({ "metadata": {}, "spec": body["spec"], "status": status }))
            }
            Method::POST if path.ends_with("/subjectaccessreviews") => {
                let allowed = body["spec"]["user"] == "good";
                let status = json!({ "allowed": allowed });
                Ok(json!({ "metadata": {}, "spec": body["spec"], "status": status }))
            }
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap();
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return Err(Box::new(Status::failure(Reason::AlreadyExists, path)));
                }
                Ok(self.put(&path, body))
            }
            Method::PUT => Ok(self.put(&path, body)),
            Method::PATCH => {
                let path = path.trim_end_matches("/status");
                let mut value = self.get(path).ok_or_else(missing)?;
                merge(&mut value, &body);
                Ok(self.put(path, value))
            }
            Method::DELETE => {
                let value = self.get(&path).ok_or_else(missing)?;
                let wanted = &body["preconditions"]["uid"];
                if !wanted.is_null() && *wanted != value["metadata"]["uid"] {
                    return Err(Box::new(Status::failure(Reason::Conflict, path)));
                }
                self.remove(&path);
                Ok(value)
            }
            _ => Err(Box::new(Status::failure(Reason::MethodNotAllowed, path))),
        }
    }
}

/// Merges as the server does: lists of conditions by type, everything else as RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else if key == "conditions" && into[key].is_array() {
            for condition in value.as_array().unwrap() {
                let list = into[key].as_array_mut().unwrap();
                list.retain(|old| old["type"] != condition["type"]);
                if condition["$patch"] != "delete" {
                    list.push(condition.clone());
                }
            }
        } else if let Some(items) = value.as_array() {
            let plain = items.iter().filter(|item| item.get("$patch").is_none());
            into[key] = plain.cloned().collect();
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn object(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_json(value.to_string().into()).unwrap())
}

/// The collection of a URL, and the field that is selected.
fn parse(url: &str) -> (String, Option<(String, String)>) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector="));
    let selector = selector.map(|text| {
        let text = text.replace("%3D", "=");
        let (field, value) = text.split_once('=').unwrap();
        (format!("/{}", field.replace('.', "/")), value.to_owned())
    });
    (path.to_owned(), selector)
}

fn selected(value: &Value, selector: &Option<(String, String)>) -> bool {
    selector.as_ref().is_none_or(|(field, wanted)| {
        value.pointer(field).and_then(Value::as_str) == Some(wanted.as_str())
    })
}

/// `/api/v1/pods` holds what is in `/api/v1/namespaces/*/pods`.
fn holds(collection: &str, of_object: &str) -> bool {
    if collection == of_object {
        return true;
    }
    let (Some((base, resource)), Some((_, other))) =
        (collection.rsplit_once('/'), of_object.rsplit_once('/'))
    else {
        return false;
    };
    resource == other && of_object.starts_with(&format!("{base}/namespaces/"))
}

impl Transport for ApiServer {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
        if let Err(error) = self.reach() {
            return async move { Err(error) }.boxed();
        }
        let (code, body) = match self.answer(&request) {
            Ok(value) => (200, value.to_string()),
            Err(status) => (status.code, serde_json::to_string(&status).unwrap()),
        };
        let response = Response::builder().status(code).body(Bytes::from(body)).unwrap();
        async move { Ok(response) }.boxed()
    }

    fn list<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
        if let Err(error) = self.reach() {
            return async move { Err(error) }.boxed();
        }
        let (collection, selector) = parse(url);
        let state = self.state.lock().unwrap();
        let items = state
            .objects
            .iter()
            .filter(|(path, _)| holds(&collection, path.rsplit_once('/').unwrap().0))
            .filter(|(_, value)| selected(value, &selector))
            .map(|(_, value)| object(value))
            .collect();
        let resource_version = ResourceVersion(state.version);
        let list = ObjectList { resource_version, continue_token: String::new(), items };
        async move { Ok(list) }.boxed()
    }

    fn watch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
        if let Err(error) = self.reach() {
            return async move { Err(error) }.boxed();
        }
        let (collection, selector) = parse(url);
        let from = url.split("resourceVersion=").nth(1).unwrap();
        let from: u64 = from.split('&').next().unwrap().parse().unwrap();
        // What happened between the list and the watch must not be lost.
        let receiver = self.events.subscribe();
        let missed: Vec<Value> = {
            let state = self.state.lock().unwrap();
            let newer = |value: &Value| {
                let version = value["metadata"]["resourceVersion"].as_str().unwrap();
                version.parse::<u64>().unwrap() > from
            };
            let held = state
                .objects
                .iter()
                .filter(|(path, _)| holds(&collection, path.rsplit_once('/').unwrap().0));
            held.map(|(_, value)| value.clone()).filter(|value| newer(value)).collect()
        };
        let missed: Vec<_> = missed
            .into_iter()
            .filter(|value| selected(value, &selector))
            .map(|value| Ok(WatchEvent::Modified(object(&value))))
            .collect();
        let later = stream::unfold(receiver, move |mut receiver| {
            let (collection, selector) = (collection.clone(), selector.clone());
            async move {
                loop {
                    let event = receiver.recv().await.ok()?;
                    if holds(&collection, &event.collection) && selected(&event.value, &selector) {
                        let event = match event.kind {
                            Kind::Added => WatchEvent::Added(event.object),
                            Kind::Modified => WatchEvent::Modified(event.object),
                            Kind::Deleted => WatchEvent::Deleted(event.object),
                        };
                        return Some((Ok(event), receiver));
                    }
                }
            }
        });
        async move { Ok(stream::iter(missed).chain(later).boxed()) }.boxed()
    }
}
