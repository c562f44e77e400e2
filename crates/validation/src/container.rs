//! Containers: names, ports, mounts, devices, security.

use std::collections::BTreeSet;

use meta::names;
use serde_json::Value;

use crate::environment::{environment, environment_sources};
use crate::node::{Findings, Node};
use crate::pod_resources::container_claims;
use crate::resources;
use crate::{FieldError, Path, probe};

/// What containers must fit to.
pub(crate) struct Surroundings<'a> {
    /// The pod's volumes by name.
    pub(crate) volumes: Vec<&'a Value>,
    /// The pod's grace period.
    pub(crate) grace_secs: i64,
    /// Names of the pod's claims to devices.
    pub(crate) claims: BTreeSet<String>,
    /// Whether this is a pod and not a template.
    pub(crate) is_pod: bool,
    /// Whether containers of the pod are never started again.
    pub(crate) never_restarts: bool,
    /// Whether users in the pod are not those of the host.
    pub(crate) has_own_users: bool,
    /// Whether the pod says which operating system it needs.
    pub(crate) has_os: bool,
}

impl Surroundings<'_> {
    fn volume(&self, name: &str) -> Option<&Value> {
        self.volumes.iter().copied().find(|volume| volume["name"] == name)
    }
}

/// The main containers.
pub(crate) fn main(containers: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    if containers.len() == 0 {
        out.push(FieldError::required(&containers.path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for container in containers.items() {
        common(&container, around, out);
        let name = container.get("name");
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        restart_rules(&container, out);
        stop_signal(&container, around, out);
        probe::of_container(&container, around.grace_secs, out);
    }
    host_port_conflicts(containers.items().collect(), out);
}

/// The init containers, whose names must differ from those of the main ones.
pub(crate) fn init(
    containers: &Node<'_>,
    main: &Node<'_>,
    around: &Surroundings<'_>,
    out: &mut Findings,
) {
    let mut seen: BTreeSet<&str> = main.items().map(|c| c.get("name").text()).collect();
    for container in containers.items() {
        common(&container, around, out);
        let name = container.get("name");
        if !name.text().is_empty() && !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        restart_rules(&container, out);
        stop_signal(&container, around, out);
        let restarts = container.get("restartPolicy").text() == "Always";
        for policy in container.get("resizePolicy").items().filter(|_| !restarts) {
            let policy = policy.get("restartPolicy");
            if policy.text() == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                out.push(policy.invalid(detail));
            }
        }
        if restarts {
            probe::of_container(&container, around.grace_secs, out);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.get(field).is_set() {
                    out.push(container.get(field).forbidden(
                        "may not be set for init containers without restartPolicy=Always",
                    ));
                }
            }
        }
        host_port_conflicts(vec![container], out);
    }
}

/// When a container is started again, other than the pod says.
fn restart_rules(container: &Node<'_>, out: &mut Findings) {
    const MAX_RULES: usize = 20;
    const MAX_CODES: usize = 255;
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    policy.one_of(&["Always", "Never", "OnFailure"], out);
    if rules.len() > 0 && !policy.is_set() {
        let detail = "must specify restartPolicy when restart rules are used";
        out.push(FieldError::required(&policy.path, detail));
    }
    rules.at_most(MAX_RULES, out);
    for rule in rules.items() {
        let action = rule.get("action");
        if !matches!(action.text(), "Restart" | "RestartAllContainers") {
            let known = ["Restart", "RestartAllContainers"];
            out.push(FieldError::not_supported(&action.path, action.text(), &known));
        }
        let codes = rule.get("exitCodes");
        if !codes.is_set() {
            out.push(FieldError::required(&codes.path, "must be specified"));
            continue;
        }
        let operator = codes.get("operator");
        if !matches!(operator.text(), "In" | "NotIn") {
            let known = ["In", "NotIn"];
            out.push(FieldError::not_supported(&operator.path, operator.text(), &known));
        }
        codes.get("values").at_most(MAX_CODES, out);
    }
}

/// Signals are those of an operating system.
fn stop_signal(container: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    let signal = container.get("lifecycle").get("stopSignal");
    if signal.is_set() && !around.has_os {
        let detail = "may not be set for containers with empty `spec.os.name`";
        out.push(signal.forbidden(detail));
    }
}

pub(crate) fn common(container: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    let name = container.get("name");
    if name.require(out) {
        name.invalid_each(names::dns1123_label(name.text()), out);
    }
    let image = container.get("image");
    if image.require(out) && around.is_pod && image.text().trim() != image.text() {
        out.push(image.invalid("must not have leading or trailing whitespace"));
    }
    container
        .get("terminationMessagePolicy")
        .require_one_of(&["File", "FallbackToLogsOnError"], out);
    ports(&container.get("ports"), out);
    environment(&container.get("env"), out);
    environment_sources(&container.get("envFrom"), out);
    mounts(container, around, out);
    devices(container, around, out);
    container.get("imagePullPolicy").require_one_of(&["Always", "IfNotPresent", "Never"], out);
    resources::requirements(&container.get("resources"), out);
    container_claims(&container.get("resources").get("claims"), &around.claims, out);
    resize_policies(&container.get("resizePolicy"), around, out);
    security_context(&container.get("securityContext"), around, out);
}

fn ports(ports: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            let wrong = names::port_name(name.text());
            if wrong.is_empty() && !seen.insert(name.text()) {
                out.push(FieldError::duplicate(&name.path, name.text()));
            }
            name.invalid_each(wrong, out);
        }
        let number = port.get("containerPort");
        if number.int() == 0 {
            out.push(FieldError::required(&number.path, ""));
        } else {
            number.port_number(out);
        }
        let host = port.get("hostPort");
        if host.int() != 0 {
            host.port_number(out);
        }
        port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"], out);
        let host_ip = port.get("hostIP");
        if !host_ip.text().is_empty() {
            crate::address::ip(&host_ip, out);
        }
    }
}

