//! What an object uses, under every name a quota may have for it.
//!
//! Upstream: `kubernetes/pkg/quota/v1/evaluator/core`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use meta::{GroupResource, Quantity, QuantityFormat};
use serde_json::Value;

/// Amounts by the names that quotas have for them.
pub type Usage = BTreeMap<String, Quantity>;

/// Kinds with a name of their own next to `count/…`.
pub(super) const COUNTED: [&str; 7] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];
/// What each container must name when a quota limits it.
const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// What a claim for all devices may get at most.
const ALL_DEVICES: i64 = 32;

/// What an object uses at this time.
#[must_use]
pub fn of(resource: &GroupResource, object: &Value, now: Timestamp) -> Usage {
    let mut usage = Usage::new();
    let name = resource.resource.as_str();
    usage.insert(format!("count/{resource}"), count(1));
    let is_gone = name == "pods" && is_finished(object, now);
    if resource.group.is_empty() && COUNTED.contains(&name) && !is_gone {
        usage.insert(name.to_owned(), count(1));
    }
    match (resource.group.as_str(), name) {
        ("", "pods") if !is_gone => of_pod(object, &mut usage),
        ("", "services") => of_service(object, &mut usage),
        ("", "persistentvolumeclaims") => of_claim(object, &mut usage),
        ("resource.k8s.io", "resourceclaims") => of_device_claim(object, &mut usage),
        _ => {}
    }
    usage
}

