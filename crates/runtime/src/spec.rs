//! What the agent tells a shim, and what a shim remembers: the formats on disk between them.
//!
//! A shim may be older than the agent that finds it, so fields are only ever added, with a
//! default, and never change their meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `spec.json` of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SandboxSpec {
    /// The sandbox.
    pub(crate) id: String,
    /// The pod's hostname; empty leaves it alone.
    pub(crate) hostname: String,
    /// Whether the pod has its own network and host name, or the node's.
    pub(crate) own_network: bool,
    /// Whether the pod has its own System V and POSIX message queues, or the node's.
    pub(crate) own_ipc: bool,
    /// Whether the containers share one process namespace.
    pub(crate) shared_pid: bool,
    /// Kernel parameters by dotted name.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The pod's users, unless they are the node's.
    pub(crate) users: Option<UserMappings>,
}

/// Who the users and groups of a pod are on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct UserMappings {
    /// Users.
    pub(crate) uids: Vec<IdRange>,
    /// Groups.
    pub(crate) gids: Vec<IdRange>,
}

/// A range of users or groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IdRange {
    /// The first in the pod.
    pub(crate) inside: u32,
    /// The first on the node.
    pub(crate) outside: u32,
    /// How many.
    pub(crate) length: u32,
}

/// In which process namespace a container runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PidNamespace {
    /// Its own.
    #[default]
    Own,
    /// The sandbox's.
    Sandbox,
    /// The node's.
    Node,
    /// That of the process with this number.
    Of(i32),
}

/// A path of the node or an image, mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BindMount {
    /// On the node; unused when there are layers.
    pub(crate) source: PathBuf,
    /// The layers of an image to mount instead, the uppermost first.
    pub(crate) layers: Vec<PathBuf>,
    /// The part of the image to mount; empty for all of it.
    pub(crate) sub_path: PathBuf,
    /// In the container.
    pub(crate) target: PathBuf,
    /// Whether it is read-only.
    pub(crate) readonly: bool,
    /// Whether what is mounted below it is read-only too.
    pub(crate) recursive_readonly: bool,
    /// Which later mounts show up.
    pub(crate) propagation: Propagation,
    /// Whether files show the owners that they have on the node, as the pod counts them.
    pub(crate) id_mapped: bool,
}

/// Which mounts made later show up on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Propagation {
    /// None.
    #[default]
    Private,
    /// Those of the node in the container.
    Slave,
    /// Both ways.
    Shared,
}

/// A device of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeviceNode {
    /// On the node.
    pub(crate) source: PathBuf,
    /// In the container.
    pub(crate) target: PathBuf,
}

/// Who a container's processes are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct User {
    /// `user[:group]`, names or numbers; looked up in the container's `/etc`.
    pub(crate) name: String,
    /// Overrides the group.
    pub(crate) gid: Option<u32>,
    /// Further groups.
    pub(crate) supplemental: Vec<u32>,
    /// Whether the groups of the image's `/etc/group` count too.
    pub(crate) merge_groups: bool,
}

/// Capability sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Capabilities {
    /// Bounding, effective and permitted.
    pub(crate) bounding: u64,
    /// Ambient and inheritable.
    pub(crate) ambient: u64,
}

/// `spec.json` of a container: everything its start needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerSpec {
    /// The container.
    pub(crate) id: String,
    /// Image layers, the uppermost first.
    pub(crate) lower: Vec<PathBuf>,
    /// The container's own directory, holding `upper`, `work` and `rootfs`.
    pub(crate) directory: PathBuf,
    /// Whether the root file system is read-only.
    pub(crate) readonly_rootfs: bool,
    /// Bind mounts in the order in which they are made.
    pub(crate) mounts: Vec<BindMount>,
    /// Devices beside the default ones.
    pub(crate) devices: Vec<DeviceNode>,
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Its working directory.
    pub(crate) cwd: String,
    /// Who it runs as.
    pub(crate) user: User,
    /// What it may do.
    pub(crate) capabilities: Capabilities,
    /// Whether it can gain no more by running another program.
    pub(crate) no_new_privs: bool,
    /// Whether it sees and may do everything.
    pub(crate) privileged: bool,
    /// Whether the runtime's own system call filter applies.
    pub(crate) seccomp: bool,
    /// Paths that are hidden.
    pub(crate) masked_paths: Vec<PathBuf>,
    /// Paths that are read-only.
    pub(crate) readonly_paths: Vec<PathBuf>,
    /// Its process namespace.
    pub(crate) pid: PidNamespace,
    /// Whether it has the node's network.
    pub(crate) node_network: bool,
    /// Whether it has the node's message queues and shared memory.
    pub(crate) node_ipc: bool,
    /// Whether it has a terminal.
    pub(crate) tty: bool,
    /// Whether it has an input.
    pub(crate) stdin: bool,
    /// Whether its input ends with the first client.
    pub(crate) stdin_once: bool,
    /// Its log file, absolute; empty for none.
    pub(crate) log_path: PathBuf,
    /// The `cgroup.procs` files it joins.
    pub(crate) cgroup_procs: Vec<PathBuf>,
    /// Cgroup directories to show in the container by controller; empty key for version 2.
    pub(crate) cgroup_mounts: BTreeMap<String, PathBuf>,
    /// The file that counts processes killed for lack of memory.
    pub(crate) oom_file: PathBuf,
    /// The adjustment of its out-of-memory score.
    pub(crate) oom_score_adj: i64,
}

/// Where the process of a container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ProcessState {
    /// The container.
    pub(crate) id: String,
    /// Its first process, as the node counts.
    pub(crate) pid: i32,
    /// When it started, in nanoseconds since 1970.
    pub(crate) started_at: i64,
    /// When it ended; zero while it runs.
    pub(crate) finished_at: i64,
    /// Its exit code, or 128 plus the signal that ended it.
    pub(crate) exit_code: i32,
    /// Whether a process of it was killed for lack of memory.
    pub(crate) oom_killed: bool,
    /// Why it could not be started; empty when it was.
    pub(crate) start_error: String,
    /// Who it runs as: user, group, further groups.
    pub(crate) user: Option<(u32, u32, Vec<u32>)>,
}

impl ProcessState {
    /// Whether the process has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished_at != 0
    }
}
