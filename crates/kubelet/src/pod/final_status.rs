//! The last status of a pod that will never run again: every container has ended, and so has the
//! pod.
//!
//! The rules are upstream's `TerminatePod` of the status manager. Whoever waits for the pod, such
//! as the job controller with its finalizer, relies on a terminal phase.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use crate::pod::spec;

/// The exit code of a container that nobody saw ending: that of SIGKILL.
const UNSEEN: i32 = 137;

/// Gives what has no end one.
pub(crate) fn finish(pod: &Pod, status: &mut PodStatus) {
    if has_initialized(pod, status) {
        status.container_statuses.iter_mut().flatten().for_each(mark_ended);
    }
    if let Some(init) = &mut status.init_container_statuses {
        // The ones after the last that ever ran had no turn.
        let had_turn = init.iter().rposition(has_run).map_or(0, |last| last + 1);
        init[..had_turn].iter_mut().for_each(mark_ended);
    }
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        status.phase = Some("Failed".to_owned());
    }
}

fn mark_ended(status: &mut ContainerStatus) {
    if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        return;
    }
    status.state = Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            exit_code: UNSEEN,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    });
}

/// Whether the containers of the pod had a turn, after its init containers.
fn has_initialized(pod: &Pod, status: &PodStatus) -> bool {
    let Some(last) = spec::init_containers(pod).last() else { return true };
    if status.container_statuses.iter().flatten().any(has_run) {
        return true;
    }
    let Some(told) = status.init_container_statuses.iter().flatten().last() else { return false };
    if api::pod::is_sidecar(last) {
        let running = told.state.as_ref().is_some_and(|state| state.running.is_some());
        return running && told.started == Some(true);
    }
    [&told.state, &told.last_state]
        .into_iter()
        .flatten()
        .any(|state| state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0))
}

fn has_run(status: &ContainerStatus) -> bool {
    let ran = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    status.state.as_ref().is_some_and(ran)
        || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finished(pod: serde_json::Value, status: serde_json::Value) -> serde_json::Value {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let mut status: PodStatus = serde_json::from_value(status).unwrap();
        finish(&pod, &mut status);
        serde_json::to_value(status).unwrap()
    }

    fn waiting(name: &str) -> serde_json::Value {
        json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ContainerCreating" } } })
    }

    fn ended(name: &str, code: i32) -> serde_json::Value {
        json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": { "terminated": { "exitCode": code } } })
    }

    #[test]
    fn a_pod_that_never_ran_has_failed() {
        let pod = json!({ "spec": { "containers": [{ "name": "c" }] } });
        let status = json!({ "phase": "Pending", "containerStatuses": [waiting("c")] });
        let status = finished(pod, status);
        assert_eq!(status["phase"], "Failed");
        let terminated = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(terminated["exitCode"], 137);
        assert_eq!(terminated["reason"], "ContainerStatusUnknown");
    }

    #[test]
    fn a_pod_that_succeeded_stays_as_it_is() {
        let pod = json!({ "spec": { "containers": [{ "name": "c" }] } });
        let status = json!({ "phase": "Succeeded", "containerStatuses": [ended("c", 0)] });
        let status = finished(pod, status);
        assert_eq!(status["phase"], "Succeeded");
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    }

    #[test]
    fn containers_that_had_no_turn_yet_go_on_waiting() {
        let pod = json!({ "spec": {
            "initContainers": [{ "name": "a" }, { "name": "b" }, { "name": "d" }],
            "containers": [{ "name": "c" }],
        } });
        let mut running = waiting("b");
        running["state"] = json!({ "running": {} });
        let status = json!({
            "phase": "Pending",
            "initContainerStatuses": [ended("a", 0), running, waiting("d")],
            "containerStatuses": [waiting("c")],
        });
        let status = finished(pod, status);
        assert_eq!(status["phase"], "Failed");
        let init = &status["initContainerStatuses"];
        assert_eq!(init[0]["state"]["terminated"]["exitCode"], 0);
        assert_eq!(init[1]["state"]["terminated"]["exitCode"], 137);
        assert!(init[2]["state"]["waiting"].is_object());
        assert!(status["containerStatuses"][0]["state"]["waiting"].is_object());
    }
}
