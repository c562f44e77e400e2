//! What a container is started with: the CRI configuration, merged with the image's.
//!
//! Pure: everything it needs is in [`Inputs`].

use std::path::{Path, PathBuf};

use cri::{
    Capability, ContainerConfig, CriError, LinuxContainerSecurityContext, MountPropagation,
    NamespaceMode, PodSandboxConfig, ProfileType, SupplementalGroupsPolicy, UserNamespace,
};
use image::RunConfig;

use crate::spec::{
    BindMount, Capabilities, ContainerSpec, DeviceNode, PidNamespace, Propagation, User,
};

/// Upstream's environment when the image has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities by number, from `linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Upstream's default set.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What a plan is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) image: &'a RunConfig,
    pub(crate) hostname: &'a str,
    /// Where the sandbox keeps the files it mounts when nobody else does.
    pub(crate) sandbox_directory: &'a Path,
    /// The layers of the images to mount, in the order of their mounts.
    pub(crate) image_mounts: &'a [Vec<PathBuf>],
    /// The first process of the container whose process namespace is to be joined.
    pub(crate) target_pid: Option<i32>,
}

/// Decides everything about a container that does not depend on the node.
///
/// # Errors
/// When the configuration contradicts itself, or asks for what does not exist.
pub(crate) fn plan(inputs: &Inputs<'_>) -> Result<ContainerSpec, CriError> {
    let config = inputs.config;
    let security = &config.linux.security_context;
    let privileged = security.privileged;
    if privileged && !inputs.sandbox.linux.security_context.privileged {
        return Err(CriError::invalid_argument("no privileged container allowed in sandbox"));
    }
    let cwd = match (config.working_dir.as_str(), inputs.image.working_dir.as_str()) {
        ("", "") => "/",
        ("", image) => image,
        (given, _) => given,
    };
    let options = &security.namespace_options;
    let device = |device: &cri::Device| DeviceNode {
        source: PathBuf::from(&device.host_path),
        target: PathBuf::from(&device.container_path),
    };
    Ok(ContainerSpec {
        id: inputs.id.to_owned(),
        readonly_rootfs: security.readonly_rootfs,
        mounts: mounts(inputs)?,
        devices: config.devices.iter().map(device).collect(),
        args: args(config, inputs.image)?,
        env: environment(inputs),
        cwd: cwd.to_owned(),
        user: user(config, inputs.image)?,
        capabilities: capabilities(security.capabilities.as_ref(), privileged)?,
        no_new_privs: security.no_new_privs,
        privileged,
        seccomp: seccomp(security)?,
        masked_paths: security.masked_paths.iter().map(PathBuf::from).collect(),
        readonly_paths: security.readonly_paths.iter().map(PathBuf::from).collect(),
        pid: pid_namespace(options.pid, inputs.target_pid)?,
        node_network: options.network == NamespaceMode::Node,
        node_ipc: options.ipc == NamespaceMode::Node,
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        oom_score_adj: config.linux.resources.oom_score_adj,
        ..ContainerSpec::default()
    })
}

fn seccomp(security: &LinuxContainerSecurityContext) -> Result<bool, CriError> {
    let Some(profile) = security.seccomp.as_ref().filter(|_| !security.privileged) else {
        return Ok(false);
    };
    match profile.profile_type {
        ProfileType::RuntimeDefault => Ok(true),
        ProfileType::Unconfined => Ok(false),
        ProfileType::Localhost => Err(CriError::invalid_argument(format!(
            "seccomp profile {:?}: profiles from files are not supported",
            profile.localhost_ref
        ))),
    }
}

fn pid_namespace(mode: NamespaceMode, target: Option<i32>) -> Result<PidNamespace, CriError> {
    Ok(match mode {
        NamespaceMode::Pod => PidNamespace::Sandbox,
        NamespaceMode::Container => PidNamespace::Own,
        NamespaceMode::Node => PidNamespace::Node,
        NamespaceMode::Target => PidNamespace::Of(
            target
                .ok_or_else(|| CriError::invalid_argument("the target container is not running"))?,
        ),
    })
}

/// The signal that stops a container: its own, the image's, or the usual one.
pub(crate) fn stop_signal(config: &ContainerConfig, image: &RunConfig) -> String {
    [&config.stop_signal, &image.stop_signal]
        .into_iter()
        .find(|signal| !signal.is_empty())
        .map_or_else(|| "SIGTERM".to_owned(), Clone::clone)
}

/// The rules by which the container's own devices may be used.
pub(crate) fn device_rules(config: &ContainerConfig) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if config.linux.security_context.privileged {
        return vec!["a".to_owned()];
    }
    let rule = |device: &cri::Device| {
        // What is not there is reported when it is to be made.
        let metadata = std::fs::metadata(&device.host_path).ok()?;
        let kind = if metadata.file_type().is_block_device() { 'b' } else { 'c' };
        let (major, minor) =
            (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let permissions =
            if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() };
        Some(format!("{kind} {major}:{minor} {permissions}"))
    };
    config.devices.iter().filter_map(rule).collect()
}

