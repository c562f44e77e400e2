//! What the node itself has to be able to do for a pod: kernel parameters that only the pod feels,
//! and security modules.

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use crate::pod::spec;
use crate::pod::status::Verdict;

/// Kernel parameters of a pod's own namespaces that cannot harm others: upstream
/// `sysctl.SafeSysctlAllowlist`.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Decides. `allowed` are further kernel parameters, or prefixes of them that end with `*`.
pub(crate) fn admit(pod: &Pod, allowed: &[String]) -> Result<(), Verdict> {
    sysctls(pod, allowed).map_err(|why| Verdict {
        reason: "SysctlForbidden".to_owned(),
        message: format!("forbidden sysctl: {why}"),
    })?;
    if wants_app_armor(pod) {
        return Err(Verdict {
            reason: "AppArmor".to_owned(),
            message: "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned(),
        });
    }
    Ok(())
}

fn sysctls(pod: &Pod, allowed: &[String]) -> Result<(), String> {
    let spec = spec::spec(pod);
    let context = spec.security_context.as_ref();
    for sysctl in context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default() {
        // Both spellings are admitted.
        let name = sysctl.name.replace('/', ".");
        let by_user = allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        });
        if !by_user && !SAFE.contains(&name.as_str()) {
            return Err(format!("{name:?} not allowlisted"));
        }
        if spec::host_network(pod) && name.starts_with("net.") {
            return Err(format!("{name:?} not allowed with host net enabled"));
        }
        if spec.host_ipc == Some(true) && !name.starts_with("net.") {
            return Err(format!("{name:?} not allowed with host ipc enabled"));
        }
    }
    Ok(())
}

/// Whether a profile is asked for; the embedded runtime applies none.
fn wants_app_armor(pod: &Pod) -> bool {
    let wanted =
        |profile: Option<&AppArmorProfile>| profile.is_some_and(|p| p.type_ != "Unconfined");
    let of_pod = spec::spec(pod).security_context.as_ref();
    let mut containers = spec::init_containers(pod).iter().chain(&spec::spec(pod).containers);
    wanted(of_pod.and_then(|context| context.app_armor_profile.as_ref()))
        || containers.any(|container| {
            let own = container.security_context.as_ref();
            wanted(own.and_then(|context| context.app_armor_profile.as_ref()))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(spec: serde_json::Value, allowed: &[&str]) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        admit(&pod, &allowed).err().map(|verdict| verdict.message)
    }

    #[test]
    fn only_parameters_that_nobody_else_feels_are_set() {
        let with = |name: &str, more: serde_json::Value| {
            let mut spec = json!({ "containers": [], "securityContext": {
                "sysctls": [{ "name": name, "value": "1" }] } });
            for (key, value) in more.as_object().unwrap() {
                spec[key] = value.clone();
            }
            spec
        };
        let none = json!({});
        assert_eq!(refused(with("kernel.shm_rmid_forced", none.clone()), &[]), None);
        assert_eq!(refused(with("kernel/shm_rmid_forced", none.clone()), &[]), None);
        let message = Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted".to_owned());
        assert_eq!(refused(with("kernel.msgmax", none.clone()), &[]), message);
        assert_eq!(refused(with("kernel.msgmax", none), &["kernel.msg*"]), None);
        let node = json!({ "hostNetwork": true });
        let told = refused(with("net.ipv4.tcp_syncookies", node), &[]).unwrap();
        assert!(told.ends_with("not allowed with host net enabled"), "{told}");
        let ipc = json!({ "hostIPC": true });
        let told = refused(with("kernel.shm_rmid_forced", ipc), &[]).unwrap();
        assert!(told.ends_with("not allowed with host ipc enabled"), "{told}");
    }

    #[test]
    fn profiles_that_cannot_be_applied_are_refused() {
        let with = |kind: &str| {
            json!({ "containers": [{ "name": "c", "securityContext": {
                "appArmorProfile": { "type": kind } } }] })
        };
        assert_eq!(refused(with("Unconfined"), &[]), None);
        assert_eq!(
            refused(with("RuntimeDefault"), &[]).unwrap(),
            "Cannot enforce AppArmor: AppArmor is not enabled on the host"
        );
    }
}
