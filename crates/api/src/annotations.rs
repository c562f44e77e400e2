//! Well-known annotations.

/// The revision of a Deployment's ReplicaSet.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions that a ReplicaSet has had.
pub const DEPLOYMENT_REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when it was last scaled.
pub const DEPLOYMENT_DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods the Deployment may have during a roll-out.
pub const DEPLOYMENT_MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// The cost of deleting a pod, compared among the pods of a ReplicaSet.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The index of an Indexed Job's pod.
pub const JOB_COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// What `kubectl apply` last applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// When the last pod change that an endpoints object reflects was triggered.
pub const ENDPOINTS_LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Set when an Endpoints object has more than 1,000 addresses.
pub const ENDPOINTS_OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// `Auto` on a Service: endpoints serve zones by the CPU of these.
pub const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
/// The older name of [`TOPOLOGY_MODE`]; where both are set, this one counts.
pub const TOPOLOGY_AWARE_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
/// Where a pod came from: `api`, `file` or `http`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