fn host_port_conflicts(containers: Vec<Node<'_>>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for port in containers.iter().flat_map(|container| container.get("ports").items()) {
        let host = port.get("hostPort");
        if host.int() == 0 {
            continue;
        }
        let (protocol, ip) = (port.get("protocol").text(), port.get("hostIP").text());
        let text = format!("{protocol}/{ip}/{}", host.int());
        if !seen.insert(text.clone()) {
            out.push(FieldError::duplicate(&host.path, text));
        }
    }
}

fn mounts(container: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    let mounts = container.get("volumeMounts");
    let devices = container.get("volumeDevices");
    let is_device =
        |field: &'static str, text: &str| devices.items().any(|d| d.get(field).text() == text);
    let privileged = container.get("securityContext").get("privileged").is_true();
    let mut seen = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.require(out) && around.volume(name.text()).is_none() {
            out.push(FieldError::not_found(&name.path, name.text()));
        }
        path.require(out);
        if !seen.insert(path.text()) {
            out.push(FieldError::invalid(&path.path, path.text(), "must be unique"));
        }
        if is_device("name", name.text()) {
            out.push(name.invalid("must not already exist in volumeDevices"));
        }
        if is_device("devicePath", path.text()) {
            out.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        if !sub.text().is_empty() {
            relative_path(&sub.under(mounts.path.child("subPath")), out);
        }
        if !expression.text().is_empty() {
            if !sub.text().is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                out.push(expression.invalid(detail));
            }
            relative_path(&expression.under(mounts.path.child("subPathExpr")), out);
        }
        // Upstream reports some findings at the list.
        let propagation =
            mount.get("mountPropagation").under(mounts.path.child("mountPropagation"));
        if propagation.is_set() {
            propagation.one_of(&["Bidirectional", "HostToContainer", "None"], out);
            if propagation.text() == "Bidirectional" && !privileged {
                let detail =
                    "Bidirectional mount propagation is available only to privileged containers";
                out.push(propagation.forbidden(detail));
            }
        }
        recursive_read_only(&mount, mounts.path.child("recursiveReadOnly"), out);
    }
}

