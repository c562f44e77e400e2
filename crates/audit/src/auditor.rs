//! The policy and the back ends of a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clock::SharedClock;
use jiff::Timestamp;

use crate::backend::Backend;
use crate::context::AuditContext;
use crate::event::{Event, Facts, Level, ObjectReference, Stage};
use crate::metrics::Metrics;
use crate::options::{LogOptions, OptionsError, WebhookOptions};
use crate::policy::{Asked, Policy, PolicyError};
use crate::webhook::TargetError;

/// How long the end of the process may be held up by events that cannot be delivered.
const FINISH: Duration = Duration::from_secs(10);

/// What a server is told about audit.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// The policy. Nothing is recorded without one.
    pub policy_file: Option<PathBuf>,
    /// Events in a file.
    pub log: Option<LogOptions>,
    /// Events for another server.
    pub webhook: Option<WebhookOptions>,
}

/// Decides what is recorded, and knows where to.
pub struct Auditor {
    policy: Policy,
    backends: Vec<Arc<Backend>>,
    metrics: Arc<Metrics>,
    clock: SharedClock,
}

/// Why a server cannot record what it should. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no usable policy.
    #[error("loading audit policy file")]
    Policy(#[source] PolicyError),
    /// Options make no sense.
    #[error(transparent)]
    Options(OptionsError),
    /// The log cannot be written.
    #[error("ensureLogFile: open {path}")]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The webhook cannot be called.
    #[error("initializing audit webhook")]
    Webhook(#[source] TargetError),
}

impl Auditor {
    /// Opens what is configured; `None` when nothing is to be recorded.
    ///
    /// # Errors
    /// When a policy, an option, a file or an address cannot be used.
    pub fn start(
        sinks: Sinks,
        clock: &SharedClock,
        registry: &telemetry::Registry,
    ) -> Result<Option<Arc<Self>>, StartError> {
        if let Some(log) = &sinks.log {
            log.check().map_err(StartError::Options)?;
        }
        if let Some(webhook) = &sinks.webhook {
            webhook.check().map_err(StartError::Options)?;
        }
        let policy = sinks.policy_file.as_deref().map(Policy::read).transpose();
        let Some(policy) = policy.map_err(StartError::Policy)? else {
            if sinks.log.is_some() || sinks.webhook.is_some() {
                tracing::info!("no audit policy file provided, no events will be recorded");
            }
            return Ok(None);
        };
        for warning in policy.warnings() {
            tracing::warn!(
                warning,
                "audit policy contains errors, falling back to lenient decoding"
            );
        }
        let metrics = Arc::new(Metrics::new(registry, clock.clone()));
        let mut backends = Vec::new();
        if let Some(options) = sinks.log {
            let path = options.path.clone();
            let log = Backend::log(options, clock, &metrics);
            let log = log.map_err(|source| StartError::Log { path, source })?;
            backends.push(Arc::new(log));
        }
        if let Some(options) = sinks.webhook {
            let webhook = Backend::webhook(options, clock, &metrics);
            backends.push(Arc::new(webhook.map_err(StartError::Webhook)?));
        }
        if backends.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { policy, backends, metrics, clock: clock.clone() })))
    }

    /// With back ends that a test looks into.
    #[cfg(test)]
    pub(crate) fn with(
        policy: Policy,
        backends: Vec<Arc<Backend>>,
        metrics: Arc<Metrics>,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self { policy, backends, metrics, clock })
    }

    /// Begins to record a request, if the policy wants it.
    pub fn begin(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        is_long_running: bool,
        facts: impl FnOnce() -> Facts,
    ) -> Option<Arc<AuditContext>> {
        let decision = self.policy.evaluate(asked);
        self.metrics.evaluated(decision.level);
        if decision.level == Level::None {
            return None;
        }
        let text = str::to_owned;
        let object = asked.is_resource.then(|| ObjectReference {
            resource: text(asked.resource),
            namespace: text(asked.namespace),
            name: text(asked.name),
            api_group: text(asked.group),
            api_version: text(asked.version),
            subresource: text(asked.subresource),
            ..ObjectReference::default()
        });
        let facts = facts();
        let event = Event {
            level: decision.level,
            stage: Stage::RequestReceived,
            stage_timestamp: facts.received,
            facts: Arc::new(facts),
            impersonated_user: None,
            object,
            response_status: None,
            request_object: None,
            response_object: None,
            omits_managed_fields: decision.omits_managed_fields,
            annotations: BTreeMap::new(),
        };
        Some(Arc::new(AuditContext::new(self.clone(), decision, is_long_running, event)))
    }

    /// Waits until what was recorded is where it should be, though not for ever.
    pub async fn finish(&self) {
        let finishing = futures::future::join_all(self.backends.iter().map(|it| it.finish()));
        tokio::select! {
            _ = finishing => {}
            () = self.clock.sleep(FINISH) => {
                tracing::warn!("some audit events could not be delivered before the end");
            }
        }
    }

    pub(crate) fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn made(&self) {
        self.metrics.made();
    }

    pub(crate) fn rejected(&self) {
        self.metrics.rejected();
    }
}
