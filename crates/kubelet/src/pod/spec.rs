//! Questions about a pod's spec.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Which list of the spec a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Init,
    Regular,
    Ephemeral,
}

/// Grace period of a pod whose spec has none.
const GRACE_PERIOD_DEFAULT: i64 = 30;

/// The spec; the API server admits no pod without one.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// `metadata.uid`.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod in messages: upstream `format.Pod`.
pub(crate) fn described(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// `spec.restartPolicy`.
pub(crate) fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Whether the pod is on the node's network.
pub(crate) fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// The init containers in their order.
pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// How long the pod may take to stop: what the deletion says, or the spec.
pub(crate) fn grace_period_secs(pod: &Pod) -> i64 {
    pod.metadata
        .deletion_grace_period_seconds
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(GRACE_PERIOD_DEFAULT)
        .max(0)
}

/// A container of any list, by name.
pub(crate) fn container(pod: &Pod, name: &str) -> Option<(Kind, Container)> {
    let spec = spec(pod);
    if let Some(found) = spec.containers.iter().find(|c| c.name == name) {
        return Some((Kind::Regular, found.clone()));
    }
    if let Some(found) = init_containers(pod).iter().find(|c| c.name == name) {
        return Some((Kind::Init, found.clone()));
    }
    let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
    ephemeral.iter().find(|c| c.name == name).map(|c| (Kind::Ephemeral, ephemeral_container(c)))
}

/// An ephemeral container as if it were another one: the fields are the same.
pub(crate) fn ephemeral_container(from: &EphemeralContainer) -> Container {
    let from = from.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        name: from.name,
        ports: from.ports,
        resources: from.resources,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
        ..Container::default()
    }
}

/// The path of a container's field in events, such as `spec.containers{app}`.
pub(crate) fn field_path(kind: Kind, name: &str) -> String {
    let list = match kind {
        Kind::Init => "initContainers",
        Kind::Regular => "containers",
        Kind::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{name}}}")
}

/// Tells whether a container must be made anew: its name and image, as upstream
/// `kubecontainer.HashContainer` since 1.31.
pub(crate) fn container_hash(container: &Container) -> String {
    // FNV-1a, 32 bits.
    let image = container.image.as_deref().unwrap_or_default();
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    let hash = bytes
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

/// Whether a container that ended with `exit_code` is run again, were the pod not being stopped.
pub(crate) fn restarts(pod: &Pod, kind: Kind, container: &Container, exit_code: i32) -> bool {
    if kind == Kind::Ephemeral {
        return false;
    }
    if rule(container, exit_code).is_some() {
        return true;
    }
    let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        // An init container that is no sidecar ends by succeeding.
        _ => kind == Kind::Regular || container.restart_policy.is_some() || exit_code != 0,
    }
}

/// Whether a container that ended with `exit_code` has the whole pod begin anew.
pub(crate) fn restarts_all(container: &Container, exit_code: i32) -> bool {
    rule(container, exit_code) == Some(RESTART_ALL)
}

/// Whether any container may have the whole pod begin anew.
pub(crate) fn may_restart_all(pod: &Pod) -> bool {
    init_containers(pod).iter().chain(&spec(pod).containers).any(|container| {
        container.restart_policy_rules.iter().flatten().any(|rule| rule.action == RESTART_ALL)
    })
}

const RESTART_ALL: &str = "RestartAllContainers";

/// The action of the first rule that is about an exit code.
fn rule(container: &Container, exit_code: i32) -> Option<&str> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    let found = rules.find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
            if codes.operator == "NotIn" { !listed } else { listed }
        })
    })?;
    matches!(found.action.as_str(), "Restart" | RESTART_ALL).then_some(&found.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restart_policy_decides_with_the_exit_code() {
        let pod = |policy: &str| Pod {
            spec: Some(PodSpec { restart_policy: Some(policy.into()), ..PodSpec::default() }),
            ..Pod::default()
        };
        let plain = Container::default();
        assert!(restarts(&pod("Always"), Kind::Regular, &plain, 0));
        assert!(!restarts(&pod("Always"), Kind::Init, &plain, 0));
        assert!(restarts(&pod("Always"), Kind::Init, &plain, 1));
        assert!(restarts(&pod("OnFailure"), Kind::Regular, &plain, 1));
        assert!(!restarts(&pod("OnFailure"), Kind::Regular, &plain, 0));
        assert!(!restarts(&pod("Never"), Kind::Regular, &plain, 1));
        let sidecar = Container { restart_policy: Some("Always".into()), ..Container::default() };
        assert!(restarts(&pod("Never"), Kind::Init, &sidecar, 0));
    }

    #[test]
    fn only_name_and_image_make_a_container_new() {
        let one = Container { name: "a".into(), image: Some("x:1".into()), ..Default::default() };
        let args = Container { args: Some(vec!["b".into()]), ..one.clone() };
        let image = Container { image: Some("x:2".into()), ..one.clone() };
        assert_eq!(container_hash(&one), container_hash(&args));
        assert_ne!(container_hash(&one), container_hash(&image));
    }
}
