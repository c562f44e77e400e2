//! Well-known labels.

/// Host name of a node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Operating system of a node.
pub const OS: &str = "kubernetes.io/os";
/// Architecture of a node, in Go's spelling.
pub const ARCH: &str = "kubernetes.io/arch";
/// Zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Region of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Name of a namespace, on the namespace itself.
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";
/// Hash of the pod template, on a Deployment's ReplicaSets and pods.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The Service of an EndpointSlice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who manages an EndpointSlice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// On an EndpointSlice or Endpoints of a Service without a cluster IP.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// A service proxy other than the default one serves this Service.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// On Endpoints whose slices must not be mirrored.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Name of a Job, on its pods.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Name of a Job, on its pods: the older spelling.
pub const JOB_NAME_LEGACY: &str = "job-name";
/// Uid of a Job, on its pods.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// Uid of a Job, on its pods: the older spelling.
pub const CONTROLLER_UID_LEGACY: &str = "controller-uid";
/// Prefix of the labels that give a node its roles.
pub const NODE_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
