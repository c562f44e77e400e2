//! Security contexts of sandboxes and containers.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, IdMapping};

/// With whom a namespace is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Everything in the pod.
    #[default]
    Pod,
    /// The container alone.
    Container,
    /// The node.
    Node,
    /// The container named by [`NamespaceOption::target_id`].
    Target,
}

/// The namespaces of a sandbox or container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOption {
    /// `Pod` or `Node`.
    pub network: NamespaceMode,
    /// `Pod`, `Container`, `Node` or `Target`.
    pub pid: NamespaceMode,
    /// `Pod` or `Node`.
    pub ipc: NamespaceMode,
    /// The container whose pid namespace is joined when `pid` is `Target`.
    pub target_id: Option<ContainerId>,
    /// The pod's own users; `None` means the node's.
    #[serde(default)]
    pub users: Option<UserNamespace>,
}

/// Users and groups of a pod, and who they are on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

/// Where a seccomp or AppArmor profile comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProfileType {
    /// The runtime's own profile.
    #[default]
    RuntimeDefault,
    /// No profile.
    Unconfined,
    /// The profile named by `localhost_ref`.
    Localhost,
}

/// A seccomp or AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityProfile {
    /// Where it comes from.
    pub profile_type: ProfileType,
    /// A file (seccomp) or profile name (AppArmor) on the node, for `Localhost`.
    pub localhost_ref: String,
}

/// Linux capabilities, without the prefix `CAP_`; `ALL` names every one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Added to the runtime's default set.
    pub add_capabilities: Vec<String>,
    /// Removed from the runtime's default set.
    pub drop_capabilities: Vec<String>,
    /// Also put in the ambient set.
    pub add_ambient_capabilities: Vec<String>,
}

/// Which supplementary groups a process gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// Those given, and those of the user in the image's `/etc/group`.
    #[default]
    Merge,
    /// Those given only.
    Strict,
}

/// The security context of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxSandboxSecurityContext {
    /// The namespaces of the pod.
    pub namespace_options: NamespaceOption,
    /// The user of sandbox processes.
    pub run_as_user: Option<i64>,
    /// The group of sandbox processes.
    pub run_as_group: Option<i64>,
    /// Whether the sandbox's own root file system is read-only.
    pub readonly_rootfs: bool,
    /// Groups beside the primary one.
    pub supplemental_groups: Vec<i64>,
    /// Which supplementary groups apply.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether a container of the pod may be privileged.
    pub privileged: bool,
    /// The seccomp profile; `None` means unconfined.
    pub seccomp: Option<SecurityProfile>,
    /// The AppArmor profile.
    pub apparmor: Option<SecurityProfile>,
}

/// The security context of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerSecurityContext {
    /// Capabilities beside or without the default set.
    pub capabilities: Option<Capability>,
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// The namespaces of the container.
    pub namespace_options: NamespaceOption,
    /// The user by number; excludes `run_as_username`.
    pub run_as_user: Option<i64>,
    /// The group by number.
    pub run_as_group: Option<i64>,
    /// The user by name, looked up in the image's `/etc/passwd`; empty means not given.
    pub run_as_username: String,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// Groups beside the primary one.
    pub supplemental_groups: Vec<i64>,
    /// Which supplementary groups apply.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Paths hidden from the container.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only in the container.
    pub readonly_paths: Vec<String>,
    /// The seccomp profile; `None` means unconfined.
    pub seccomp: Option<SecurityProfile>,
    /// The AppArmor profile.
    pub apparmor: Option<SecurityProfile>,
}
