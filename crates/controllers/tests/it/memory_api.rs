//! An API server in memory, for component tests of what speaks to one.
//!
//! It stores JSON objects under their paths, gives uids and resource versions, watches, patches
//! and deletes with finalizers and preconditions. It has no validation, defaults, authorization or
//! selectors beyond names: what a test needs of those it writes itself. It refuses the
//! requests that a test names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use client::{Client, ClientError, ObjectList, Transport, WatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Response};
use meta::{Object, Reason, ResourceVersion, Status, WatchEvent};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The server. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct MemoryApi {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    grown: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Objects by collection path without namespace, namespace and name.
    objects: BTreeMap<Key, Value>,
    /// Everything that happened: type, key, object.
    log: Vec<(&'static str, Key, Value)>,
    /// Requests that fail: method, a part of the path, and why.
    refused: Vec<(Method, String, Reason)>,
    /// The collection of which watchers are told nothing.
    held: Option<String>,
    /// What other servers answer, by path.
    answers: BTreeMap<String, Value>,
}

/// The content type of strategic merge patches.
const STRATEGIC: &[u8] = b"application/strategic-merge-patch+json";

/// What a refused request is told.
pub(crate) const REFUSED: &str = "not today";

/// An object, or why not.
type Answer = Result<Value, Box<Status>>;

/// Collection path without namespace, namespace and name.
type Key = (String, String, String);

/// A path, taken apart.
struct Target {
    collection: String,
    namespace: String,
    name: String,
    subresource: String,
    /// Of events the object that they are about.
    involved: String,
}

impl MemoryApi {
    /// A client of this server.
    pub(crate) fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Creates an object below a collection path, such as `/api/v1/namespaces/n/pods`.
    pub(crate) fn create(&self, collection: &str, object: Value) -> Value {
        let target = Target::parse(&format!("{collection}/"));
        self.post(&target, object).expect("the object is new")
    }

    /// Changes an object by a merge patch.
    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Value {
        self.patch_object(&Target::parse(path), patch, false).expect("the object exists")
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, path: &str) {
        self.delete_object(&Target::parse(path), &Value::Null).expect("the object exists");
    }

    /// An object, if it exists.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(&Target::parse(path).key()).cloned()
    }

    /// Everything that an object has been, oldest first.
    pub(crate) fn history(&self, path: &str) -> Vec<Value> {
        let key = Target::parse(path).key();
        let state = self.lock();
        let of_it = state.log.iter().filter(|entry| entry.1 == key);
        of_it.map(|entry| entry.2.clone()).collect()
    }

    /// The objects of a collection, in one namespace or in all.
    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        let target = Target::parse(&format!("{collection}/"));
        let state = self.lock();
        let matching = state.objects.iter().filter(|(key, _)| target.contains(key));
        matching.map(|(_, object)| object.clone()).collect()
    }

    /// From now on fails requests of a method whose path has this part, with the text
    /// [`REFUSED`]; what the test itself does is not refused.
    pub(crate) fn refuse(&self, method: Method, part: &str) {
        self.lock().refused.push((method, part.to_owned(), Reason::InternalError));
    }

    /// The same for requests that would never be answered otherwise.
    pub(crate) fn forbid(&self, method: Method, part: &str) {
        self.lock().refused.push((method, part.to_owned(), Reason::Forbidden));
    }

    /// From now on tells watchers of a collection nothing, as a slow network would.
    pub(crate) fn hold(&self, collection: &str) {
        self.lock().held = Some(Target::parse(collection).collection);
    }

    /// Tells them what they missed, and all that follows.
    pub(crate) fn release(&self) {
        self.lock().held = None;
        self.inner.grown.send_modify(|_| {});
    }

    /// Answers reads of a path as a server of an API of its own would.
    pub(crate) fn answers(&self, path: &str, answer: Value) {
        self.lock().answers.insert(path.to_owned(), answer);
    }

    /// Refuses nothing any more.
    pub(crate) fn refuse_nothing(&self) {
        self.lock().refused.clear();
    }

    /// Whether there is an event of this reason with this text.
    pub(crate) fn has_told(&self, reason: &str, text: &str) -> bool {
        let events = self.list("/api/v1/events");
        events.iter().any(|event| event["reason"] == reason && event["message"] == text)
    }

    /// Waits for an event.
    pub(crate) async fn tells(&self, reason: &str, text: &str) {
        self.eventually(&format!("{reason}: {text}"), |api| api.has_told(reason, text)).await;
    }

    /// Waits until `holds` of the state, and fails the test when it does not in ten seconds.
    pub(crate) async fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut grown = self.inner.grown.subscribe();
        let wait = async {
            while !holds(self) {
                // What controllers count follows the last change without another one.
                let look_again = tokio::time::sleep(std::time::Duration::from_millis(20));
                tokio::select! {
                    changed = grown.changed() => {
                        changed.expect("the server lives as long as the test");
                    }
                    () = look_again => {}
                }
            }
        };
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The change at a place of the log, unless watchers have to wait for it.
    fn next(&self, at: usize, target: &Target) -> Option<(&'static str, Key, Value)> {
        let state = self.lock();
        let is_held = state.held.as_ref() == Some(&target.collection);
        state.log.get(at).filter(|_| !is_held).cloned()
    }

    fn answer(&self, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path();
        let is_refused = |(method, part, _): &&(Method, String, Reason)| {
            request.method() == method && path.contains(part)
        };
        if let Some((_, _, reason)) = self.lock().refused.iter().find(is_refused) {
            return Err(failure(*reason, REFUSED));
        }
        let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let of_another = self.lock().answers.get(path).cloned();
        if let Some(document) = of_another.or_else(|| discovery(path)) {
            return Ok(document);
        }
        let mut target = Target::parse(path);
        match *request.method() {
            Method::GET if target.name.is_empty() && !target.collection.ends_with('/') => {
                Ok(json!({ "items": self.list(path) }))
            }
            Method::GET => self.lock().objects.get(&target.key()).cloned().ok_or(not_found()),
            Method::POST if target.subresource == "binding" => {
                let node = &body["target"]["name"];
                self.patch_object(&target, &json!({ "spec": { "nodeName": node } }), false)
            }
            Method::POST => self.post(&target, body),
            Method::PUT => {
                target.name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                self.put(&target, body)
            }
            Method::PATCH => {
                let kind = request.headers().get("content-type");
                let strategic = kind.is_some_and(|kind| kind.as_bytes().starts_with(STRATEGIC));
                self.patch_object(&target, &body, strategic)
            }
            Method::DELETE if target.name.is_empty() => {
                for object in self.list(path.trim_end_matches('/')) {
                    let mut one = Target::parse(path);
                    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
                    one.namespace = text("namespace").unwrap_or_default();
                    one.name = text("name").unwrap_or_default();
                    self.delete_object(&one, &body)?;
                }
                Ok(json!({ "kind": "Status" }))
            }
            Method::DELETE => self.delete_object(&target, &body),
            _ => Err(failure(Reason::MethodNotAllowed, "not allowed")),
        }
    }

    fn post(&self, target: &Target, mut object: Value) -> Answer {
        let mut state = self.lock();
        let next = state.version + 1;
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            let prefix = meta["generateName"].as_str().unwrap_or_default();
            meta["name"] = format!("{prefix}{next:05}").into();
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let key = (target.collection.clone(), target.namespace.clone(), name);
        if !target.namespace.is_empty() {
            meta["namespace"] = target.namespace.as_str().into();
        }
        if state.objects.contains_key(&key) {
            return Err(failure(Reason::AlreadyExists, "already exists"));
        }
        if meta["uid"].is_null() {
            meta["uid"] = format!("uid-{next}").into();
        }
        meta["generation"] = 1.into();
        meta["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        Ok(self.store(&mut state, "ADDED", key, object))
    }

    fn put(&self, target: &Target, object: Value) -> Answer {
        let mut state = self.lock();
        let key = target.key();
        let present = state.objects.get(&key).ok_or(not_found())?;
        let sent = &object["metadata"]["resourceVersion"];
        if !sent.is_null() && *sent != present["metadata"]["resourceVersion"] {
            return Err(failure(Reason::Conflict, "changed meanwhile"));
        }
        let mut next = present.clone();
        if target.subresource == "status" {
            next["status"] = object["status"].clone();
            // The server takes these from whoever writes a status.
            let annotations = &object["metadata"]["annotations"];
            if !annotations.is_null() {
                next["metadata"]["annotations"] = annotations.clone();
            }
        } else {
            next = object;
        }
        Ok(self.settle(&mut state, key, next))
    }

    fn patch_object(&self, target: &Target, patch: &Value, strategic: bool) -> Answer {
        let mut state = self.lock();
        let key = target.key();
        let present = state.objects.get(&key).ok_or(not_found())?;
        for field in ["uid", "resourceVersion"] {
            let sent = &patch["metadata"][field];
            if !sent.is_null() && *sent != present["metadata"][field] {
                return Err(failure(Reason::Conflict, &format!("{field} differs")));
            }
        }
        let mut next = present.clone();
        merge(&mut next, patch, strategic);
        if next == *present {
            return Ok(next);
        }
        if next["spec"] != present["spec"] {
            next["metadata"]["generation"] =
                (present["metadata"]["generation"].as_i64().unwrap_or(1) + 1).into();
        }
        Ok(self.settle(&mut state, key, next))
    }

    fn delete_object(&self, target: &Target, options: &Value) -> Answer {
        let mut state = self.lock();
        let key = target.key();
        let mut object = state.objects.get(&key).cloned().ok_or(not_found())?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err(failure(Reason::Conflict, &format!("{field} differs")));
            }
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            if !list.iter().any(|present| present == finalizer) {
                let list: Vec<_> = list.into_iter().chain([finalizer.into()]).collect();
                object["metadata"]["finalizers"] = list.into();
            }
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z".into();
        }
        if state.objects.get(&key) == Some(&object) {
            return Ok(object);
        }
        Ok(self.settle(&mut state, key, object))
    }

    /// Stores a change, or removes what is deleted and has no finalizer left.
    fn settle(&self, state: &mut State, key: Key, object: Value) -> Value {
        let meta = &object["metadata"];
        let held = meta["finalizers"].as_array().is_some_and(|list| !list.is_empty())
            || object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        let kind =
            if !meta["deletionTimestamp"].is_null() && !held { "DELETED" } else { "MODIFIED" };
        self.store(state, kind, key, object)
    }

    fn store(&self, state: &mut State, kind: &'static str, key: Key, mut object: Value) -> Value {
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        if kind == "DELETED" {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key.clone(), object.clone());
        }
        state.log.push((kind, key, object.clone()));
        self.inner.grown.send_replace(state.log.len());
        object
    }
}

