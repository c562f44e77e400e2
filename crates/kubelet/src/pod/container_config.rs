//! What a container is made from.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cri::{
    ContainerConfig, ContainerId, ContainerMetadata, Device, ImageSpec, KeyValue,
    LinuxContainerConfig, Mount, MountPropagation, UserNamespace,
};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::labels;
use crate::pod::expansion::expand;
use crate::pod::qos;
use crate::pod::sandbox_config::pod_labels;
use crate::pod::security;
use crate::pod::spec;
use crate::pod::sub_path;
use crate::volume::Mounted;
use crate::volume::mounts::Mounts;

/// Where a container leaves its last words, when the spec does not say.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// Everything a container's configuration is made of.
pub(crate) struct ContainerFacts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) restart_count: i32,
    /// The image's identifier on the node.
    pub(crate) image: &'a str,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) mounted: &'a Mounted,
    /// Mounts parts of volumes.
    pub(crate) mounts: &'a dyn Mounts,
    pub(crate) pod_dir: &'a Path,
    pub(crate) node_memory: u64,
    pub(crate) target: Option<ContainerId>,
    /// The pod's users, unless they are the node's.
    pub(crate) users: Option<UserNamespace>,
    /// `/etc/hosts` as the kubelet wrote it.
    pub(crate) hosts_file: Option<PathBuf>,
}

/// The configuration; the error is the message of `CreateContainerConfigError`.
pub(crate) fn container_config(facts: &ContainerFacts<'_>) -> Result<ContainerConfig, String> {
    let ContainerFacts { pod, container, .. } = facts;
    let known: BTreeMap<&str, &str> =
        facts.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let lookup = |name: &str| known.get(name).map(|value| (*value).to_owned());
    let expanded = |words: &Option<Vec<String>>| {
        words.iter().flatten().map(|word| expand(word, &lookup)).collect()
    };
    let mut mounts = mounts(facts, &lookup)?;
    mounts.push(termination_log(facts)?);
    if let Some(hosts) = &facts.hosts_file
        && !mounts.iter().any(|mount| mount.container_path == "/etc/hosts")
    {
        mounts.push(Mount {
            container_path: "/etc/hosts".to_owned(),
            host_path: hosts.display().to_string(),
            ..Mount::default()
        });
    }
    if let Some(users) = &facts.users {
        for mount in mounts.iter_mut().filter(|mount| mount.image.is_none()) {
            mount.uid_mappings.clone_from(&users.uids);
            mount.gid_mappings.clone_from(&users.gids);
        }
    }
    let written = container.image.clone().unwrap_or_default();
    let mut own_labels = pod_labels(pod);
    own_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: facts.attempt },
        image: ImageSpec {
            image: facts.image.to_owned(),
            user_specified_image: written,
            ..ImageSpec::default()
        },
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: facts
            .environment
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts,
        devices: devices(facts)?,
        labels: own_labels,
        annotations: annotations(facts),
        log_path: format!("{}/{}.log", container.name, facts.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: LinuxContainerConfig {
            resources: qos::linux_resources(pod, container, facts.node_memory),
            security_context: security::security_context(
                pod,
                container,
                facts.target.clone(),
                facts.users.clone(),
            ),
        },
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.clone())
            .unwrap_or_default(),
    })
}

