//! Pods.

use jiff::Timestamp;
use meta::time;
use serde_json::{Value, json};

use super::cells::{age, count, int, is_true, list, name, since, text, text_or};

pub(super) fn row(resource: &str, pod: &Value, now: Timestamp) -> Option<Vec<Value>> {
    (resource == "pods").then(|| cells(pod, now))
}

/// The condition of a row whose pod has ended; `kubectl get` uses it to tell such pods apart.
pub(super) fn completed(pod: &Value) -> Option<Value> {
    let phase = text(pod, "/status/phase");
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
}

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let reason = text_or(pod, "/status/reason", text(pod, "/status/phase")).to_owned();
    let mut state = State { reason, ..State::default() };
    let gated = condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated");
    if gated {
        state.reason = "SchedulingGated".to_owned();
    }
    state.total = count(pod, "/spec/containers") + restartable(pod).count();
    let initializing = init_containers(pod, &mut state);
    let initialized = condition(pod, "Initialized").is_some_and(|c| c["status"] == "True");
    if !initializing || initialized {
        main_containers(pod, &mut state);
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if text(pod, "/status/reason") == "NodeLost" {
            state.reason = "Unknown".to_owned();
        } else if !ended {
            state.reason = "Terminating".to_owned();
        }
    }
    let mut restarts = state.restarts.to_string();
    if let (true, Some(last)) = (state.restarts != 0, &state.last_restart) {
        restarts = format!("{restarts} ({} ago)", since(last, now));
    }
    vec![
        name(pod),
        json!(format!("{}/{}", state.ready, state.total)),
        json!(state.reason),
        json!(restarts),
        age(pod, now),
        json!(text_or(pod, "/status/podIPs/0/ip", text_or(pod, "/status/podIP", "<none>"))),
        json!(text_or(pod, "/spec/nodeName", "<none>")),
        json!(text_or(pod, "/status/nominatedNodeName", "<none>")),
        json!(readiness_gates(pod)),
    ]
}

#[derive(Default)]
struct State {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    side_restarts: i64,
    last_restart: Option<String>,
    last_side_restart: Option<String>,
}

/// Init containers that go on running beside the others.
fn restartable(pod: &Value) -> impl Iterator<Item = &str> {
    list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .filter_map(|container| container["name"].as_str())
}

fn condition<'a>(pod: &'a Value, wanted: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions").iter().find(|condition| condition["type"] == wanted)
}

/// Whether a pod is still at its init containers; then the reason says at which.
fn init_containers(pod: &Value, state: &mut State) -> bool {
    for (at, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        state.restarts += int(status, "/restartCount");
        remember(&mut state.last_restart, status);
        let side = restartable(pod).any(|name| status["name"] == name);
        if side {
            state.side_restarts += int(status, "/restartCount");
            remember(&mut state.last_side_restart, status);
        }
        let ended = status.pointer("/state/terminated");
        let waiting = text(status, "/state/waiting/reason");
        if ended.is_some_and(|ended| int(ended, "/exitCode") == 0) {
            continue;
        }
        if side && is_true(status, "/started") {
            state.ready += usize::from(is_true(status, "/ready"));
            continue;
        }
        state.reason = match ended {
            Some(ended) => format!("Init:{}", end_reason(ended)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{at}/{}", count(pod, "/spec/initContainers")),
        };
        return true;
    }
    false
}

fn main_containers(pod: &Value, state: &mut State) {
    state.restarts = state.side_restarts;
    state.last_restart = state.last_side_restart.take();
    let mut running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        state.restarts += int(status, "/restartCount");
        remember(&mut state.last_restart, status);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            state.reason = waiting.to_owned();
        } else if let Some(ended) = status.pointer("/state/terminated") {
            state.reason = end_reason(ended);
        } else if is_true(status, "/ready") && status.pointer("/state/running").is_some() {
            running = true;
            state.ready += 1;
        }
    }
    if state.reason == "Completed" && running {
        let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        state.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn end_reason(ended: &Value) -> String {
    match (text(ended, "/reason"), int(ended, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int(ended, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Keeps the latest end of an earlier run.
fn remember(last: &mut Option<String>, status: &Value) {
    let ended = text(status, "/lastState/terminated/finishedAt");
    let newer = match last {
        Some(last) => time::parse(ended).ok() > time::parse(last).ok(),
        None => !ended.is_empty(),
    };
    if newer {
        *last = Some(ended.to_owned());
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| {
        let wanted = gate["conditionType"].as_str().unwrap_or("");
        condition(pod, wanted).is_some_and(|condition| condition["status"] == "True")
    });
    format!("{}/{}", open.count(), gates.len())
}
