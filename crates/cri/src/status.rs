//! The runtime itself.

/// Who the runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Version of this interface's version message.
    pub version: String,
    /// The runtime's name.
    pub runtime_name: String,
    /// The runtime's version.
    pub runtime_version: String,
    /// The version of CRI, `v1`.
    pub runtime_api_version: String,
}

/// One thing that must be so before pods can run: `RuntimeReady` and `NetworkReady`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Its name.
    pub r#type: String,
    /// Whether it is so.
    pub status: bool,
    /// Why not, as one word.
    pub reason: String,
    /// Why not, for people.
    pub message: String,
}

/// One way to run pods, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// Its name; empty for the default one.
    pub name: String,
    /// Whether mounts below a read-only one can be read-only too.
    pub recursive_read_only_mounts: bool,
    /// Whether pods can have users of their own.
    pub user_namespaces: bool,
}

/// The runtime's conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// The conditions.
    pub conditions: Vec<RuntimeCondition>,
    /// The handlers that pods can be run with.
    pub handlers: Vec<RuntimeHandler>,
    /// Whether groups of the image can be left out.
    pub supplemental_groups_policy: bool,
}

/// How the runtime makes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// By asking systemd.
    Systemd,
    /// By itself.
    #[default]
    Cgroupfs,
}

/// What the kubelet tells the runtime when it learns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The node's range of pod addresses; comma-separated for two families.
    pub pod_cidr: String,
}
