//! What is recorded of requests, read back from the log as its readers do.

mod log;
mod objects;
mod secrets;
mod webhooks;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::{LogOptions, Mode, Sinks};
use clock::SystemClock;
use serde_json::Value;
use store::{LogStore, Options};

use crate::fixture::Fixture;

/// A server that records, and where.
pub(super) struct Recorded {
    pub(super) server: Fixture,
    pub(super) directory: tempfile::TempDir,
}

impl Recorded {
    /// With the rules of a policy.
    pub(super) async fn start(rules: &str) -> Self {
        Self::start_with(rules, |_| {}).await
    }

    pub(super) async fn start_with(rules: &str, change: impl FnOnce(&mut Sinks)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut sinks = sinks(&directory, rules);
        change(&mut sinks);
        let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
        let server =
            Fixture::start_configured(Arc::new(store), |config| config.audit = sinks).await;
        Self { server, directory }
    }

    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("audit.log")).unwrap_or_default()
    }

    /// All events that are written.
    pub(super) fn events(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events of what is fitting, as soon as there are so many.
    pub(super) async fn wait(&self, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut found = Vec::new();
        for _ in 0..400 {
            found = self.events().into_iter().filter(|event| fits(event)).collect();
            if found.len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }
}

/// A policy with these rules, and a log.
pub(super) fn sinks(directory: &tempfile::TempDir, rules: &str) -> Sinks {
    let policy = directory.path().join("policy.yaml");
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}\n");
    std::fs::write(&policy, text).unwrap();
    let mut log = LogOptions::new(log_path(directory));
    log.mode = Mode::Blocking;
    Sinks { policy_file: Some(policy), log: Some(log), webhook: None }
}

pub(super) fn log_path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("audit.log")
}

/// Everything at a level.
pub(super) fn all(level: &str) -> String {
    format!("rules: [{{level: {level}}}]")
}

/// Events about a path, whatever its query.
pub(super) fn of<'a>(path: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |event| {
        let uri = event["requestURI"].as_str().unwrap();
        uri.split('?').next() == Some(path)
    }
}
