//! What the downward API tells a container about its pod.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::pod::qos;
use crate::pod::spec;

/// What a field depends on beside the pod.
pub(crate) struct Surroundings<'a> {
    /// The pod's addresses, primary first.
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ip: &'a str,
    /// What a limit is when it is not given, in thousandths of a CPU and bytes.
    pub(crate) allocatable: &'a BTreeMap<&'static str, i64>,
}

/// A `fieldRef`; the error is the message of a container that cannot be configured.
pub(crate) fn field(pod: &Pod, path: &str, around: &Surroundings<'_>) -> Result<String, String> {
    let metadata = &pod.metadata;
    let (labels, annotations) = (metadata.labels.as_ref(), metadata.annotations.as_ref());
    let one_of = |map: Option<&BTreeMap<String, String>>, key: &str| {
        map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(one_of(labels, key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(one_of(annotations, key));
    }
    let text = match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => lines(labels),
        "metadata.annotations" => lines(annotations),
        "spec.nodeName" => api::pod::node_name(pod).to_owned(),
        "spec.serviceAccountName" => {
            spec::spec(pod).service_account_name.clone().unwrap_or_default()
        }
        "status.hostIP" | "status.hostIPs" => around.host_ip.to_owned(),
        "status.podIP" => around.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => around.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    };
    Ok(text)
}

fn subscript<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    path.strip_prefix(base)?.strip_prefix("['")?.strip_suffix("']")
}

/// `key="value"` lines in the order of keys, quoted as Go quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        write!(text, "{key}={}", quote(value)).ok();
    }
    text
}

fn quote(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() => {
                write!(text, "\\x{:02x}", u32::from(c)).ok();
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// A `resourceFieldRef` of `container`, or of the one it names.
pub(crate) fn resource(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    around: &Surroundings<'_>,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found = named.and_then(|name| spec::container(pod, name)).map(|(_, found)| found);
    let container = match (&found, named, container) {
        (Some(found), ..) => found,
        (None, None, Some(container)) => container,
        (None, name, _) => {
            return Err(format!("container {} not found", name.unwrap_or_default()));
        }
    };
    let (list, name) = selector.resource.split_once('.').unwrap_or(("", ""));
    let amount = match list {
        "limits" => qos::limit(container, name)
            .or_else(|| around.allocatable.get(name).copied())
            .unwrap_or(0),
        "requests" => qos::request(container, name).unwrap_or(0),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(qos::parse).filter(|q| !q.is_zero());
    let divisor = match (divisor, name) {
        (None, "cpu") => 1000,
        (None, _) => 1,
        (Some(quantity), "cpu") => quantity.milli_value(),
        (Some(quantity), _) => quantity.value(),
    };
    let divisor = divisor.max(1);
    Ok(((amount + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::pod::fixture;

    #[test]
    fn fields_of_the_pod_are_told() {
        let mut pod = fixture::pod("Always", vec![], vec![fixture::container("a")]);
        let labels = [("b", "x\"y"), ("a", "1\n2")].map(|(k, v)| (k.into(), v.into()));
        pod.metadata.labels = Some(labels.into());
        let allocatable = BTreeMap::new();
        let ips = ["10.0.0.9".to_owned()];
        let around = Surroundings { pod_ips: &ips, host_ip: "10.0.0.1", allocatable: &allocatable };
        let told = |path| field(&pod, path, &around);
        assert_eq!(told("metadata.labels").unwrap(), "a=\"1\\n2\"\nb=\"x\\\"y\"");
        assert_eq!(told("metadata.labels['b']").unwrap(), "x\"y");
        assert_eq!(told("status.podIP").unwrap(), "10.0.0.9");
        assert_eq!(told("status.hostIP").unwrap(), "10.0.0.1");
        assert!(told("spec.containers").is_err());
    }

    #[test]
    fn a_resource_is_rounded_up_and_falls_back_to_the_node() {
        let pod = fixture::pod("Always", vec![], vec![fixture::container("a")]);
        let allocatable = BTreeMap::from([("cpu", 1500), ("memory", 1000)]);
        let around = Surroundings { pod_ips: &[], host_ip: "", allocatable: &allocatable };
        let told = |resource_name: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                container_name: Some("a".into()),
                resource: resource_name.into(),
                divisor: divisor.map(|d| Quantity(d.into())),
            };
            resource(&pod, None, &selector, &around).unwrap()
        };
        assert_eq!(told("limits.cpu", None), "2");
        assert_eq!(told("limits.cpu", Some("1m")), "1500");
        assert_eq!(told("limits.memory", Some("1Ki")), "1");
        assert_eq!(told("requests.cpu", None), "0");
    }
}
