//! Writing a pod's status: the newest one, as a patch of what changed, until the API has it. That of
//! a static pod is written to its mirror pod, when there is one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::Typed;
use client::{Backoff, ClientError, Patch};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::kubelet::Kubelet;
use crate::pod::spec;

/// Delays between attempts when the API cannot be reached.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Takes statuses and writes the newest. Dropping it ends the writing.
pub(crate) struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    written: watch::Receiver<u64>,
    /// The object that was last found.
    found_uid: String,
}

/// What the API should have.
#[derive(Clone)]
struct Wanted {
    version: u64,
    status: PodStatus,
    /// What the API had when somebody else changed what is ours, and the version that asks to see
    /// to it.
    found: Option<(u64, PodStatus)>,
}

impl StatusWriter {
    /// Starts the task that writes the status of `pod`, whose present one is what the object has.
    pub(crate) fn spawn(kubelet: Arc<Kubelet>, pod: &Pod) -> Self {
        let is_static = kubelet.static_pods.has(pod);
        let present = pod.status.clone().unwrap_or_default();
        let wanted =
            watch::Sender::new(Wanted { version: 0, status: present.clone(), found: None });
        let (done, written) = watch::channel(0);
        let task = Task {
            kubelet,
            namespace: spec::namespace(pod).to_owned(),
            name: spec::name(pod).to_owned(),
            // A static pod is told about in its mirror pod, which comes later and may be replaced.
            uid: if is_static { String::new() } else { spec::uid(pod).to_owned() },
            shown: is_static.then(|| Arc::new(pod.clone())),
            present: vec![present],
            seen: 0,
        };
        drop(stdx::task::spawn("pod-status", task.run(wanted.subscribe(), done)));
        let found_uid = if is_static { String::new() } else { spec::uid(pod).to_owned() };
        Self { wanted, written, found_uid }
    }

    /// Asks for this status to be written. Never blocks.
    pub(crate) fn set(&self, status: &PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            if wanted.status == *status {
                return false;
            }
            wanted.version += 1;
            wanted.status.clone_from(status);
            true
        });
    }

    /// Is told what the API has. When others changed the kubelet's own conditions, as the node
    /// lifecycle controller does while it takes the node for lost, they are written again; a
    /// mirror pod that was not there before is told everything.
    pub(crate) fn found(&mut self, pod: &Pod) {
        let is_new = spec::uid(pod) != self.found_uid;
        spec::uid(pod).clone_into(&mut self.found_uid);
        let nothing = PodStatus::default();
        let found = match &pod.status {
            Some(found) => found,
            None if is_new => &nothing,
            None => return,
        };
        self.wanted.send_if_modified(|wanted| {
            let is_settled = *self.written.borrow() == wanted.version;
            if !is_new && (!is_settled || owned(found) == owned(&wanted.status)) {
                return false;
            }
            wanted.version += 1;
            wanted.found = Some((wanted.version, found.clone()));
            true
        });
    }

    /// The status that was last asked for.
    pub(crate) fn last(&self) -> PodStatus {
        self.wanted.borrow().status.clone()
    }

    /// Resolves when the API has the newest status. Safe to drop.
    pub(crate) async fn flushed(&mut self) {
        let version = self.wanted.borrow().version;
        self.written.wait_for(|written| *written >= version).await.ok();
    }
}

struct Task {
    kubelet: Arc<Kubelet>,
    namespace: String,
    name: String,
    /// Of the object of the API whose status is written.
    uid: String,
    /// The static pod, when it is one.
    shown: Option<Arc<Pod>>,
    /// What the API may have: what was written last, and what was found since. Which of them is the
    /// newer one is not known.
    present: Vec<PodStatus>,
    /// The newest version of what was found.
    seen: u64,
}

impl Task {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, written: watch::Sender<u64>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while wanted.changed().await.is_ok() {
            loop {
                let Wanted { version, status, found } = wanted.borrow_and_update().clone();
                if let Some((at, found)) = found.filter(|(at, _)| *at > self.seen) {
                    self.seen = at;
                    self.present.truncate(1);
                    self.present.push(found);
                }
                match self.write(&status).await {
                    Ok(()) => {
                        backoff.reset();
                        written.send_replace(version);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(
                            pod = format!("{}/{}", self.namespace, self.name),
                            error = %telemetry::Chain(&error),
                            "pod status not written, trying again"
                        );
                        self.kubelet.deps.clock.sleep(backoff.next_delay()).await;
                    }
                }
                if wanted.has_changed().is_err() {
                    return;
                }
            }
        }
    }

    async fn write(&mut self, status: &PodStatus) -> Result<(), ClientError> {
        if let Some(shown) = &self.shown {
            // Whoever sees a mirror pod come calls again.
            let Some(mirror) = self.kubelet.mirror_of(shown) else { return Ok(()) };
            if spec::uid(&mirror) != self.uid {
                spec::uid(&mirror).clone_into(&mut self.uid);
                self.present = vec![mirror.status.clone().unwrap_or_default()];
            }
        }
        let Some(patch) = patch(&self.uid, &self.present, status)? else { return Ok(()) };
        let api = self.kubelet.deps.client.api::<Pod>(&self.namespace);
        match api.patch_subresource(&self.name, "status", &Patch::Strategic(patch)).await {
            Ok(_) => {}
            // The pod is gone, or another one has its name.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        self.present = vec![status.clone()];
        Ok(())
    }
}

