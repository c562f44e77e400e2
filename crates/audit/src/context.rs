//! One request and what is recorded of it on its way.
//!
//! Upstream: `apiserver/pkg/audit/context.go`, `apiserver/pkg/endpoints/filters/audit.go`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use authn::UserInfo;
use bytes::Bytes;
use jiff::Timestamp;
use meta::Status;

use crate::auditor::Auditor;
use crate::backend::{Backend, Receipt};
use crate::event::{Event, Level, Media, ObjectReference, Recorded, ResponseStatus, Stage};
use crate::policy::Decision;

/// Annotations of one event. Webhooks may make up any number.
const ANNOTATIONS: usize = 256;

/// A request that is recorded. Its last event is made when it is completed or, for those that last
/// and for those that are given up, when the last clone is dropped.
pub struct AuditContext {
    auditor: Arc<Auditor>,
    decision: Decision,
    is_long_running: bool,
    state: Mutex<State>,
}

struct State {
    event: Event,
    is_started: bool,
    is_finished: bool,
}

/// The first event of a request could not be stored, and nothing may be done unrecorded.
#[derive(Debug, thiserror::Error)]
#[error("failed to store audit event")]
pub struct NotStored;

impl AuditContext {
    pub(crate) fn new(
        auditor: Arc<Auditor>,
        decision: Decision,
        is_long_running: bool,
        event: Event,
    ) -> Self {
        let state = Mutex::new(State { event, is_started: false, is_finished: false });
        Self { auditor, decision, is_long_running, state }
    }

    /// How much is recorded.
    pub fn level(&self) -> Level {
        self.decision.level
    }

    /// Whether the answer may last.
    pub fn is_long_running(&self) -> bool {
        self.is_long_running
    }

    /// Says that the request is about to be worked on.
    ///
    /// # Errors
    /// When that cannot be stored, and has to be.
    pub async fn received(&self) -> Result<(), NotStored> {
        let received = self.state().event.facts.received;
        let Some(event) = self.event(Stage::RequestReceived, received) else { return Ok(()) };
        for backend in self.auditor.backends() {
            let receipt = backend.put(&event).await;
            if backend.is_strict() && !receipt.wait().await {
                self.auditor.rejected();
                self.state().is_finished = true;
                return Err(NotStored);
            }
        }
        Ok(())
    }

    /// Says something beside. What has been said once stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let value = value.into();
        let annotations = &mut self.state().event.annotations;
        if let Some(before) = annotations.get(key) {
            if *before != value {
                tracing::warn!(key, "an audit annotation is set already, to something else");
            }
        } else if annotations.len() < ANNOTATIONS {
            annotations.insert(key.to_owned(), value);
        } else {
            tracing::warn!(key, "an event has too many audit annotations");
        }
    }

    /// The same for what a plugin or webhook says, whose keys have to be those of one.
    pub fn annotate_checked(&self, key: &str, value: impl Into<String>) {
        if key.split('/').count() == 2 && meta::names::qualified_name(key).is_empty() {
            self.annotate(key, value);
        } else {
            tracing::warn!(key, "an audit annotation has an invalid key");
        }
    }

    /// As whom the request is made.
    pub fn impersonated(&self, user: &UserInfo) {
        self.state().event.impersonated_user = Some(user.clone());
    }

    /// What was sent: its metadata, and what `object` gives, if it is recorded.
    pub fn requested(&self, metadata: &ObjectReference, object: impl FnOnce() -> Option<Recorded>) {
        let recorded = (self.level() >= Level::Request).then(object).flatten();
        let mut state = self.state();
        let about = state.event.object.get_or_insert_default();
        let fill = |own: &mut String, given: &String| {
            if own.is_empty() {
                own.clone_from(given);
            }
        };
        fill(&mut about.namespace, &metadata.namespace);
        fill(&mut about.name, &metadata.name);
        fill(&mut about.uid, &metadata.uid);
        fill(&mut about.resource_version, &metadata.resource_version);
        state.event.request_object = recorded;
    }

    /// What was sent as a patch.
    pub fn requested_patch(&self, media: Media, patch: &Bytes) {
        if self.level() >= Level::Request {
            let recorded = Recorded { media, chunks: vec![patch.clone()] };
            self.state().event.request_object = Some(recorded);
        }
    }

    /// How the request ended.
    pub fn responded(&self, status: ResponseStatus) {
        self.state().event.response_status = Some(status);
    }

    /// What was answered.
    pub fn responded_with(&self, object: Recorded) {
        if self.level() >= Level::RequestResponse {
            self.state().event.response_object = Some(object);
        }
    }

    /// Says that the answer of a request that may last has begun.
    pub async fn started(&self) {
        self.state().is_started = true;
        self.tell(Stage::ResponseStarted).await;
    }

    /// Says that the answer is complete, or as good as.
    pub async fn completed(&self) {
        if !std::mem::replace(&mut self.state().is_finished, true) {
            self.tell(Stage::ResponseComplete).await;
        }
    }

    /// Says that credentials were refused: the only event of such a request.
    pub async fn refused(&self) {
        self.state().is_finished = true;
        self.tell(Stage::ResponseStarted).await;
    }

    /// Says that the server panicked.
    pub async fn panicked(&self, what: &str) {
        let status =
            Status::failure(meta::Reason::InternalError, format!("APIServer panic'd: {what}"));
        let status = ResponseStatus::of(&status, 500);
        {
            let mut state = self.state();
            state.event.response_status = Some(status);
            state.is_finished = true;
        }
        self.tell(Stage::Panic).await;
    }

    /// Makes an event, and waits for those who are to be waited for.
    async fn tell(&self, stage: Stage) {
        let Some(event) = self.event(stage, self.auditor.now()) else { return };
        let mut receipts: Vec<Receipt> = Vec::new();
        for backend in self.auditor.backends() {
            receipts.push(backend.put(&event).await);
        }
        drop(event);
        for receipt in receipts {
            // What is lost has been counted.
            receipt.wait().await;
        }
    }

    fn event(&self, stage: Stage, at: Timestamp) -> Option<Arc<Event>> {
        if self.decision.omit_stages.contains(stage) {
            return None;
        }
        self.auditor.made();
        let mut state = self.state();
        state.event.stage = stage;
        state.event.stage_timestamp = at;
        let is_last = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        Some(Arc::new(if is_last { state.event.take() } else { state.event.clone() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AuditContext {
    fn drop(&mut self) {
        let is_started = {
            let mut state = self.state();
            if state.is_finished {
                return;
            }
            if state.event.response_status.is_none() {
                // Upstream's words for a client that has gone.
                state.event.response_status = Some(ResponseStatus {
                    status: "Success".to_owned(),
                    message: "Connection closed early".to_owned(),
                    ..ResponseStatus::of_code(200)
                });
            }
            state.is_started
        };
        let begun = (self.is_long_running && !is_started).then_some(Stage::ResponseStarted);
        for stage in begun.into_iter().chain([Stage::ResponseComplete]) {
            let Some(event) = self.event(stage, self.auditor.now()) else { continue };
            let backends = self.auditor.backends();
            let full: Vec<Arc<Backend>> =
                backends.iter().filter(|backend| !backend.offer(&event)).cloned().collect();
            if !full.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
                drop(stdx::task::spawn("late audit event", async move {
                    for backend in full {
                        backend.put(&event).await;
                    }
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
