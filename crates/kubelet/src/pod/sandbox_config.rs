//! What a pod's sandbox is made from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cri::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SupplementalGroupsPolicy,
    UserNamespace,
};
use k8s_openapi::api::core::v1::Pod;

use crate::config::Config;
use crate::labels;
use crate::pod::names;
use crate::pod::qos;
use crate::pod::security;
use crate::pod::spec;

/// Where the logs of a pod's containers are.
pub(crate) fn log_directory(config: &Config, pod: &Pod) -> PathBuf {
    let name = format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod));
    config.pod_logs_dir.join(name)
}

/// The configuration; the error is the end of a `FailedCreatePodSandBox` event.
pub(crate) fn sandbox_config(
    config: &Config,
    pod: &Pod,
    attempt: u32,
    handler: &str,
    users: Option<UserNamespace>,
) -> Result<PodSandboxConfig, String> {
    let host_network = spec::host_network(pod);
    let hostname = if host_network {
        String::new()
    } else {
        names::sandbox_hostname(pod, &config.cluster_domain)?
    };
    let node = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let dns = names::resolver(pod, &config.cluster_dns, &config.cluster_domain, &node);
    let mut all_labels = pod.metadata.labels.clone().unwrap_or_default();
    all_labels.extend(pod_labels(pod));
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let grace = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
    annotations.insert(labels::GRACE_PERIOD.to_owned(), grace.to_string());
    Ok(PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            attempt,
        },
        hostname,
        log_directory: log_directory(config, pod).display().to_string(),
        dns_config: Some(dns),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: all_labels,
        annotations,
        linux: LinuxPodSandboxConfig {
            cgroup_parent: qos::pod_cgroup(&config.cgroup_root, pod),
            security_context: security_context(pod, users),
            sysctls: sysctls(pod),
            overhead: None,
            resources: None,
        },
        runtime_handler: handler.to_owned(),
    })
}

/// Labels by which a pod's sandboxes and containers are found.
pub(crate) fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    [
        (labels::POD_NAME, spec::name(pod)),
        (labels::POD_NAMESPACE, spec::namespace(pod)),
        (labels::POD_UID, spec::uid(pod)),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The namespaces of the pod's containers.
pub(crate) fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec::spec(pod);
    let host = |wanted: Option<bool>| {
        if wanted == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: host(spec.host_network),
        pid,
        ipc: host(spec.host_ipc),
        target_id: None,
        users: None,
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| api::pod::is_sidecar(c));
    let containers = spec::spec(pod).containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(port.container_port).ok()?,
                host_port: u16::try_from(port.host_port?).ok().filter(|port| *port != 0)?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

fn security_context(pod: &Pod, users: Option<UserNamespace>) -> LinuxSandboxSecurityContext {
    let spec = spec::spec(pod);
    let context = spec.security_context.clone().unwrap_or_default();
    let privileged = spec::init_containers(pod).iter().chain(&spec.containers).any(|container| {
        container.security_context.as_ref().and_then(|c| c.privileged) == Some(true)
    });
    LinuxSandboxSecurityContext {
        namespace_options: NamespaceOption { users, ..namespaces(pod) },
        run_as_user: context.run_as_user,
        run_as_group: context.run_as_group,
        readonly_rootfs: false,
        supplemental_groups: security::supplemental_groups(pod),
        supplemental_groups_policy: security::groups_policy(pod),
        privileged,
        seccomp: security::seccomp(context.seccomp_profile.as_ref()),
        apparmor: None,
    }
}

fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = spec::spec(pod).security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    // Both spellings are admitted; the runtime takes dots.
    sysctls.iter().map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone())).collect()
}

/// Upstream's word for the policy.
pub(crate) fn parse_groups_policy(word: Option<&str>) -> SupplementalGroupsPolicy {
    match word {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}