fn args(config: &ContainerConfig, image: &RunConfig) -> Result<Vec<String>, CriError> {
    let (command, args) = if config.command.is_empty() {
        let args = if config.args.is_empty() { &image.cmd } else { &config.args };
        (&image.entrypoint, args)
    } else {
        (&config.command, &config.args)
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() {
        return Err(CriError::invalid_argument("no command specified"));
    }
    Ok(all)
}

fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |key: &str, value: &str| {
        let entry = format!("{key}={value}");
        let same = |old: &String| old.split_once('=').is_some_and(|(name, _)| name == key);
        match env.iter_mut().find(|old| same(old)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    };
    set("PATH", DEFAULT_PATH);
    set("HOSTNAME", inputs.hostname);
    if inputs.config.tty {
        set("TERM", "xterm");
    }
    for entry in &inputs.image.env {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(key, value);
    }
    for entry in &inputs.config.envs {
        set(&entry.key, &entry.value);
    }
    env
}

fn user(config: &ContainerConfig, image: &RunConfig) -> Result<User, CriError> {
    let security = &config.linux.security_context;
    let number = |value: i64| {
        u32::try_from(value)
            .map_err(|_| CriError::invalid_argument(format!("{value} is not a user or group")))
    };
    let gid = security.run_as_group.map(number).transpose()?;
    let name = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => number(*uid)?.to_string(),
        (None, "") if gid.is_some() => {
            return Err(CriError::invalid_argument("user group is specified without user"));
        }
        (None, "") => image.user.clone(),
        (None, name) => name.to_owned(),
    };
    let supplemental: Result<Vec<u32>, CriError> =
        security.supplemental_groups.iter().map(|group| number(*group)).collect();
    Ok(User {
        name,
        gid,
        supplemental: supplemental?,
        merge_groups: security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge,
    })
}

fn capabilities(wanted: Option<&Capability>, privileged: bool) -> Result<Capabilities, CriError> {
    let all = (1u64 << CAPABILITIES.len()) - 1;
    if privileged {
        return Ok(Capabilities { bounding: all, ambient: 0 });
    }
    let mut bounding = mask(DEFAULT_CAPABILITIES)?;
    let Some(wanted) = wanted else { return Ok(Capabilities { bounding, ambient: 0 }) };
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL");
    let single = |names: &[String]| mask(names.iter().filter(|name| !is_all(name)));
    if wanted.add_capabilities.iter().any(|name| is_all(&name)) {
        bounding = all;
    }
    if wanted.drop_capabilities.iter().any(|name| is_all(&name)) {
        bounding = 0;
    }
    bounding |= single(&wanted.add_capabilities)?;
    bounding &= !single(&wanted.drop_capabilities)?;
    let ambient = single(&wanted.add_ambient_capabilities)?;
    Ok(Capabilities { bounding: bounding | ambient, ambient })
}

fn mask(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<u64, CriError> {
    let mut mask = 0;
    for name in names {
        let upper = name.as_ref().to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = CAPABILITIES.iter().position(|known| *known == short).ok_or_else(|| {
            CriError::invalid_argument(format!("unknown capability \"CAP_{short}\""))
        })?;
        mask |= 1 << number;
    }
    Ok(mask)
}

/// Mounts in an order in which none hides another that was made before.
fn mounts(inputs: &Inputs<'_>) -> Result<Vec<BindMount>, CriError> {
    let mut mounts = Vec::new();
    for file in ["hostname", "hosts", "resolv.conf"] {
        let target = PathBuf::from("/etc").join(file);
        if inputs.config.mounts.iter().any(|mount| Path::new(&mount.container_path) == target) {
            continue;
        }
        mounts.push(BindMount {
            source: inputs.sandbox_directory.join(file),
            target,
            readonly: inputs.config.linux.security_context.readonly_rootfs,
            id_mapped: users(inputs.sandbox).is_some(),
            ..BindMount::default()
        });
    }
    let mut images = inputs.image_mounts.iter();
    for mount in &inputs.config.mounts {
        if mount.image.is_some() {
            mounts.push(BindMount {
                layers: images.next().cloned().unwrap_or_default(),
                sub_path: PathBuf::from(&mount.image_sub_path),
                target: PathBuf::from(&mount.container_path),
                ..BindMount::default()
            });
            continue;
        }
        mounts.push(bind_mount(mount, users(inputs.sandbox))?);
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

fn users(sandbox: &PodSandboxConfig) -> Option<&UserNamespace> {
    sandbox.linux.security_context.namespace_options.users.as_ref()
}

/// A path of the node.
fn bind_mount(mount: &cri::Mount, users: Option<&UserNamespace>) -> Result<BindMount, CriError> {
    let id_mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let as_pod = |users: &&UserNamespace| {
        users.uids == mount.uid_mappings && users.gids == mount.gid_mappings
    };
    if id_mapped && users.is_none_or(|users| !as_pod(&users)) {
        return Err(CriError::invalid_argument(format!(
            "mount {:?}: id mapped mounts must have the mappings of the pod's user namespace",
            mount.container_path
        )));
    }
    let private = mount.propagation == MountPropagation::Private;
    if mount.recursive_read_only && !(mount.readonly && private) {
        return Err(CriError::invalid_argument(
            "recursive read-only mounts must be read-only and private",
        ));
    }
    Ok(BindMount {
        source: PathBuf::from(&mount.host_path),
        target: PathBuf::from(&mount.container_path),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation: match mount.propagation {
            MountPropagation::Private => Propagation::Private,
            MountPropagation::HostToContainer => Propagation::Slave,
            MountPropagation::Bidirectional => Propagation::Shared,
        },
        id_mapped,
        ..BindMount::default()
    })
}

#[cfg(test)]
mod tests;
