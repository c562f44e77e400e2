//! Security contexts of containers.

use cri::{
    Capability, ContainerId, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption,
    ProfileType, SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile};

use crate::pod::sandbox_config::{namespaces, parse_groups_policy};
use crate::pod::spec;

/// What a container sees nothing of, unless `procMount: Unmasked`: upstream's defaults.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// What a container cannot write to.
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `supplementalGroups` and `fsGroup`.
pub(crate) fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = spec::spec(pod).security_context.as_ref() else { return Vec::new() };
    let given = context.supplemental_groups.iter().flatten().copied();
    given.chain(context.fs_group).collect()
}

/// `supplementalGroupsPolicy`.
pub(crate) fn groups_policy(pod: &Pod) -> SupplementalGroupsPolicy {
    let context = spec::spec(pod).security_context.as_ref();
    parse_groups_policy(context.and_then(|c| c.supplemental_groups_policy.as_deref()))
}

/// A seccomp profile; without one a container is unconfined.
pub(crate) fn seccomp(profile: Option<&SeccompProfile>) -> Option<SecurityProfile> {
    let profile = profile?;
    let profile_type = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    Some(SecurityProfile { profile_type, localhost_ref })
}

/// The security context of a container; `target` is whose processes an ephemeral one sees.
pub(crate) fn security_context(
    pod: &Pod,
    container: &Container,
    target: Option<ContainerId>,
    users: Option<UserNamespace>,
) -> LinuxContainerSecurityContext {
    let own = container.security_context.clone().unwrap_or_default();
    let of_pod: PodSecurityContext = spec::spec(pod).security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let mut namespace_options = NamespaceOption { users, ..namespaces(pod) };
    if let Some(target) = target {
        namespace_options.pid = NamespaceMode::Target;
        namespace_options.target_id = Some(target);
    }
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.map(|capabilities| Capability {
            add_capabilities: plain(capabilities.add),
            drop_capabilities: plain(capabilities.drop),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options,
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_username: String::new(),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { paths(&MASKED_PATHS) },
        readonly_paths: if unmasked { Vec::new() } else { paths(&READONLY_PATHS) },
        seccomp: if privileged {
            None
        } else {
            seccomp(own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()))
        },
        apparmor: None,
    }
}

fn plain(capabilities: Option<Vec<String>>) -> Vec<String> {
    let all = capabilities.unwrap_or_default().into_iter();
    all.map(|name| name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)).collect()
}

/// Whether a container that must not run as root does not; the error is the message of
/// `CreateContainerConfigError`.
pub(crate) fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image: &cri::Image,
) -> Result<(), String> {
    let own = container.security_context.as_ref();
    let of_pod = spec::spec(pod).security_context.as_ref();
    let demanded = own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root));
    if demanded != Some(true) {
        return Ok(());
    }
    let whose = format!("(pod: {:?}, container: {})", spec::described(pod), container.name);
    match own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user)) {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {whose}")),
        Some(_) => return Ok(()),
        None => {}
    }
    match image.uid {
        Some(0) => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
        Some(_) => Ok(()),
        None if image.username.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {whose}"))
        }
        None => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user \
             is non-root {whose}",
            image.username
        )),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::SecurityContext;

    use super::*;
    use crate::pod::fixture;

    #[test]
    fn the_containers_context_wins_over_the_pods() {
        let mut container = fixture::container("a");
        container.security_context = Some(SecurityContext {
            run_as_user: Some(7),
            allow_privilege_escalation: Some(false),
            ..SecurityContext::default()
        });
        let mut pod = fixture::pod("Always", vec![], vec![container.clone()]);
        pod.spec.as_mut().unwrap().security_context = Some(PodSecurityContext {
            run_as_user: Some(5),
            run_as_group: Some(6),
            fs_group: Some(8),
            ..PodSecurityContext::default()
        });
        let context = security_context(&pod, &container, None, None);
        assert_eq!((context.run_as_user, context.run_as_group), (Some(7), Some(6)));
        assert_eq!(context.supplemental_groups, [8]);
        assert!(context.no_new_privs && !context.masked_paths.is_empty());
    }

    #[test]
    fn an_image_that_runs_as_root_is_refused_when_root_is_forbidden() {
        let mut container = fixture::container("a");
        let forbid = SecurityContext { run_as_non_root: Some(true), ..Default::default() };
        container.security_context = Some(forbid);
        let pod = fixture::pod("Always", vec![], vec![container.clone()]);
        let image = |uid, username: &str| cri::Image {
            uid,
            username: username.into(),
            ..cri::Image::default()
        };
        let verify = |image: cri::Image| verify_non_root(&pod, &container, &image);
        assert!(verify(image(Some(1), "")).is_ok());
        assert_eq!(
            verify(image(None, "")).unwrap_err(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: a)"
        );
        assert!(verify(image(None, "app")).unwrap_err().contains("non-numeric user (app)"));
    }
}
