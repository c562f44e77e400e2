//! The status that a kubelet would write about a pod.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod_facts::{ContainerFacts, PodFacts};
use super::pod_step::Report;

/// The addresses of a pod and its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) host: Ipv4Addr,
    pub(super) pod: Ipv4Addr,
}

/// A strategic patch of the pod's status, for this very pod.
pub(super) fn patch(pod: &PodFacts, report: Report, at: Addresses, now: Timestamp) -> Value {
    let time = meta::time::rfc3339(now);
    let containers = Containers { pod, report, time: &time };
    let runs = matches!(report, Report::Running { .. });
    let ended = matches!(report, Report::Succeeded | Report::Failed { .. });
    let why = match report {
        Report::Succeeded => "PodCompleted",
        Report::Failed { .. } => "PodFailed",
        _ => "ContainersNotReady",
    };
    let condition = |kind: &str, holds: bool, reason: &str| {
        let mut condition = json!({ "type": kind, "status": if holds { "True" } else { "False" },
            "lastProbeTime": null, "lastTransitionTime": time });
        if !holds {
            condition["reason"] = reason.into();
        }
        condition
    };
    let mut status = json!({
        "phase": match report {
            Report::Running { .. } | Report::Crashed => "Running",
            Report::Succeeded => "Succeeded",
            Report::Failed { .. } => "Failed",
        },
        "hostIP": at.host.to_string(),
        "hostIPs": [{ "ip": at.host.to_string() }],
        "podIP": at.pod.to_string(),
        "podIPs": [{ "ip": at.pod.to_string() }],
        "conditions": [
            condition("PodReadyToStartContainers", !ended, ""),
            condition("Initialized", true, ""),
            condition("ContainersReady", runs, why),
            condition("Ready", runs && pod.gates, if runs { "ReadinessGatesNotReady" } else { why }),
        ],
        "containerStatuses": pod.containers.iter().map(|c| containers.main(c)).collect::<Vec<_>>(),
    });
    if matches!(report, Report::Running { restarts: 0 }) {
        status["startTime"] = time.as_str().into();
    }
    if !pod.init_containers.is_empty() {
        let init = pod.init_containers.iter().map(|container| containers.init(container));
        status["initContainerStatuses"] = init.collect();
    }
    json!({ "metadata": { "uid": pod.uid }, "status": status })
}

struct Containers<'a> {
    pod: &'a PodFacts,
    report: Report,
    time: &'a str,
}

impl Containers<'_> {
    fn main(&self, container: &ContainerFacts) -> Value {
        let (ready, restarts, state) = match self.report {
            Report::Running { restarts } => (true, restarts, self.running()),
            Report::Crashed => {
                let message = "back-off restarting failed container";
                let waiting = json!({ "reason": "CrashLoopBackOff", "message": message });
                (false, self.pod.restarts, json!({ "waiting": waiting, "running": null }))
            }
            Report::Succeeded => (false, self.pod.restarts, self.ended(0)),
            Report::Failed { code } => (false, self.pod.restarts, self.ended(code)),
        };
        let mut status = self.status(container, ready, state);
        status["restartCount"] = restarts.into();
        if self.report == Report::Crashed {
            status["lastState"] = self.ended(1);
        }
        status
    }

    fn init(&self, container: &ContainerFacts) -> Value {
        let ended = matches!(self.report, Report::Succeeded | Report::Failed { .. });
        match (container.is_sidecar, ended) {
            (true, false) => self.status(container, true, self.running()),
            (true, true) => self.status(container, false, self.ended(0)),
            (false, _) => self.status(container, true, self.ended(0)),
        }
    }

    fn status(&self, container: &ContainerFacts, ready: bool, state: Value) -> Value {
        // As if each container ran once: names are all that these ids have to differ by.
        let id = format!("simulated://{}/{}", self.pod.uid, container.name);
        json!({ "name": container.name, "image": container.image, "imageID": container.image,
            "containerID": id, "ready": ready, "started": ready, "restartCount": 0,
            "state": state })
    }

    fn running(&self) -> Value {
        json!({ "running": { "startedAt": self.time }, "waiting": null, "terminated": null })
    }

    fn ended(&self, code: i32) -> Value {
        let reason = if code == 0 { "Completed" } else { "Error" };
        json!({ "terminated": { "exitCode": code, "reason": reason, "finishedAt": self.time },
            "running": null, "waiting": null })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Addresses =
        Addresses { host: Ipv4Addr::new(10, 0, 0, 1), pod: Ipv4Addr::new(10, 0, 0, 2) };

    fn status(pod: &PodFacts, report: Report) -> Value {
        let patch = patch(pod, report, AT, Timestamp::UNIX_EPOCH);
        assert_eq!(patch["metadata"]["uid"], "u");
        patch["status"].clone()
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        let mut conditions = status["conditions"].as_array().unwrap().iter();
        conditions.find(|condition| condition["type"] == kind).unwrap()
    }

    #[test]
    fn a_running_pod_is_ready_and_has_addresses() {
        let status = status(&PodFacts::sample(), Report::Running { restarts: 0 });
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["podIPs"][0]["ip"], "10.0.0.2");
        assert_eq!(status["startTime"], "1970-01-01T00:00:00Z");
        assert_eq!(condition(&status, "Ready")["status"], "True");
        assert_eq!(status["containerStatuses"][0]["ready"], true);
    }

    #[test]
    fn a_pod_whose_gates_are_shut_is_not_ready() {
        let pod = PodFacts { gates: false, ..PodFacts::sample() };
        let status = status(&pod, Report::Running { restarts: 0 });
        assert_eq!(condition(&status, "ContainersReady")["status"], "True");
        assert_eq!(condition(&status, "Ready")["reason"], "ReadinessGatesNotReady");
    }

    #[test]
    fn ends_carry_their_exit_code() {
        let failed = status(&PodFacts::sample(), Report::Failed { code: 137 });
        assert_eq!(failed["phase"], "Failed");
        let terminated = &failed["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            *terminated,
            json!({ "exitCode": 137, "reason": "Error",
            "finishedAt": "1970-01-01T00:00:00Z" })
        );
        assert_eq!(condition(&failed, "Ready")["reason"], "PodFailed");
        let crashed = status(&PodFacts::sample(), Report::Crashed);
        assert_eq!(crashed["phase"], "Running");
        let waiting = &crashed["containerStatuses"][0]["state"]["waiting"];
        assert_eq!(waiting["reason"], "CrashLoopBackOff");
    }
}
