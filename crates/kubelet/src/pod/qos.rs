//! Quality of service, and the numbers that follow from requests and limits.

use std::collections::BTreeMap;

use cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::spec::{init_containers, spec};

/// How well a pod is treated when the node is short of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// The word in the pod's status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Upstream `qos.ComputePodQOS`: guaranteed when every container has limits of CPU and memory
/// that equal its requests, best effort when none has any of them.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let (mut any, mut all) = (false, true);
    for container in init_containers(pod).iter().chain(&spec(pod).containers) {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (request(container, resource), limit(container, resource));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && request == limit;
        }
    }
    match (any, all) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// A positive request, or the limit when there is none. CPU counts in thousandths.
pub(crate) fn request(container: &Container, resource: &str) -> Option<i64> {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    amount(requests, resource).or_else(|| limit(container, resource))
}

/// A positive limit. CPU counts in thousandths.
pub(crate) fn limit(container: &Container, resource: &str) -> Option<i64> {
    amount(container.resources.as_ref().and_then(|r| r.limits.as_ref()), resource)
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i64> {
    let quantity = parse(list?.get(resource)?);
    let amount = if resource == "cpu" { quantity.milli_value() } else { quantity.value() };
    (amount > 0).then_some(amount)
}

/// The API server admits no other than valid quantities.
pub(crate) fn parse(quantity: &Quantity) -> meta::Quantity {
    quantity.0.parse().unwrap_or_else(|_| meta::Quantity::from_milli(0))
}

/// What the whole pod asks for: the sum of its containers and sidecars, or an init container
/// that asks for more, and the overhead.
pub(crate) fn pod_request(pod: &Pod, resource: &str) -> i64 {
    let mut running: i64 = 0;
    let mut most: i64 = 0;
    for container in init_containers(pod) {
        let wanted = request(container, resource).unwrap_or(0);
        if api::pod::is_sidecar(container) {
            running += wanted;
            most = most.max(running);
        } else {
            most = most.max(running + wanted);
        }
    }
    let containers: i64 =
        spec(pod).containers.iter().map(|c| request(c, resource).unwrap_or(0)).sum();
    let overhead = amount(spec(pod).overhead.as_ref(), resource).unwrap_or(0);
    (running + containers).max(most) + overhead
}

/// Shares of a CPU that a request in thousandths is worth: upstream `cm.MilliCPUToShares`.
pub(crate) fn cpu_shares(milli: i64) -> i64 {
    if milli == 0 { 2 } else { (milli * 1024 / 1000).clamp(2, 262_144) }
}

/// CPU period in microseconds, and the least quota the kernel takes.
const PERIOD: i64 = 100_000;
const QUOTA_MIN: i64 = 1000;

/// What the runtime is told about a container.
pub(crate) fn linux_resources(
    pod: &Pod,
    container: &Container,
    node_memory: u64,
) -> LinuxContainerResources {
    let cpu_limit = limit(container, "cpu").unwrap_or(0);
    let mut resources = LinuxContainerResources {
        cpu_shares: cpu_shares(request(container, "cpu").unwrap_or(0)),
        memory_limit_in_bytes: limit(container, "memory").unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, node_memory),
        ..LinuxContainerResources::default()
    };
    if cpu_limit > 0 {
        resources.cpu_period = PERIOD;
        resources.cpu_quota = (cpu_limit * PERIOD / 1000).max(QUOTA_MIN);
    }
    resources
}

/// Upstream `qos.GetContainerOOMScoreAdjust`.
fn oom_score_adj(pod: &Pod, container: &Container, node_memory: u64) -> i64 {
    const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;
    if spec(pod).priority.unwrap_or(0) >= NODE_CRITICAL_PRIORITY {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let node = i64::try_from(node_memory).unwrap_or(i64::MAX).max(1);
            let wanted = request(container, "memory").unwrap_or(0);
            let score = 1000 - (i128::from(wanted) * 1000 / i128::from(node));
            i64::try_from(score).unwrap_or(3).clamp(3, 999)
        }
    }
}

/// The pod's cgroup below `root`.
pub(crate) fn pod_cgroup(root: &str, pod: &Pod) -> String {
    let class = match qos(pod) {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    let uid = crate::pod::spec::uid(pod);
    format!("{}/kubepods{class}/pod{uid}", root.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::fixture;

    fn with(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let list = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).into(), Quantity((*v).into())));
            Some(pairs.collect())
        };
        let resources = k8s_openapi::api::core::v1::ResourceRequirements {
            requests: list(requests),
            limits: list(limits),
            ..Default::default()
        };
        Container { resources: Some(resources), ..fixture::container("a") }
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let class = |container| qos(&fixture::pod("Always", vec![], vec![container]));
        assert_eq!(class(fixture::container("a")), Qos::BestEffort);
        assert_eq!(class(with(&[("cpu", "1")], &[])), Qos::Burstable);
        let both = [("cpu", "500m"), ("memory", "64Mi")];
        assert_eq!(class(with(&[], &both)), Qos::Guaranteed);
        assert_eq!(class(with(&[("cpu", "1m")], &both)), Qos::Burstable);
    }

    #[test]
    fn the_runtime_gets_shares_quota_and_score() {
        let container = with(&[("memory", "250Mi")], &[("cpu", "500m"), ("memory", "500Mi")]);
        let pod = fixture::pod("Always", vec![], vec![container.clone()]);
        let resources = linux_resources(&pod, &container, 1000 << 20);
        assert_eq!((resources.cpu_shares, resources.cpu_quota), (512, 50_000));
        assert_eq!(resources.memory_limit_in_bytes, 500 << 20);
        assert_eq!(resources.oom_score_adj, 750);
        assert_eq!(pod_cgroup("/", &pod), "/kubepods/burstable/podu");
    }

    #[test]
    fn an_init_container_may_ask_for_more_than_the_rest() {
        let pod = fixture::pod(
            "Always",
            vec![with(&[("cpu", "2")], &[])],
            vec![with(&[("cpu", "500m")], &[]), with(&[("cpu", "1")], &[])],
        );
        assert_eq!(pod_request(&pod, "cpu"), 2000);
    }
}
