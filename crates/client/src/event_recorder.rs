//! Events about objects, correlated as upstream `client-go/tools/record` does: a repeated event
//! raises the count of the first one, many similar ones are combined, and one object may not write
//! more than a few in a row.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use stdx::shutdown::Shutdown;
use tokio::sync::mpsc;

use crate::{Client, Patch};

/// Events that wait to be written; further ones are dropped, as upstream's broadcaster does.
const QUEUE_MAX: usize = 1000;
/// Correlations that are remembered: upstream `maxLruCacheEntries`.
const REMEMBERED_MAX: usize = 4096;
/// Similar events after which they are combined, and for how long they count.
const COMBINE_AFTER: u32 = 10;
const COMBINE_WITHIN: Duration = Duration::from_secs(600);
/// Events that one source may write about one object at once, and how soon it may write one more.
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL_SECS: f64 = 300.0;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Nothing to worry about.
    Normal,
    /// Someone should look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// API version of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Namespace, empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// The version the event was seen at, or empty.
    pub resource_version: String,
    /// The part of the object, such as `spec.containers{app}`, or empty.
    pub field_path: String,
}

impl Regarding {
    /// The reference to a typed object.
    pub fn object<K>(object: &K) -> Self
    where
        K: k8s_openapi::Metadata<Ty = ObjectMeta>,
    {
        let metadata = object.metadata();
        Self {
            api_version: K::API_VERSION.to_owned(),
            kind: K::KIND.to_owned(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            field_path: String::new(),
        }
    }
}

#[derive(Debug)]
struct Message {
    regarding: Regarding,
    kind: EventType,
    reason: String,
    text: String,
    at: Timestamp,
}

/// Takes events and writes them in the background. Clones share the queue.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Message>,
    clock: SharedClock,
}

impl EventRecorder {
    /// Starts the task that writes events of `component` (and, for node agents, `host`).
    pub fn spawn(
        client: Client,
        clock: SharedClock,
        component: &str,
        host: &str,
        shutdown: &Shutdown,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            client,
            clock: Arc::clone(&clock),
            component: component.to_owned(),
            host: host.to_owned(),
            correlator: Correlator::default(),
        };
        let shutdown = shutdown.clone();
        drop(stdx::task::spawn("event-recorder", writer.run(messages, shutdown)));
        Self { queue, clock }
    }

    /// Queues an event. Never blocks; when the queue is full the event is dropped.
    pub fn record(
        &self,
        regarding: &Regarding,
        kind: EventType,
        reason: &str,
        text: impl Into<String>,
    ) {
        let message = Message {
            regarding: regarding.clone(),
            kind,
            reason: reason.to_owned(),
            text: text.into(),
            at: self.clock.now(),
        };
        if self.queue.try_send(message).is_err() {
            tracing::debug!(reason, object = regarding.name, "event dropped, the queue is full");
        }
    }
}

struct Writer {
    client: Client,
    clock: SharedClock,
    component: String,
    host: String,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, shutdown: Shutdown) {
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                () = shutdown.begun() => None,
            };
            let Some(message) = message else { return };
            self.write(message).await;
        }
    }

    async fn write(&mut self, message: Message) {
        let now = self.clock.monotonic();
        let Some(correlated) = self.correlator.correlate(&message, now) else { return };
        let namespace = namespace_of(&message.regarding);
        let events = self.client.api::<Event>(namespace);
        if let Some((name, count)) = &correlated.existing {
            let patch = Patch::Strategic(json!({
                "count": count,
                "message": correlated.text,
                "lastTimestamp": Time(message.at),
            }));
            match events.patch(name, &patch).await {
                Ok(_) => return,
                // The event has expired meanwhile: write it anew.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%error, "event could not be updated");
                    return;
                }
            }
        }
        let event = self.event(&message, &correlated);
        let name = event.metadata.name.clone().unwrap_or_default();
        match events.create(&event).await {
            Ok(_) => self.correlator.written(&correlated.key, name),
            Err(error) => tracing::debug!(%error, "event could not be written"),
        }
    }

    fn event(&self, message: &Message, correlated: &Correlated) -> Event {
        let Message { regarding, at, .. } = message;
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // Upstream's name: the object's and the time in hexadecimal nanoseconds.
        let name = format!("{}.{:x}", regarding.name, at.as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace_of(regarding).to_owned()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: optional(&regarding.api_version),
                kind: optional(&regarding.kind),
                namespace: optional(&regarding.namespace),
                name: optional(&regarding.name),
                uid: optional(&regarding.uid),
                resource_version: optional(&regarding.resource_version),
                field_path: optional(&regarding.field_path),
            },
            reason: Some(message.reason.clone()),
            message: Some(correlated.text.clone()),
            type_: Some(message.kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(*at)),
            last_timestamp: Some(Time(*at)),
            source: Some(EventSource {
                component: optional(&self.component),
                host: optional(&self.host),
            }),
            reporting_component: optional(&self.component),
            reporting_instance: optional(&self.host),
            ..Default::default()
        }
    }
}