impl Transport for MemoryApi {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
        let (code, body) = match self.answer(&request) {
            Ok(value) => (200, value),
            Err(status) => (status.code, serde_json::to_value(&status).unwrap_or_default()),
        };
        let response = Response::builder().status(code).body(Bytes::from(body.to_string()));
        async move { response.map_err(ClientError::transport) }.boxed()
    }

    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
        let target = Target::parse_collection(path);
        let state = self.lock();
        let matching = state.objects.iter().filter(|(key, _)| target.contains(key));
        let items = matching.map(|(_, object)| decode(object)).collect();
        let resource_version = ResourceVersion(state.version);
        drop(state);
        let list = ObjectList { resource_version, continue_token: String::new(), items };
        async move { Ok(list) }.boxed()
    }

    fn watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
        let target = Target::parse_collection(path);
        let from = path.split("resourceVersion=").nth(1).and_then(|rest| rest.split('&').next());
        let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (this, grown) = (self.clone(), self.inner.grown.subscribe());
        let start = (this, grown, target, 0_usize, from);
        let events =
            futures::stream::unfold(start, |(this, mut grown, target, mut at, from)| async move {
                loop {
                    let entry = this.next(at, &target);
                    let Some((kind, key, object)) = entry else {
                        grown.changed().await.ok()?;
                        continue;
                    };
                    at += 1;
                    if !target.is_about(&object) {
                        continue;
                    }
                    let object_state = decode(&object);
                    if object_state.header().resource_version.0 <= from || !target.contains(&key) {
                        continue;
                    }
                    let event = match kind {
                        "ADDED" => WatchEvent::Added(object_state),
                        "DELETED" => WatchEvent::Deleted(object_state),
                        _ => WatchEvent::Modified(object_state),
                    };
                    return Some((Ok(event), (this, grown, target, at, from)));
                }
            });
        async move { Ok(events.boxed()) }.boxed()
    }
}