/// A quantity in an object; zero when it is none.
#[must_use]
pub fn quantity_of(value: &Value) -> Quantity {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn count(n: i64) -> Quantity {
    Quantity::new(n, QuantityFormat::DecimalSi)
}

/// A pod that has ended, or should have: one on a node that does not answer may stay for long.
fn is_finished(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let meta = &pod["metadata"];
    let since = meta["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let grace = meta["deletionGracePeriodSeconds"].as_i64().map(SignedDuration::from_secs);
    let end = since.zip(grace).and_then(|(since, grace)| since.checked_add(grace).ok());
    end.is_some_and(|end| now > end)
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn of_pod(pod: &Value, usage: &mut Usage) {
    usage.extend(under_their_names(&total(pod, "requests"), &total(pod, "limits")));
}

/// Amounts of a pod or container under the names that quotas have for them.
fn under_their_names(requests: &Usage, limits: &Usage) -> Usage {
    let mut usage = Usage::new();
    for (name, quantity) in requests {
        let is_native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        if is_native {
            usage.insert(name.clone(), *quantity);
        }
        if is_native || is_extended(name) {
            usage.insert(format!("requests.{name}"), *quantity);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(quantity) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *quantity);
        }
    }
    usage
}

pub(super) fn is_extended(name: &str) -> bool {
    let domain = name.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

fn amounts(resources: &Value, side: &str) -> Usage {
    let list = resources[side].as_object();
    list.into_iter().flatten().map(|(name, value)| (name.clone(), quantity_of(value))).collect()
}

fn add(sum: &mut Usage, more: &Usage) {
    for (name, quantity) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = *entry + *quantity;
    }
}

/// Containers run together; an init container runs alone but for the sidecars before it.
fn total(pod: &Value, side: &str) -> Usage {
    let spec = &pod["spec"];
    let mut running = Usage::new();
    for container in items(spec, "/containers") {
        add(&mut running, &amounts(&container["resources"], side));
    }
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for container in items(spec, "/initContainers") {
        let mut needed = amounts(&container["resources"], side);
        if container["restartPolicy"] == "Always" {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut peak, needed);
    }
    raise(&mut running, peak);
    running.extend(amounts(&spec["resources"], side));
    for (name, quantity) in amounts(spec, "overhead") {
        // Overhead counts against a limit only where there is one.
        if side == "requests" || running.contains_key(&name) {
            add(&mut running, &Usage::from([(name, quantity)]));
        }
    }
    running
}

fn raise(peak: &mut Usage, other: Usage) {
    for (name, quantity) in other {
        let entry = peak.entry(name).or_default();
        *entry = (*entry).max(quantity);
    }
}

/// What a pod's containers have to name and do not, for one of these resources; `None` is nothing.
///
/// A pod that has resources of its own need not.
#[must_use]
pub fn missing(pod: &Value, limited: &BTreeSet<&str>) -> Option<String> {
    if ["requests", "limits"].iter().any(|side| pod["spec"]["resources"][side].is_object()) {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in ["/spec/containers", "/spec/initContainers"] {
        for container in items(pod, list) {
            let side = |side| amounts(&container["resources"], side);
            let named = under_their_names(&side("requests"), &side("limits"));
            let absent = |name: &&&str| limited.contains(**name) && !named.contains_key(**name);
            for name in COMPUTE.iter().filter(absent) {
                let container = container["name"].as_str().unwrap_or_default();
                missing.entry(name).or_default().insert(container);
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let one = |(name, containers): (&&str, &BTreeSet<&str>)| {
        let containers: Vec<&str> = containers.iter().copied().collect();
        format!("{name} for: {}", containers.join(","))
    };
    let texts: Vec<String> = missing.iter().map(one).collect();
    Some(format!("must specify {}", texts.join("; ")))
}

fn of_service(service: &Value, usage: &mut Usage) {
    let ports = items(service, "/spec/ports");
    let number = |n: usize| count(i64::try_from(n).unwrap_or(i64::MAX));
    let (mut balancers, mut node_ports) = (0, 0);
    match service["spec"]["type"].as_str() {
        Some("NodePort") => node_ports = ports.len(),
        Some("LoadBalancer") => {
            balancers = 1;
            let asks_for_none = service["spec"]["allocateLoadBalancerNodePorts"] == false;
            let has_port = |port: &&Value| port["nodePort"].as_i64().is_some_and(|port| port != 0);
            node_ports =
                if asks_for_none { ports.iter().filter(has_port).count() } else { ports.len() };
        }
        _ => {}
    }
    usage.insert("services.loadbalancers".to_owned(), number(balancers));
    usage.insert("services.nodeports".to_owned(), number(node_ports));
}

fn of_claim(claim: &Value, usage: &mut Usage) {
    let asked = quantity_of(&claim["spec"]["resources"]["requests"]["storage"]);
    // What was granted counts until an expansion that failed is taken back.
    let granted = quantity_of(&claim["status"]["allocatedResources"]["storage"]);
    let storage = asked.max(granted);
    usage.insert("requests.storage".to_owned(), storage);
    let annotated = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = annotated.as_str().or_else(|| claim["spec"]["storageClassName"].as_str());
    if let Some(class) = class.filter(|class| !class.is_empty()) {
        let suffix = "storageclass.storage.k8s.io";
        usage.insert(format!("{class}.{suffix}/requests.storage"), storage);
        usage.insert(format!("{class}.{suffix}/persistentvolumeclaims"), count(1));
    }
}

/// Devices by class, in the worst case of what a request leaves open.
fn of_device_claim(claim: &Value, usage: &mut Usage) {
    let wanted = |request: &Value| match request["allocationMode"].as_str() {
        Some("All") => ALL_DEVICES,
        _ => request["count"].as_i64().unwrap_or(1),
    };
    let key = |request: &Value| {
        let class = request["deviceClassName"].as_str().unwrap_or_default();
        format!("{class}.deviceclass.resource.k8s.io/devices")
    };
    for request in items(claim, "/spec/devices/requests") {
        let mut worst = Usage::new();
        for choice in items(request, "/firstAvailable") {
            raise(&mut worst, Usage::from([(key(choice), count(wanted(choice)))]));
        }
        if let Some(exactly) = request.get("exactly").filter(|exactly| exactly.is_object()) {
            worst.insert(key(exactly), count(wanted(exactly)));
        }
        add(usage, &worst);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used(group: &str, resource: &str, object: Value) -> Vec<String> {
        let resource = GroupResource { group: group.to_owned(), resource: resource.to_owned() };
        of(&resource, &object, Timestamp::UNIX_EPOCH)
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect()
    }

    #[test]
    fn pods_use_what_they_may_need_at_once() {
        let requests = |cpu: &str| json!({"requests": {"cpu": cpu, "a.b/c": "1"}});
        let spec = json!({"containers": [{"resources": requests("1")}],
            "initContainers": [{"resources": requests("1"), "restartPolicy": "Always"},
                {"resources": requests("3")}],
            "overhead": {"cpu": "100m"}});
        assert_eq!(
            used("", "pods", json!({ "spec": spec })),
            ["count/pods=1", "cpu=4100m", "pods=1", "requests.a.b/c=2", "requests.cpu=4100m"]
        );
        let finished = json!({"spec": spec, "status": {"phase": "Failed"}});
        assert_eq!(used("", "pods", finished), ["count/pods=1"]);
        let gone = json!({"metadata": {"deletionTimestamp": "1969-12-31T23:59:00Z",
            "deletionGracePeriodSeconds": 30}, "spec": spec});
        assert_eq!(used("", "pods", gone), ["count/pods=1"]);
    }

    #[test]
    fn balancers_without_node_ports_use_those_they_name() {
        let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"nodePort": 30000}, {}]});
        assert_eq!(
            used("", "services", json!({ "spec": spec })),
            ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=1"]
        );
    }

    #[test]
    fn choices_of_devices_use_the_most_of_each_class() {
        let claim = json!({"spec": {"devices": {"requests": [
            {"firstAvailable": [{"deviceClassName": "a", "count": 2}, {"deviceClassName": "b"}]},
            {"exactly": {"deviceClassName": "a", "allocationMode": "All"}}]}}});
        assert_eq!(
            used("resource.k8s.io", "resourceclaims", claim),
            [
                "a.deviceclass.resource.k8s.io/devices=34",
                "b.deviceclass.resource.k8s.io/devices=1",
                "count/resourceclaims.resource.k8s.io=1"
            ]
        );
    }

    #[test]
    fn containers_name_what_is_limited() {
        let pod = json!({"spec": {
            "containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "c"}]}});
        let limited = BTreeSet::from(["limits.memory", "cpu", "pods"]);
        let expected = "must specify cpu for: b,c; limits.memory for: a,b,c";
        assert_eq!(missing(&pod, &limited).as_deref(), Some(expected));
        let mut own = pod;
        own["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
        assert_eq!(missing(&own, &limited), None);
    }
}