fn recursive_read_only(mount: &Node<'_>, path: Path, out: &mut Findings) {
    let mode = mount.get("recursiveReadOnly").under(path);
    if !matches!(mode.text(), "IfPossible" | "Enabled") {
        mode.one_of(&["Disabled", "Enabled", "IfPossible"], out);
        return;
    }
    if !mount.get("readOnly").is_true() {
        out.push(mode.forbidden("may only be specified when readOnly is true"));
    }
    if !matches!(mount.get("mountPropagation").text(), "" | "None") {
        let detail = "may only be specified when mountPropagation is None or not specified";
        out.push(mode.forbidden(detail));
    }
}

/// A path that stays below where it starts.
pub(crate) fn relative_path(path: &Node<'_>, out: &mut Findings) {
    if path.text().starts_with('/') {
        out.push(path.invalid("must be a relative path"));
    }
    no_backsteps(path, out);
}

pub(crate) fn no_backsteps(path: &Node<'_>, out: &mut Findings) {
    if path.text().split('/').any(|part| part == "..") {
        out.push(path.invalid("must not contain '..'"));
    }
}

fn devices(container: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    let mounts = container.get("volumeMounts");
    let is_mount =
        |field: &'static str, text: &str| mounts.items().any(|m| m.get(field).text() == text);
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.require(out) {
            match around.volume(name.text()) {
                None => out.push(FieldError::not_found(&name.path, name.text())),
                Some(volume)
                    if volume.get("persistentVolumeClaim").is_none()
                        && volume.get("ephemeral").is_none() =>
                {
                    out.push(name.invalid(
                        "can only use volume source type of PersistentVolumeClaim or Ephemeral \
                         for block mode",
                    ));
                }
                Some(_) => {}
            }
        }
        if path.require(out) {
            if !paths.insert(path.text()) {
                out.push(path.invalid("must be unique"));
            }
            if path.text().split('/').any(|part| part == "..") {
                out.push(path.invalid("can not contain backsteps ('..')"));
            }
            if is_mount("mountPath", path.text()) {
                out.push(path.invalid("must not already exist as a path in volumeMounts"));
            }
        }
        if !names.insert(name.text()) {
            out.push(name.invalid("must be unique"));
        }
        if is_mount("name", name.text()) {
            out.push(name.invalid("must not already exist in volumeMounts"));
        }
    }
}

fn resize_policies(policies: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for policy in policies.items() {
        let resource = policy.get("resourceName");
        if !seen.insert(resource.text()) {
            out.push(FieldError::duplicate(&policies.path, resource.text()));
        }
        resource.under(policies.path.clone()).require_one_of(&["cpu", "memory"], out);
        policy
            .get("restartPolicy")
            .under(policies.path.clone())
            .require_one_of(&["NotRequired", "RestartContainer"], out);
        let restart = policy.get("restartPolicy").under(policies.path.clone());
        if around.never_restarts && restart.text() == "RestartContainer" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            out.push(restart.invalid(detail));
        }
    }
}

fn security_context(context: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    if !context.is_set() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(&context.get(field), out);
    }
    let mount = context.get("procMount");
    mount.one_of(&["Default", "Unmasked"], out);
    if mount.text() == "Unmasked" && !around.has_own_users {
        out.push(mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    profile(&context.get("seccompProfile"), "seccomp", "seccompProfile", out);
    no_escalation(context, out);
    windows_options(&context.get("windowsOptions"), out);
    app_armor(&context.get("appArmorProfile"), out);
}

/// Who may not gain rights cannot have all of them.
fn no_escalation(context: &Node<'_>, out: &mut Findings) {
    if *context.get("allowPrivilegeEscalation").value != Value::Bool(false) {
        return;
    }
    if context.get("privileged").is_true() {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        out.push(context.invalid(detail).shown_as("core/v1.SecurityContext"));
    }
    let added = context.get("capabilities").get("add");
    if added.items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
        let detail =
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        out.push(context.invalid(detail).shown_as("core/v1.SecurityContext"));
    }
}

/// A user or group id.
pub(crate) fn id(id: &Node<'_>, out: &mut Findings) {
    if id.is_set() && !(0..=i64::from(i32::MAX)).contains(&id.int()) {
        out.push(id.invalid("must be between 0 and 2147483647, inclusive"));
    }
}