impl Target {
    fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let prefix = if parts[0] == "api" { 2 } else { 3 };
        let (group, mut rest) = parts.split_at(prefix.min(parts.len()));
        let mut namespace = "";
        // `namespaces/n` alone is the namespace itself, and so are its subresources.
        if rest.len() > 2 && rest[0] == "namespaces" && !["status", "finalize"].contains(&rest[2]) {
            namespace = rest[1];
            rest = &rest[2..];
        }
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        Self {
            collection: format!("{}/{}", group.join("/"), part(0)),
            namespace: namespace.to_owned(),
            name: part(1),
            subresource: part(2),
            involved: String::new(),
        }
    }

    /// A collection with its query; of selectors only `metadata.name` counts, and of watches of
    /// events `involvedObject.name`.
    fn parse_collection(path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut target = Self::parse(path);
        let selected = |field: &str| {
            let name = query.split(&format!("fieldSelector={field}%3D")).nth(1)?;
            name.split('&').next().map(str::to_owned)
        };
        target.name = selected("metadata.name").unwrap_or(target.name);
        target.involved = selected("involvedObject.name").unwrap_or_default();
        target
    }

    /// Whether an event of a watch is about what was asked for.
    fn is_about(&self, object: &Value) -> bool {
        self.involved.is_empty() || object["involvedObject"]["name"] == self.involved.as_str()
    }

    fn key(&self) -> Key {
        (self.collection.clone(), self.namespace.clone(), self.name.clone())
    }

    fn contains(&self, (collection, namespace, name): &Key) -> bool {
        *collection == self.collection
            && (self.namespace.is_empty() || *namespace == self.namespace)
            && (self.name.is_empty() || *name == self.name)
    }
}