fn namespace_of(regarding: &Regarding) -> &str {
    // Events of cluster-scoped objects live in `default`, as upstream's.
    if regarding.namespace.is_empty() { "default" } else { &regarding.namespace }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SimilarKey {
    regarding: Regarding,
    kind: EventType,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SameKey {
    similar: SimilarKey,
    text: String,
}

struct Similar {
    texts: std::collections::BTreeSet<String>,
    last: Instant,
}

struct Written {
    name: String,
    count: i32,
}

struct Budget {
    tokens: f64,
    last: Instant,
}

#[derive(Default)]
struct Correlator {
    similar: HashMap<SimilarKey, Similar>,
    written: HashMap<SameKey, Written>,
    budgets: HashMap<Regarding, Budget>,
}

struct Correlated {
    key: SameKey,
    text: String,
    /// Name and new count of the event that this one repeats.
    existing: Option<(String, i32)>,
}

impl Correlator {
    /// What to write for a message; `None` when its object has written too many.
    fn correlate(&mut self, message: &Message, now: Instant) -> Option<Correlated> {
        self.forget_when_full();
        let mut regarding = message.regarding.clone();
        regarding.resource_version.clear();
        let similar = SimilarKey { regarding, kind: message.kind, reason: message.reason.clone() };
        let combined = self.is_combined(&similar, &message.text, now);
        if !self.spend(&similar.regarding, now) {
            return None;
        }
        // Combined events are the same event whatever their texts.
        let (text, same_text) = if combined {
            (format!("(combined from similar events): {}", message.text), String::new())
        } else {
            (message.text.clone(), message.text.clone())
        };
        let key = SameKey { similar, text: same_text };
        let existing = self.written.get_mut(&key).map(|written| {
            written.count += 1;
            (written.name.clone(), written.count)
        });
        Some(Correlated { key, text, existing })
    }

    fn written(&mut self, key: &SameKey, name: String) {
        self.written.insert(key.clone(), Written { name, count: 1 });
    }

    fn is_combined(&mut self, key: &SimilarKey, text: &str, now: Instant) -> bool {
        let similar = self
            .similar
            .entry(key.clone())
            .or_insert_with(|| Similar { texts: std::collections::BTreeSet::new(), last: now });
        if now.saturating_duration_since(similar.last) > COMBINE_WITHIN {
            similar.texts.clear();
        }
        similar.last = now;
        similar.texts.insert(text.to_owned());
        if similar.texts.len() < COMBINE_AFTER as usize {
            return false;
        }
        // The set stays at its bound: upstream forgets one of them too.
        similar.texts.pop_first();
        true
    }

    fn spend(&mut self, regarding: &Regarding, now: Instant) -> bool {
        let budget = self
            .budgets
            .entry(regarding.clone())
            .or_insert(Budget { tokens: SPAM_BURST, last: now });
        let elapsed = now.saturating_duration_since(budget.last).as_secs_f64();
        budget.tokens = (budget.tokens + elapsed / SPAM_REFILL_SECS).min(SPAM_BURST);
        budget.last = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    /// Forgetting everything costs at most a few events that are not counted together.
    fn forget_when_full(&mut self) {
        if self.similar.len() >= REMEMBERED_MAX {
            self.similar.clear();
        }
        if self.written.len() >= REMEMBERED_MAX {
            self.written.clear();
        }
        if self.budgets.len() >= REMEMBERED_MAX {
            self.budgets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use clock::Clock;

    use super::*;

    fn message(text: &str) -> Message {
        Message {
            regarding: Regarding { kind: "Pod".into(), name: "a".into(), ..Default::default() },
            kind: EventType::Normal,
            reason: "Pulled".into(),
            text: text.into(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_repeated_event_raises_the_count() {
        let now = clock::SystemClock.monotonic();
        let mut correlator = Correlator::default();
        let first = correlator.correlate(&message("x"), now).unwrap();
        assert!(first.existing.is_none());
        correlator.written(&first.key, "a.1".into());
        let second = correlator.correlate(&message("x"), now).unwrap();
        assert_eq!(second.existing, Some(("a.1".into(), 2)));
        assert!(correlator.correlate(&message("y"), now).unwrap().existing.is_none());
    }

    #[tokio::test]
    async fn many_similar_events_are_combined() {
        let now = clock::SystemClock.monotonic();
        let mut correlator = Correlator::default();
        for n in 0..9 {
            let event = correlator.correlate(&message(&n.to_string()), now).unwrap();
            assert_eq!(event.text, n.to_string());
        }
        let tenth = correlator.correlate(&message("9"), now).unwrap();
        assert_eq!(tenth.text, "(combined from similar events): 9");
    }

    #[tokio::test]
    async fn an_object_cannot_flood_the_store() {
        let now = clock::SystemClock.monotonic();
        let mut correlator = Correlator::default();
        let passed = (0..40).filter(|_| correlator.correlate(&message("x"), now).is_some()).count();
        assert_eq!(passed, 25);
        let later = now + Duration::from_secs(300);
        assert!(correlator.correlate(&message("x"), later).is_some());
        assert!(correlator.correlate(&message("x"), later).is_none());
    }
}