/// What turns any of some statuses into another; `None` when they are all the same.
fn patch(uid: &str, from: &[PodStatus], to: &PodStatus) -> Result<Option<Value>, ClientError> {
    let from = from.iter().map(object).collect::<Result<Vec<_>, _>>()?;
    let to = object(to)?;
    let mut changed = Map::new();
    for (key, value) in &to {
        if from.iter().all(|from| from.get(key) == Some(value)) {
            continue;
        }
        let value = match (key.as_str(), value) {
            // Lists merged by key, of which the kubelet owns every element: what is gone must go.
            ("podIPs" | "hostIPs", Value::Array(items)) => {
                let mut items = items.clone();
                items.insert(0, json!({ "$patch": "replace" }));
                Value::Array(items)
            }
            // Others' conditions stay, and what did not change need not be sent.
            ("conditions", Value::Array(items)) => {
                let before = || from.iter().map(|from| from.get(key).and_then(Value::as_array));
                let is_there = |item: &Value| {
                    before().all(|before| before.is_some_and(|before| before.contains(item)))
                };
                let new = items.iter().filter(|item| !is_there(item));
                let over: BTreeSet<_> = before()
                    .flatten()
                    .flatten()
                    .filter(|condition| is_over(condition, items))
                    .filter_map(|condition| condition["type"].as_str())
                    .collect();
                let over = over.iter().map(|kind| json!({ "$patch": "delete", "type": kind }));
                Value::Array(new.map(without_remains).chain(over).collect())
            }
            _ => value.clone(),
        };
        changed.insert(key.clone(), value);
    }
    let before = from.iter().flat_map(Map::keys);
    for key in before.filter(|key| !to.contains_key(*key) && *key != "conditions") {
        changed.insert(key.clone(), Value::Null);
    }
    if changed.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({ "metadata": { "uid": uid }, "status": changed })))
}

/// Whether a condition that is there only while it holds does so no more.
fn is_over(before: &Value, now: &[Value]) -> bool {
    let kind = &before["type"];
    (kind == api::pod::RESIZE_PENDING || kind == api::pod::RESIZE_IN_PROGRESS)
        && !now.iter().any(|condition| condition["type"] == *kind)
}

/// A condition whose reason and message go when they are absent: merging would keep them.
fn without_remains(condition: &Value) -> Value {
    let mut condition = condition.clone();
    for key in ["reason", "message"] {
        if condition[key].is_null() {
            condition[key] = Value::Null;
        }
    }
    condition
}

/// Type, status and reason of the conditions that only the kubelet writes.
fn owned(status: &PodStatus) -> Vec<(&str, &str, &str)> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let mut owned: Vec<_> = conditions
        .iter()
        .filter(|condition| matches!(condition.type_.as_str(), "Ready" | "ContainersReady"))
        .map(|condition| {
            let reason = condition.reason.as_deref().unwrap_or_default();
            (condition.type_.as_str(), condition.status.as_str(), reason)
        })
        .collect();
    owned.sort_unstable();
    owned
}

fn object(status: &PodStatus) -> Result<Map<String, Value>, ClientError> {
    match status.to_tree().map_err(ClientError::Encode)? {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let condition = |kind: &str, status: &str| PodCondition {
            type_: kind.into(),
            status: status.into(),
            ..PodCondition::default()
        };
        let before = PodStatus {
            phase: Some("Pending".into()),
            reason: Some("gone".into()),
            conditions: Some(vec![condition("Ready", "False"), condition("Foreign", "True")]),
            ..PodStatus::default()
        };
        let after = PodStatus {
            phase: Some("Running".into()),
            pod_ips: Some(vec![PodIP { ip: "10.0.0.9".into() }]),
            conditions: Some(vec![condition("Ready", "True"), condition("Foreign", "True")]),
            ..PodStatus::default()
        };
        assert_eq!(
            patch("u", std::slice::from_ref(&before), &after).unwrap().unwrap(),
            json!({
                "metadata": { "uid": "u" },
                "status": {
                    "phase": "Running",
                    "reason": null,
                    "podIPs": [{ "$patch": "replace" }, { "ip": "10.0.0.9" }],
                    "conditions": [
                        { "type": "Ready", "status": "True", "reason": null, "message": null },
                    ],
                },
            })
        );
        assert_eq!(patch("u", std::slice::from_ref(&after), &after).unwrap(), None);
        let mut resizing = after.clone();
        resizing.conditions.as_mut().unwrap().push(condition("PodResizeInProgress", "True"));
        assert_eq!(
            patch("u", &[resizing], &after).unwrap().unwrap()["status"],
            json!({ "conditions": [{ "$patch": "delete", "type": "PodResizeInProgress" }] })
        );
    }

    #[test]
    fn what_may_be_different_is_sent() {
        let phase = |phase: &str| PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
        let (pending, running) = (phase("Pending"), phase("Running"));
        let sent = patch("u", &[running, pending.clone()], &pending).unwrap().unwrap();
        assert_eq!(sent["status"], json!({ "phase": "Pending" }));
    }
}