fn decode(object: &Value) -> Arc<Object> {
    Arc::new(
        Object::from_json(Bytes::from(object.to_string())).expect("what is stored is an object"),
    )
}

fn not_found() -> Box<Status> {
    failure(Reason::NotFound, "not found")
}

fn failure(reason: Reason, message: &str) -> Box<Status> {
    Box::new(Status::failure(reason, message))
}

/// A merge patch; a strategic one also merges conditions by type and owner references by uid.
fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(list) = into[list].as_array_mut() {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let by = match name.as_str() {
            "conditions" => Some("type"),
            "ownerReferences" => Some("uid"),
            _ => None,
        };
        match (by, value) {
            (_, Value::Null) => {
                if let Some(fields) = into.as_object_mut() {
                    fields.remove(name);
                }
            }
            (Some(key), Value::Array(items)) if strategic => {
                merge_list(&mut into[name], items, key);
            }
            _ => merge(&mut into[name], value, strategic),
        }
    }
}

fn merge_list(into: &mut Value, items: &[Value], key: &str) {
    let mut list = into.as_array().cloned().unwrap_or_default();
    for item in items {
        let at = list.iter().position(|present| present[key] == item[key]);
        if item["$patch"] == "delete" {
            at.into_iter().for_each(|at| drop(list.remove(at)));
        } else if let Some(at) = at {
            merge(&mut list[at], item, true);
        } else {
            list.push(item.clone());
        }
    }
    *into = list.into();
}

/// Plural, kind and whether it is in namespaces.
type Resource = (&'static str, &'static str, bool);

/// What the discovery documents list.
const SERVED: [(&str, &[Resource]); 5] = [
    ("example.io/v1", &[("widgets", "Widget", true), ("widgets/scale", "Scale", true)]),
    (
        "v1",
        &[
            ("pods", "Pod", true),
            ("namespaces", "Namespace", false),
            ("configmaps", "ConfigMap", true),
            ("serviceaccounts", "ServiceAccount", true),
            ("services", "Service", true),
            ("endpoints", "Endpoints", true),
            ("nodes", "Node", false),
            ("persistentvolumeclaims", "PersistentVolumeClaim", true),
        ],
    ),
    (
        "apps/v1",
        &[
            ("deployments", "Deployment", true),
            ("replicasets", "ReplicaSet", true),
            ("daemonsets", "DaemonSet", true),
            ("statefulsets", "StatefulSet", true),
            ("controllerrevisions", "ControllerRevision", true),
        ],
    ),
    ("batch/v1", &[("jobs", "Job", true), ("cronjobs", "CronJob", true)]),
    ("discovery.k8s.io/v1", &[("endpointslices", "EndpointSlice", true)]),
];

fn discovery(path: &str) -> Option<Value> {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    if path == "/apis" {
        let groups = SERVED.iter().filter_map(|(served, _)| served.split_once('/'));
        let group = |(group, version): (&str, &str)| {
            let served =
                json!({ "groupVersion": format!("{group}/{version}"), "version": version });
            json!({ "name": group, "versions": [served], "preferredVersion": served })
        };
        return Some(json!({ "groups": groups.map(group).collect::<Vec<_>>() }));
    }
    let served = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?;
    let (_, resources) = SERVED.iter().find(|(name, _)| *name == served)?;
    let resource = |(name, kind, namespaced): &Resource| {
        json!({ "name": name, "kind": kind, "namespaced": namespaced, "singularName": "",
            "verbs": verbs })
    };
    let resources: Vec<_> = resources.iter().map(resource).collect();
    Some(json!({ "groupVersion": served, "resources": resources }))
}