/// A seccomp profile.
pub(crate) fn profile(profile: &Node<'_>, what: &str, field: &str, out: &mut Findings) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "" => {
            let detail = format!("type is required when {field} is set");
            out.push(FieldError::required(&kind.path, detail));
        }
        "Localhost" if local.text().is_empty() => {
            let detail = format!("must be set when {what} type is Localhost");
            out.push(FieldError::required(&local.path, detail));
        }
        "Localhost" => relative_path(&local, out),
        other => {
            if local.is_set() {
                // Upstream quotes the whole profile.
                let detail = format!("can only be set when {what} type is Localhost");
                let finding = FieldError::invalid(&local.path, profile.value.clone(), detail);
                out.push(finding.shown_as("core/v1.SeccompProfile"));
            }
            if !matches!(other, "RuntimeDefault" | "Unconfined") {
                kind.one_of(&["Localhost", "RuntimeDefault", "Unconfined"], out);
            }
        }
    }
}

/// An AppArmor profile.
pub(crate) fn app_armor(profile: &Node<'_>, out: &mut Findings) {
    const MAX_PROFILE: usize = 4095;
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            let name = local.text();
            if name.trim().is_empty() {
                let detail = "must be set when AppArmor type is Localhost";
                out.push(FieldError::required(&local.path, detail));
            } else if name.trim() != name {
                out.push(local.invalid("must not be padded with whitespace"));
            }
            local.no_longer_than(MAX_PROFILE, out);
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                out.push(local.invalid("can only be set when AppArmor type is Localhost"));
            }
        }
        "" => {
            let detail = "type is required when appArmorProfile is set";
            out.push(FieldError::required(&kind.path, detail));
        }
        _ => kind.one_of(&["Localhost", "RuntimeDefault", "Unconfined"], out),
    }
}

/// What containers on Windows run as.
pub(crate) fn windows_options(options: &Node<'_>, out: &mut Findings) {
    const MAX_SPEC: usize = 64 * 1024;
    if !options.is_set() {
        return;
    }
    let name = options.get("gmsaCredentialSpecName");
    if name.is_set() {
        name.subdomain(out);
    }
    let spec = options.get("gmsaCredentialSpec");
    if spec.is_set() && spec.text().is_empty() {
        out.push(spec.invalid("gmsaCredentialSpec cannot be an empty string"));
    } else if spec.text().len() > MAX_SPEC {
        out.push(spec.invalid("gmsaCredentialSpec size must be under 64 KiB"));
    }
    let user = options.get("runAsUserName");
    if user.is_set() {
        windows_user(&user, out);
    }
}

/// A user, with or without a domain before a backslash.
fn windows_user(user: &Node<'_>, out: &mut Findings) {
    const REFUSED: &str = "\"/\\:;|=,+*?<>@[]";
    let text = user.text();
    let mut report = |is_wrong: bool, detail: &str| {
        if is_wrong {
            out.push(user.invalid(format!("runAsUserName{detail}")));
        }
        is_wrong
    };
    if report(text.is_empty(), " cannot be an empty string")
        || report(text.chars().any(char::is_control), " cannot contain control characters")
        || report(text.matches('\\').count() > 1, " cannot contain more than one backslash")
    {
        return;
    }
    let (domain, name) = text.split_once('\\').map_or((None, text), |(d, n)| (Some(d), n));
    if let Some(domain) = domain {
        let is_net_bios = domain.len() <= 15
            && !domain.is_empty()
            && !domain.starts_with('.')
            && !domain.contains(|c: char| "\\/:*?\"<>|".contains(c));
        let is_dns = domain.split('.').all(|label| {
            let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = label.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        });
        report(domain.len() >= 256, "'s Domain length must be under 256 characters");
        report(!is_net_bios && !is_dns, "'s Domain doesn't match the NetBios nor the DNS format");
    }
    if report(name.is_empty(), "'s User cannot be empty") {
        return;
    }
    report(name.len() > 104, "'s User length must not be longer than 104 characters");
    report(
        name.chars().all(|c| matches!(c, '.' | ' ')),
        "'s User cannot contain only periods or spaces",
    );
    report(
        name.contains(|c: char| REFUSED.contains(c)),
        "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
    );
}
