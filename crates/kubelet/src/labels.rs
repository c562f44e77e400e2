//! Labels and annotations by which the kubelet knows its sandboxes and containers again.

/// The pod's name.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: tells a changed container.
pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted.
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container leaves its last words.
pub(crate) const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: whether the log stands in for them.
pub(crate) const TERMINATION_MESSAGE_POLICY: &str =
    "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period, for pods whose spec is lost.
pub(crate) const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