fn annotations(facts: &ContainerFacts<'_>) -> BTreeMap<String, String> {
    let container = facts.container;
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    [
        (labels::CONTAINER_HASH, spec::container_hash(container)),
        (labels::RESTART_COUNT, facts.restart_count.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, message_path(container).to_owned()),
        (labels::TERMINATION_MESSAGE_POLICY, policy.to_owned()),
        (
            labels::GRACE_PERIOD,
            spec::spec(facts.pod).termination_grace_period_seconds.unwrap_or(30).to_string(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn message_path(container: &Container) -> &str {
    let given = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    given.unwrap_or(TERMINATION_MESSAGE_PATH)
}

/// A file of this container and attempt, which anybody in the container may write.
fn termination_log(facts: &ContainerFacts<'_>) -> Result<Mount, String> {
    let directory = facts.pod_dir.join("containers").join(&facts.container.name);
    let path = directory.join(format!("{:08x}", rand::random::<u32>()));
    let make = || {
        fs::create_dir_all(&directory)?;
        fs::File::create(&path)?;
        // Exactly these bits, whatever the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
    };
    make().map_err(|error: std::io::Error| {
        format!("failed to create termination log {}: {error}", path.display())
    })?;
    Ok(Mount {
        container_path: message_path(facts.container).to_owned(),
        host_path: path.display().to_string(),
        ..Mount::default()
    })
}

fn mounts(
    facts: &ContainerFacts<'_>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, String> {
    let list = facts.container.volume_mounts.as_deref().unwrap_or_default();
    list.iter().enumerate().map(|(at, mount)| one_mount(facts, (at, mount), lookup)).collect()
}

/// Volumes that the container sees as block devices.
fn devices(facts: &ContainerFacts<'_>) -> Result<Vec<Device>, String> {
    let list = facts.container.volume_devices.as_deref().unwrap_or_default();
    list.iter()
        .map(|device| {
            let name = &device.name;
            let path = facts.mounted.devices.get(name).ok_or_else(|| {
                format!(
                    "cannot find volume {name:?} to pass into container {:?}",
                    facts.container.name
                )
            })?;
            let permissions = if facts.mounted.read_only.contains(name) { "r" } else { "mrw" };
            Ok(Device {
                container_path: device.device_path.clone(),
                host_path: path.display().to_string(),
                permissions: permissions.to_owned(),
            })
        })
        .collect()
}

fn one_mount(
    facts: &ContainerFacts<'_>,
    (at, mount): (usize, &VolumeMount),
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Mount, String> {
    let volumes = spec::spec(facts.pod).volumes.as_deref().unwrap_or_default();
    let volume = volumes.iter().find(|volume| volume.name == mount.name);
    let missing = || {
        format!(
            "cannot find volume {:?} to mount into container {:?}",
            mount.name, facts.container.name
        )
    };
    let volume = volume.ok_or_else(missing)?;
    let readonly = mount.read_only == Some(true);
    let container_path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    let part = sub_path_of(mount, lookup)?;
    sub_path::check(&part)?;
    if let Some(image) = &volume.image {
        let reference = image.reference.clone().unwrap_or_default();
        return Ok(Mount {
            container_path,
            readonly: true,
            image: Some(ImageSpec::from(reference.as_str())),
            image_sub_path: part,
            ..Mount::default()
        });
    }
    let mut host_path = facts.mounted.paths.get(&mount.name).ok_or_else(missing)?.clone();
    if !part.is_empty() {
        host_path = mount_part(facts, (at, mount), &host_path, &part).map_err(|error| {
            tracing::info!(container = facts.container.name, %error, "no subPath");
            format!(
                "failed to prepare subPath for volumeMount {:?} of container {:?}",
                mount.name, facts.container.name
            )
        })?;
    } else if volume.host_path.is_some() && !host_path.exists() {
        // A path without a type is made as a directory by the runtimes; so it is here.
        fs::create_dir_all(&host_path).map_err(|error| error.to_string())?;
    }
    Ok(Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly: readonly || is_read_only(volume) || facts.mounted.read_only.contains(&mount.name),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
        recursive_read_only: readonly && mount.recursive_read_only.as_deref() == Some("Enabled"),
        ..Mount::default()
    })
}

/// Mounts a part of a volume below the pod's directory, so that no name is looked up in the volume
/// when the container is started.
fn mount_part(
    facts: &ContainerFacts<'_>,
    (at, mount): (usize, &VolumeMount),
    volume: &Path,
    part: &str,
) -> std::io::Result<PathBuf> {
    let open = sub_path::open(volume, part)?;
    let target = facts
        .pod_dir
        .join("volume-subpaths")
        .join(&mount.name)
        .join(&facts.container.name)
        .join(at.to_string());
    facts.mounts.unmount_all(&target)?;
    sub_path::make_target(&open, &target)?;
    facts.mounts.bind(&open, &target)?;
    Ok(target)
}

/// Volumes whose files are the kubelet's to write.
fn is_read_only(volume: &k8s_openapi::api::core::v1::Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

fn sub_path_of(
    mount: &VolumeMount,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(mount.sub_path.clone().unwrap_or_default());
    };
    let missing = std::cell::RefCell::new(Vec::new());
    let path = expand(expression, &|name| {
        let value = lookup(name);
        if value.is_none() {
            missing.borrow_mut().push(name.to_owned());
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        return Ok(path);
    }
    Err(format!("missing value for {}", missing.join(", ")))
}
