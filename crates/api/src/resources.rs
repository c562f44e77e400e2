//! What a pod asks for, summed over its containers: upstream `component-helpers/resource`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use meta::Quantity;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Requests that a scheduler's scores assume for a container that names none: upstream
/// `DefaultMilliCPURequest` and `DefaultMemoryRequest`.
pub const DEFAULT_REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "209715200")];

/// Reads the amounts of a spec. What is not a quantity is left out: the server admits none.
pub fn parse(list: Option<&BTreeMap<String, WireQuantity>>) -> ResourceList {
    list.into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?)))
        .collect()
}

/// What the pod asks for.
pub fn pod_requests(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let granted = granted_requests(pod);
    total(spec, |container| {
        let mut requests = requests_of(container.resources.as_ref());
        if let Some(granted) = granted.get(container.name.as_str()) {
            raise(&mut requests, granted);
        }
        requests
    })
}

/// What the pod asks for, where containers that name no request count as asking for `defaults`.
pub fn pod_requests_with_defaults(pod: &Pod, defaults: &ResourceList) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    total(spec, |container| {
        let mut requests = requests_of(container.resources.as_ref());
        for (name, amount) in defaults {
            requests.entry(name.clone()).or_insert(*amount);
        }
        requests
    })
}

/// The most the pod may use, of the resources for which it has limits.
pub fn pod_limits(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let limits_of = |resources: Option<&ResourceRequirements>| {
        parse(resources.and_then(|resources| resources.limits.as_ref()))
    };
    let mut sum = sum_containers(spec, |container| limits_of(container.resources.as_ref()));
    override_with(&mut sum, limits_of(spec.resources.as_ref()));
    for (name, amount) in parse(spec.overhead.as_ref()) {
        // Overhead counts against a limit only where there is one.
        if let Some(limit) = sum.get_mut(&name) {
            *limit = *limit + amount;
        }
    }
    sum
}

fn requests_of(resources: Option<&ResourceRequirements>) -> ResourceList {
    parse(resources.and_then(|resources| resources.requests.as_ref()))
}

/// What the node has granted to containers, which during a resize may be more than the spec asks.
fn granted_requests(pod: &Pod) -> BTreeMap<&str, ResourceList> {
    let Some(status) = &pod.status else { return BTreeMap::new() };
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    all.map(|container| {
        let mut granted = parse(container.allocated_resources.as_ref());
        raise(&mut granted, &requests_of(container.resources.as_ref()));
        (container.name.as_str(), granted)
    })
    .collect()
}

fn total(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut sum = sum_containers(spec, of);
    override_with(&mut sum, requests_of(spec.resources.as_ref()));
    add(&mut sum, &parse(spec.overhead.as_ref()));
    sum
}

/// Containers run together; an init container runs alone but for the sidecars started before it.
fn sum_containers(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut running = ResourceList::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    let (mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if crate::pod::is_sidecar(container) {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut peak, &needed);
    }
    raise(&mut running, &peak);
    running
}

/// Pod-level amounts replace the sum of the containers'.
fn override_with(sum: &mut ResourceList, pod_level: ResourceList) {
    sum.extend(pod_level);
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = *entry + *amount;
    }
}

fn raise(peak: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        let entry = peak.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(spec: serde_json::Value) -> String {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap();
        pod_requests(&pod).get("cpu").copied().unwrap_or_default().to_string()
    }

    fn container(cpu: &str) -> serde_json::Value {
        serde_json::json!({ "name": cpu, "resources": { "requests": { "cpu": cpu } } })
    }

    fn sidecar(cpu: &str) -> serde_json::Value {
        let mut sidecar = container(cpu);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let containers = [container("100m"), container("200m")];
        assert_eq!(cpu(serde_json::json!({ "containers": containers })), "300m");
        let init = [container("500m"), container("50m")];
        assert_eq!(
            cpu(serde_json::json!({ "containers": containers, "initContainers": init })),
            "500m"
        );
        let init = [sidecar("100m"), container("500m")];
        assert_eq!(
            cpu(serde_json::json!({ "containers": containers, "initContainers": init })),
            "600m"
        );
    }

    #[test]
    fn overhead_is_added_and_pod_level_requests_replace() {
        let spec = serde_json::json!({
            "containers": [container("100m")],
            "resources": { "requests": { "cpu": "1" } },
            "overhead": { "cpu": "10m" },
        });
        assert_eq!(cpu(spec), "1010m");
    }
}
