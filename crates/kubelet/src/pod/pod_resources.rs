//! What a whole pod asks for and may use: its own resources where it has them, and otherwise those
//! of its containers together.

use cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::qos::{self, PERIOD, Qos};
use crate::pod::spec::{init_containers, spec};

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Requests,
    Limits,
}

/// Whether the pod has resources of its own that count for the whole of it.
pub(crate) fn are_set(pod: &Pod) -> bool {
    spec(pod).resources.as_ref().is_some_and(|own| {
        let lists = [own.requests.as_ref(), own.limits.as_ref()];
        lists.into_iter().flatten().flatten().any(|(name, _)| is_for_pods(name))
    })
}

/// What a pod has for the whole of it.
pub(crate) fn own(pod: &Pod, of: Of, resource: &str) -> Option<i64> {
    let resources = spec(pod).resources.as_ref().filter(|_| is_for_pods(resource))?;
    let list = match of {
        Of::Requests => resources.requests.as_ref(),
        Of::Limits => resources.limits.as_ref(),
    };
    qos::amount(list, resource)
}

/// Upstream `resource.IsSupportedPodLevelResource`.
fn is_for_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// What the whole pod asks for, with its overhead.
pub(crate) fn request(pod: &Pod, resource: &str) -> i64 {
    let asked = own(pod, Of::Requests, resource)
        .unwrap_or_else(|| sum(pod, |c| qos::request(c, resource).unwrap_or(0)));
    asked + qos::amount(spec(pod).overhead.as_ref(), resource).unwrap_or(0)
}

/// The most that the whole pod may use, with its overhead; `None` when a container is not limited
/// and the pod is not either.
pub(crate) fn limit(pod: &Pod, resource: &str) -> Option<i64> {
    let all = || init_containers(pod).iter().chain(&spec(pod).containers);
    let limited = || all().all(|container| qos::limit(container, resource).is_some());
    let most = match own(pod, Of::Limits, resource) {
        Some(own) => own,
        None if limited() => sum(pod, |c| qos::limit(c, resource).unwrap_or(0)),
        None => return None,
    };
    Some(most + qos::amount(spec(pod).overhead.as_ref(), resource).unwrap_or(0))
}

/// What containers and sidecars have together, or an init container that has more beside the
/// sidecars before it.
fn sum(pod: &Pod, of: impl Fn(&Container) -> i64) -> i64 {
    let mut running: i64 = 0;
    let mut most: i64 = 0;
    for container in init_containers(pod) {
        let wanted = of(container);
        if api::pod::is_sidecar(container) {
            running += wanted;
            most = most.max(running);
        } else {
            most = most.max(running + wanted);
        }
    }
    let containers: i64 = spec(pod).containers.iter().map(of).sum();
    (running + containers).max(most)
}

/// The limits of the pod's cgroup: upstream `cm.ResourceConfigForPod`. Whatever is not limited is
/// said not to be, because it may have been.
pub(crate) fn cgroup_limits(pod: &Pod) -> LinuxContainerResources {
    let class = qos::qos(pod);
    let milli = if class == Qos::BestEffort { 0 } else { request(pod, "cpu") };
    let limit_of = |resource| limit(pod, resource).filter(|_| class != Qos::BestEffort);
    LinuxContainerResources {
        cpu_shares: qos::cpu_shares(milli),
        cpu_period: PERIOD,
        cpu_quota: limit_of("cpu").map_or(-1, qos::cpu_quota),
        memory_limit_in_bytes: limit_of("memory").unwrap_or(-1),
        ..LinuxContainerResources::default()
    }
}

/// Limits that allow what either of two allow: those of a pod while its containers change.
pub(crate) fn wider(
    one: &LinuxContainerResources,
    other: &LinuxContainerResources,
) -> LinuxContainerResources {
    let most = |a: i64, b: i64| if a < 0 || b < 0 { -1 } else { a.max(b) };
    LinuxContainerResources {
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_quota: most(one.cpu_quota, other.cpu_quota),
        memory_limit_in_bytes: most(one.memory_limit_in_bytes, other.memory_limit_in_bytes),
        ..other.clone()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceRequirements;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::pod::fixture;

    fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
        let list = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())));
            Some(pairs.collect())
        };
        ResourceRequirements {
            requests: list(requests),
            limits: list(limits),
            ..ResourceRequirements::default()
        }
    }

    fn with(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        Container { resources: Some(resources(requests, limits)), ..fixture::container("a") }
    }

    #[test]
    fn an_init_container_may_ask_for_more_than_the_rest() {
        let pod = fixture::pod(
            "Always",
            vec![with(&[("cpu", "2")], &[])],
            vec![with(&[("cpu", "500m")], &[]), with(&[("cpu", "1")], &[])],
        );
        assert_eq!(request(&pod, "cpu"), 2000);
    }

    #[test]
    fn a_pod_is_limited_when_all_of_its_containers_are() {
        let limited = with(&[("cpu", "100m")], &[("cpu", "500m"), ("memory", "64Mi")]);
        let both = fixture::pod("Always", vec![], vec![limited.clone(), limited.clone()]);
        let limits = cgroup_limits(&both);
        assert_eq!((limits.cpu_shares, limits.cpu_quota), (204, 100_000));
        assert_eq!(limits.memory_limit_in_bytes, 128 << 20);
        let one = fixture::pod("Always", vec![], vec![limited, with(&[], &[("cpu", "1")])]);
        let limits = cgroup_limits(&one);
        assert_eq!((limits.cpu_quota, limits.memory_limit_in_bytes), (150_000, -1));
        let none = fixture::pod("Always", vec![], vec![fixture::container("a")]);
        let limits = cgroup_limits(&none);
        assert_eq!((limits.cpu_shares, limits.cpu_quota), (2, -1));
        assert_eq!(limits.memory_limit_in_bytes, -1);
    }

    #[test]
    fn the_pods_own_resources_and_its_overhead_count() {
        let mut pod = fixture::pod("Always", vec![], vec![with(&[("cpu", "100m")], &[])]);
        let own = resources(&[("cpu", "1")], &[("cpu", "2"), ("memory", "1Gi")]);
        let spec = pod.spec.as_mut().unwrap();
        spec.resources = Some(own);
        spec.overhead = resources(&[("cpu", "500m"), ("memory", "1Mi")], &[]).requests;
        assert_eq!((request(&pod, "cpu"), request(&pod, "memory")), (1500, 1 << 20));
        let limits = cgroup_limits(&pod);
        assert_eq!((limits.cpu_shares, limits.cpu_quota), (1536, 250_000));
        assert_eq!(limits.memory_limit_in_bytes, (1 << 30) + (1 << 20));
    }

    #[test]
    fn while_containers_change_the_wider_limits_hold() {
        let limits = |quota, memory| LinuxContainerResources {
            cpu_quota: quota,
            memory_limit_in_bytes: memory,
            ..LinuxContainerResources::default()
        };
        let wide = wider(&limits(100, 7), &limits(50, 9));
        assert_eq!((wide.cpu_quota, wide.memory_limit_in_bytes), (100, 9));
        let wide = wider(&limits(-1, 7), &limits(50, -1));
        assert_eq!((wide.cpu_quota, wide.memory_limit_in_bytes), (-1, -1));
    }
}
