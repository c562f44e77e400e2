//! Containers: names, ports, mounts, devices, security.

use std::collections::BTreeSet;

use meta::names;
use serde_json::Value;

use crate::environment::{environment, environment_sources};
use crate::node::{Findings, Node};
use crate::resources;
use crate::{FieldError, probe};

/// What containers must fit to.
pub(crate) struct Surroundings<'a> {
    /// The pod's volumes by name.
    pub(crate) volumes: Vec<&'a Value>,
    /// The pod's grace period.
    pub(crate) grace_secs: i64,
    /// Whether this is a pod and not a template.
    pub(crate) is_pod: bool,
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
        container.get("restartPolicy").one_of(&["Always", "Never", "OnFailure"], out);
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
        container.get("restartPolicy").one_of(&["Always", "Never", "OnFailure"], out);
        if container.get("restartPolicy").text() == "Always" {
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

fn common(container: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
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
    resize_policies(&container.get("resizePolicy"), out);
    security_context(&container.get("securityContext"), out);
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
            crate::service::ip_address(&host_ip, out);
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

fn resize_policies(policies: &Node<'_>, out: &mut Findings) {
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
    }
}

fn security_context(context: &Node<'_>, out: &mut Findings) {
    if !context.is_set() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(&context.get(field), out);
    }
    context.get("procMount").one_of(&["Default", "Unmasked"], out);
    profile(&context.get("seccompProfile"), "seccomp", "seccompProfile", out);
    if *context.get("allowPrivilegeEscalation").value != Value::Bool(false) {
        return;
    }
    if context.get("privileged").is_true() {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        out.push(FieldError::invalid(&context.path, context.value.clone(), detail));
    }
    let added = context.get("capabilities").get("add");
    if added.items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
        let detail =
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        out.push(FieldError::invalid(&context.path, context.value.clone(), detail));
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
                let detail = format!("can only be set when {what} type is Localhost");
                out.push(FieldError::invalid(&local.path, local.value.clone(), detail));
            }
            if !matches!(other, "RuntimeDefault" | "Unconfined") {
                kind.one_of(&["Localhost", "RuntimeDefault", "Unconfined"], out);
            }
        }
    }
}
