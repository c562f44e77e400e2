//! Tells in events what the server's own loops find.
//!
//! What is found again while it is remembered brings the first event up to date, and makes no
//! other one. Upstream: `client-go/tools/record` and `client-go/tools/events`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use meta::names::is_dns1123_subdomain;
use meta::{Reason, Status, time};
use serde_json::{Value, json};

use crate::bootstrap::{send, send_as};
use crate::handle::Handle;
use crate::identity_lease::host;

/// How long an event is remembered after it was last seen: upstream's time after which a series is
/// over.
const MEMORY: Duration = Duration::from_secs(6 * 60);
/// Events that are remembered: upstream's number. Others are written anew each time.
const REMEMBERED: usize = 4096;

/// What an event is about.
pub(crate) struct Regarding<'a> {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) object: &'a Value,
}

/// What is told.
pub(crate) struct Finding {
    pub(crate) reason: String,
    /// What was being done; empty for a controller that tells of it in the core group.
    pub(crate) action: &'static str,
    pub(crate) note: String,
}

/// Writes the events of one controller.
pub(crate) struct EventRecorder {
    controller: &'static str,
    remembered: HashMap<Key, Remembered>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    regarding: String,
    reason: String,
    action: &'static str,
    /// Events of the core group are the same only if their words are.
    note: Option<String>,
}

struct Remembered {
    path: String,
    count: u32,
    seen: Instant,
}

impl EventRecorder {
    pub(crate) fn new(controller: &'static str) -> Self {
        Self { controller, remembered: HashMap::new() }
    }

    /// Writes a warning as an event of `events.k8s.io`, or counts it in its series.
    pub(crate) async fn warn(&mut self, handle: &Handle, about: &Regarding<'_>, found: Finding) {
        let now = handle.server.clock.now();
        let (namespace, name) = place(about, now);
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "eventTime": time::rfc3339_micro(now),
            "reportingController": self.controller,
            "reportingInstance": format!("{}-{}", self.controller, host()),
            "action": found.action,
            "reason": found.reason,
            "regarding": reference(about),
            "note": found.note,
            "type": "Warning",
        });
        let seen = time::rfc3339_micro(now);
        let again = |count: u32| json!({"series": {"count": count, "lastObservedTime": seen}});
        let key = key(about, &found, None);
        self.write(handle, key, (&path, &name), &event, again).await;
    }

    /// Writes a warning as an event of the core group, or counts it in the one that is there.
    pub(crate) async fn warn_core(
        &mut self,
        handle: &Handle,
        about: &Regarding<'_>,
        found: Finding,
    ) {
        let now = handle.server.clock.now();
        let (namespace, name) = place(about, now);
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "involvedObject": reference(about),
            "reason": found.reason,
            "message": found.note,
            "source": {"component": self.controller},
            "reportingComponent": self.controller,
            "reportingInstance": "",
            "firstTimestamp": time::rfc3339(now),
            "lastTimestamp": time::rfc3339(now),
            "count": 1,
            "type": "Warning",
        });
        let again = |count: u32| json!({"count": count, "lastTimestamp": time::rfc3339(now)});
        let key = key(about, &found, Some(found.note.clone()));
        self.write(handle, key, (&path, &name), &event, again).await;
    }

    async fn write(
        &mut self,
        handle: &Handle,
        key: Key,
        (path, name): (&str, &str),
        event: &Value,
        again: impl Fn(u32) -> Value,
    ) {
        let seen = handle.server.clock.monotonic();
        self.remembered.retain(|_, known| seen.saturating_duration_since(known.seen) < MEMORY);
        if let Some(known) = self.remembered.get_mut(&key) {
            known.count += 1;
            known.seen = seen;
            let (count, merge) = (again(known.count), "application/merge-patch+json");
            match send_as(handle, Method::PATCH, &known.path, merge, &count).await {
                // It has expired, or somebody has deleted it.
                Err(status) if status.is(Reason::NotFound) => {}
                outcome => return note_failure(&key.reason, outcome),
            }
        }
        let mut name = name.to_owned();
        let mut outcome = send(handle, Method::POST, path, event).await;
        if outcome.as_ref().is_err_and(|status| status.is(Reason::AlreadyExists)) {
            // Something else was told of the object at the same moment.
            name = uuid::Uuid::new_v4().to_string();
            let mut event = event.clone();
            event["metadata"]["name"] = json!(name);
            outcome = send(handle, Method::POST, path, &event).await;
        }
        let is_room = self.remembered.len() < REMEMBERED || self.remembered.contains_key(&key);
        if outcome.is_ok() && is_room {
            let path = format!("{path}/{name}");
            self.remembered.insert(key, Remembered { path, count: 1, seen });
            return;
        }
        note_failure(&key.reason, outcome);
    }
}

fn note_failure(reason: &str, outcome: Result<(), Status>) {
    if let Err(status) = outcome {
        tracing::warn!(%status, reason, "an event could not be written");
    }
}

/// The namespace and the name of an event.
fn place(about: &Regarding<'_>, now: Timestamp) -> (String, String) {
    let part = |field: &str| about.object["metadata"][field].as_str();
    let namespace = part("namespace").unwrap_or("default").to_owned();
    let name = format!("{}.{:x}", part("name").unwrap_or_default(), now.as_nanosecond());
    // Addresses of IPv6 are no part of a name.
    let name = if is_dns1123_subdomain(&name) { name } else { uuid::Uuid::new_v4().to_string() };
    (namespace, name)
}

fn reference(about: &Regarding<'_>) -> Value {
    let mut reference = json!({"kind": about.kind, "apiVersion": about.api_version});
    for field in ["namespace", "name", "uid", "resourceVersion"] {
        if let Some(value) = about.object["metadata"].get(field) {
            reference[field] = value.clone();
        }
    }
    reference
}

fn key(about: &Regarding<'_>, found: &Finding, note: Option<String>) -> Key {
    let regarding = reference(about).to_string();
    Key { regarding, reason: found.reason.clone(), action: found.action, note }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_called_by_its_object_if_that_makes_a_name() {
        let place = |object: Value| {
            let about = Regarding { api_version: "v1", kind: "Service", object: &object };
            place(&about, Timestamp::from_second(1).unwrap())
        };
        let service = json!({"metadata": {"namespace": "n", "name": "s"}});
        assert_eq!(place(service), ("n".to_owned(), "s.3b9aca00".to_owned()));
        let (namespace, name) = place(json!({"metadata": {"name": "fd00::1"}}));
        assert_eq!((namespace.as_str(), name.len()), ("default", 36));
    }
}
