//! What the baseline refuses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{APP_ARMOR, Pod, Violation, containers, named, names_where, quoted};

/// Capabilities that containers have anyway.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Kernel parameters that concern the pod alone, and since when they are known to.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let is_allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let mut setters = Vec::new();
    let mut values = 0;
    if let Some(kind) = pod.context()["appArmorProfile"]["type"].as_str()
        && !is_allowed(kind)
    {
        values += 1;
        setters.push(format!("pod must not set AppArmor profile type to {kind:?}"));
    }
    let kind_of =
        |container: &Value| container["appArmorProfile"]["type"].as_str().map(str::to_owned);
    let bad: BTreeSet<String> = pod
        .containers()
        .filter_map(|container| kind_of(container.context))
        .filter(|kind| !is_allowed(kind))
        .collect();
    let names = names_where(pod, |c| kind_of(c.context).is_some_and(|kind| !is_allowed(&kind)));
    if !names.is_empty() {
        values += bad.len();
        let kinds: Vec<String> = bad.into_iter().collect();
        let types = if kinds.len() == 1 { "type" } else { "types" };
        setters.push(format!(
            "{} must not set AppArmor profile {types} to {}",
            containers(&names),
            quoted(&kinds)
        ));
    }
    let mut forbidden: Vec<String> = pod
        .annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(APP_ARMOR))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !matches!(*value, "" | "runtime/default") && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !forbidden.is_empty() {
        forbidden.sort();
        values += forbidden.len();
        let noun = if forbidden.len() == 1 { "annotation" } else { "annotations" };
        setters.push(format!("{noun} {}", forbidden.join(", ")));
    }
    if setters.is_empty() {
        return None;
    }
    let noun = if values == 1 { "profile" } else { "profiles" };
    Some(Violation::new(format!("forbidden AppArmor {noun}"), setters.join(" and ")))
}

/// Capabilities in the `add` lists that are none of these: whose, and which.
pub(super) fn added(pod: &Pod<'_>, allowed: &[&str]) -> Option<(Vec<String>, Vec<String>)> {
    let mut bad = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        let list = container.context["capabilities"]["add"].as_array().into_iter().flatten();
        let found: Vec<&str> = list
            .filter_map(Value::as_str)
            .filter(|capability| !allowed.contains(capability))
            .collect();
        if !found.is_empty() {
            names.push(container.name());
            bad.extend(found.into_iter().map(str::to_owned));
        }
    }
    if names.is_empty() { None } else { Some((names, bad.into_iter().collect())) }
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let (names, bad) = added(pod, &CAPABILITIES)?;
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&names),
        quoted(&bad)
    );
    Some(Violation::new("non-default capabilities", detail))
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    Some(Violation::new("host namespaces", shared.join(", ")))
}

pub(super) fn host_paths(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.get("hostPath").is_some())
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    Some(Violation::new("hostPath volumes", named("volume", "volumes", &names)))
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports_of = |container: &Value| -> Vec<i64> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
    };
    let names = names_where(pod, |container| !ports_of(container.value).is_empty());
    if names.is_empty() {
        return None;
    }
    let ports: BTreeSet<String> = pod
        .containers()
        .flat_map(|container| ports_of(container.value))
        .map(|port| port.to_string())
        .collect();
    let list: Vec<&str> = ports.iter().map(String::as_str).collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        if names.len() == 1 { "uses" } else { "use" },
        if list.len() == 1 { "hostPort" } else { "hostPorts" },
        list.join(", ")
    );
    Some(Violation::new("hostPort", detail))
}

