//! Pods and everything with a pod template.

use meta::Quantity;
use serde_json::{Map, Value, json};

use super::{Logic, Rule, fill, object, text};

pub(super) const RULES: &[Rule] = &[
    ("core/v1.PodSpec", "dnsPolicy", "\"ClusterFirst\""),
    ("core/v1.PodSpec", "restartPolicy", "\"Always\""),
    ("core/v1.PodSpec", "securityContext", "{}"),
    ("core/v1.PodSpec", "terminationGracePeriodSeconds", "30"),
    ("core/v1.PodSpec", "schedulerName", "\"default-scheduler\""),
    ("core/v1.Container", "terminationMessagePath", "\"/dev/termination-log\""),
    ("core/v1.Container", "terminationMessagePolicy", "\"File\""),
    ("core/v1.EphemeralContainer", "terminationMessagePath", "\"/dev/termination-log\""),
    ("core/v1.EphemeralContainer", "terminationMessagePolicy", "\"File\""),
    ("core/v1.ContainerPort", "protocol", "\"TCP\""),
    ("core/v1.Probe", "timeoutSeconds", "1"),
    ("core/v1.Probe", "periodSeconds", "10"),
    ("core/v1.Probe", "successThreshold", "1"),
    ("core/v1.Probe", "failureThreshold", "3"),
    ("core/v1.HTTPGetAction", "path", "\"/\""),
    ("core/v1.HTTPGetAction", "scheme", "\"HTTP\""),
    ("core/v1.GRPCAction", "service", "\"\""),
    ("core/v1.SecretVolumeSource", "defaultMode", "420"),
    ("core/v1.ConfigMapVolumeSource", "defaultMode", "420"),
    ("core/v1.DownwardAPIVolumeSource", "defaultMode", "420"),
    ("core/v1.ProjectedVolumeSource", "defaultMode", "420"),
    ("core/v1.ServiceAccountTokenProjection", "expirationSeconds", "3600"),
    ("core/v1.HostPathVolumeSource", "type", "\"\""),
    ("core/v1.ISCSIVolumeSource", "iscsiInterface", "\"default\""),
    ("core/v1.ISCSIPersistentVolumeSource", "iscsiInterface", "\"default\""),
    ("core/v1.RBDVolumeSource", "pool", "\"rbd\""),
    ("core/v1.RBDVolumeSource", "user", "\"admin\""),
    ("core/v1.RBDVolumeSource", "keyring", "\"/etc/ceph/keyring\""),
    ("core/v1.RBDPersistentVolumeSource", "pool", "\"rbd\""),
    ("core/v1.RBDPersistentVolumeSource", "user", "\"admin\""),
    ("core/v1.RBDPersistentVolumeSource", "keyring", "\"/etc/ceph/keyring\""),
    ("core/v1.AzureDiskVolumeSource", "cachingMode", "\"ReadWrite\""),
    ("core/v1.AzureDiskVolumeSource", "fsType", "\"ext4\""),
    ("core/v1.AzureDiskVolumeSource", "readOnly", "false"),
    ("core/v1.AzureDiskVolumeSource", "kind", "\"Shared\""),
    ("core/v1.ScaleIOVolumeSource", "storageMode", "\"ThinProvisioned\""),
    ("core/v1.ScaleIOVolumeSource", "fsType", "\"xfs\""),
    ("core/v1.ScaleIOPersistentVolumeSource", "storageMode", "\"ThinProvisioned\""),
    ("core/v1.ScaleIOPersistentVolumeSource", "fsType", "\"xfs\""),
    ("core/v1.ObjectFieldSelector", "apiVersion", "\"v1\""),
    ("core/v1.FileKeySelector", "optional", "false"),
];

pub(super) const LOGIC: &[Logic] = &[
    ("core/v1.Pod", pod),
    ("core/v1.PodSpec", service_account),
    ("core/v1.Container", pull_policy_of_container),
    ("core/v1.EphemeralContainer", pull_policy_of_container),
    ("core/v1.ImageVolumeSource", pull_policy_of_volume),
    ("core/v1.Volume", volume),
];

/// What only pods get, and templates do not.
fn pod(pod: &mut Map<String, Value>) {
    let spec = object(pod, "spec");
    host_ports(spec);
    for list in ["containers", "initContainers"] {
        for container in containers(spec, list) {
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                requests_from_limits(resources);
            }
        }
    }
    fill(spec, "enableServiceLinks", true);
    let grace = "terminationGracePeriodSeconds";
    if spec.get(grace).and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        // A negative period has always meant the shortest one.
        spec.insert(grace.to_owned(), 1.into());
    }
    pod_level_resources(spec);
}

/// The old name of the field mirrors the new one; upstream does this when it converts.
fn service_account(spec: &mut Map<String, Value>) {
    let name = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")]
        .into_iter()
        .find(|name| !name.is_empty())
        .map(str::to_owned);
    if let Some(name) = name {
        spec.insert("serviceAccountName".to_owned(), name.clone().into());
        spec.insert("serviceAccount".to_owned(), name.into());
    }
}

fn containers<'a>(
    spec: &'a mut Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let items = spec.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn requests_from_limits(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = object(resources, "requests");
    for (resource, quantity) in limits {
        fill(requests, &resource, quantity);
    }
}

/// Requests of the pod as a whole: the containers' sum, else its own limits.
fn pod_level_resources(spec: &mut Map<String, Value>) {
    let limits = spec.get("resources").and_then(|resources| resources.get("limits"));
    let Some(limits) = limits.and_then(Value::as_object).cloned() else { return };
    let mut sums: Map<String, Value> = Map::new();
    for resource in ["cpu", "memory"] {
        let requests: Vec<Quantity> = containers(spec, "containers")
            .filter_map(|container| {
                container.get("resources")?.get("requests")?.get(resource)?.as_str()?.parse().ok()
            })
            .collect();
        if !requests.is_empty() {
            let sum: Quantity = requests.into_iter().sum();
            sums.insert(resource.to_owned(), sum.to_string().into());
        }
    }
    let requests = object(object(spec, "resources"), "requests");
    for (resource, quantity) in sums.into_iter().chain(limits) {
        fill(requests, &resource, quantity);
    }
}

/// Ports of the host's network are the host's ports.
fn host_ports(spec: &mut Map<String, Value>) {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    for list in ["containers", "initContainers"] {
        for container in containers(spec, list) {
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                if let Some(number) = port.get("containerPort").cloned() {
                    fill(port, "hostPort", number);
                }
            }
        }
    }
}

fn pull_policy_of_container(container: &mut Map<String, Value>) {
    let policy = pull_policy(text(container, "image"));
    fill(container, "imagePullPolicy", policy);
}

fn pull_policy_of_volume(source: &mut Map<String, Value>) {
    let policy = pull_policy(text(source, "reference"));
    fill(source, "pullPolicy", policy);
}

/// `Always` for the tag `latest` and for an image with neither tag nor digest.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) if !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|field| field == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
}
