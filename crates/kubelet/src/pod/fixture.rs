//! Pods and containers for tests.

use cri::{
    ContainerMetadata, ContainerState, ContainerStatus, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatus,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::labels;
use crate::pod::observed::Observed;
use crate::pod::spec::container_hash;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) fn container(name: &str) -> Container {
    Container { name: name.into(), image: Some("x:1".into()), ..Container::default() }
}

pub(crate) fn pod(policy: &str, init: Vec<Container>, containers: Vec<Container>) -> Pod {
    let mut pod = Pod {
        spec: Some(PodSpec {
            restart_policy: Some(policy.into()),
            init_containers: Some(init),
            containers,
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    pod.metadata.name = Some("p".into());
    pod.metadata.namespace = Some("n".into());
    pod.metadata.uid = Some("u".into());
    pod.metadata.generation = Some(1);
    pod
}

/// A pod with a sandbox made at second 1.
pub(crate) fn with_sandbox(containers: Vec<ContainerStatus>) -> Observed {
    let sandbox = PodSandboxStatus {
        id: "s".into(),
        metadata: PodSandboxMetadata {
            name: "p".into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        },
        state: PodSandboxState::Ready,
        created_at: at(1),
        ips: vec!["10.0.0.9".parse().unwrap()],
        namespace_options: Default::default(),
        labels: Default::default(),
        annotations: Default::default(),
        runtime_handler: String::new(),
    };
    Observed { sandboxes: vec![sandbox], containers }
}

/// A container made at second 2 in this state.
pub(crate) fn status(spec: &Container, state: ContainerState, exit_code: i32) -> ContainerStatus {
    let exited = state == ContainerState::Exited;
    ContainerStatus {
        id: format!("{}-id", spec.name).as_str().into(),
        metadata: ContainerMetadata { name: spec.name.clone(), attempt: 0 },
        state,
        created_at: at(2),
        started_at: Some(at(2)),
        finished_at: exited.then(|| at(3)),
        exit_code,
        image: "x:1".into(),
        image_ref: "x@sha256:1".into(),
        image_id: "sha256:1".into(),
        reason: if exit_code == 0 { "Completed".into() } else { "Error".into() },
        message: String::new(),
        labels: Default::default(),
        annotations: [
            (labels::CONTAINER_HASH.to_owned(), container_hash(spec)),
            (labels::RESTART_COUNT.to_owned(), "0".to_owned()),
        ]
        .into(),
        mounts: Vec::new(),
        log_path: String::new(),
        resources: None,
        user: None,
        stop_signal: String::new(),
    }
}