/// Probes and hooks that ask somebody else than the container.
pub(super) fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    if !pod.version.is_at_least(34) {
        return None;
    }
    let hosts_of = |container: &Value| -> Vec<String> {
        const HANDLERS: [&str; 5] = [
            "/livenessProbe",
            "/readinessProbe",
            "/startupProbe",
            "/lifecycle/postStart",
            "/lifecycle/preStop",
        ];
        let host = |handler: &&str, action: &str| {
            let path = format!("{handler}/{action}/host");
            container.pointer(&path).and_then(Value::as_str).map(str::to_owned)
        };
        let of = |handler: &'static str| {
            ["httpGet", "tcpSocket"].into_iter().filter_map(move |action| host(&handler, action))
        };
        HANDLERS.into_iter().flat_map(of).filter(|host| !host.is_empty()).collect()
    };
    let names = names_where(pod, |container| !hosts_of(container.value).is_empty());
    if names.is_empty() {
        return None;
    }
    let hosts: BTreeSet<String> =
        pod.containers().flat_map(|container| hosts_of(container.value)).collect();
    let hosts: Vec<String> = hosts.into_iter().collect();
    let detail = format!(
        "{} {} probe or lifecycle {} {}",
        containers(&names),
        if names.len() == 1 { "uses" } else { "use" },
        if hosts.len() == 1 { "host" } else { "hosts" },
        quoted(&hosts)
    );
    Some(Violation::new("probe or lifecycle host", detail))
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = names_where(pod, |container| container.context["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.privileged=true", containers(&names));
    Some(Violation::new("privileged", detail))
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let is_bad =
        |context: &Value| context["procMount"].as_str().is_some_and(|mount| mount != "Default");
    let names = names_where(pod, |container| is_bad(container.context));
    if names.is_empty() {
        return None;
    }
    let mounts: BTreeSet<String> = pod
        .containers()
        .filter(|container| is_bad(container.context))
        .filter_map(|container| container.context["procMount"].as_str().map(str::to_owned))
        .collect();
    let mounts: Vec<String> = mounts.into_iter().collect();
    let detail = format!(
        "{} must not set securityContext.procMount to {}",
        containers(&names),
        quoted(&mounts)
    );
    Some(Violation::new("procMount", detail))
}

pub(super) fn se_linux(pod: &Pod<'_>) -> Option<Violation> {
    let is_allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (kind == "container_engine_t" && pod.version.is_at_least(31))
    };
    let text =
        |options: &Value, field: &str| options[field].as_str().unwrap_or_default().to_owned();
    let is_bad = |options: &Value| {
        !is_allowed(&text(options, "type"))
            || !text(options, "user").is_empty()
            || !text(options, "role").is_empty()
    };
    let mut setters = Vec::new();
    let mut all = Vec::new();
    let of_pod = &pod.context()["seLinuxOptions"];
    if is_bad(of_pod) {
        setters.push("pod".to_owned());
        all.push(of_pod);
    }
    let names = names_where(pod, |container| is_bad(&container.context["seLinuxOptions"]));
    if !names.is_empty() {
        setters.push(containers(&names));
        all.extend(pod.containers().map(|container| &container.context["seLinuxOptions"]));
    }
    if setters.is_empty() {
        return None;
    }
    let types: BTreeSet<String> =
        all.iter().map(|options| text(options, "type")).filter(|kind| !is_allowed(kind)).collect();
    let types: Vec<String> = types.into_iter().collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(named("type", "types", &types));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !text(options, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    let detail = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        setters.join(" and "),
        data.join("; ")
    );
    Some(Violation::new("seLinuxOptions", detail))
}

/// Who sets a type of profile that is none of those allowed, and to what.
pub(super) fn seccomp_setters(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |context: &Value| context["seccompProfile"]["type"].as_str().map(str::to_owned);
    let is_bad = |context: &Value| {
        kind(context).is_some_and(|kind| !matches!(kind.as_str(), "RuntimeDefault" | "Localhost"))
    };
    let mut setters = Vec::new();
    let mut values = BTreeSet::new();
    if is_bad(pod.context()) {
        setters.push("pod".to_owned());
        values.extend(kind(pod.context()));
    }
    let names = names_where(pod, |container| is_bad(container.context));
    if !names.is_empty() {
        setters.push(containers(&names));
        let bad = pod.containers().filter(|container| is_bad(container.context));
        values.extend(bad.filter_map(|container| kind(container.context)));
    }
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().collect();
    let detail = format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters.join(" and "),
        quoted(&values)
    );
    Some(Violation::new("seccompProfile", detail))
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    seccomp_setters(pod)
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    let is_allowed = |name: &str| {
        SYSCTLS.iter().any(|(known, since)| *known == name && pod.version.is_at_least(*since))
    };
    let list = pod.context()["sysctls"].as_array().into_iter().flatten();
    let bad: Vec<&str> = list
        .filter_map(|sysctl| sysctl["name"].as_str())
        .filter(|name| !is_allowed(name))
        .collect();
    if bad.is_empty() {
        return None;
    }
    Some(Violation::new("forbidden sysctls", bad.join(", ")))
}

pub(super) fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let is_set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let mut setters = Vec::new();
    if is_set(pod.context()) {
        setters.push("pod".to_owned());
    }
    let names = names_where(pod, |container| is_set(container.context));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.windowsOptions.hostProcess=true",
        setters.join(" and ")
    );
    Some(Violation::new("hostProcess", detail))
}
