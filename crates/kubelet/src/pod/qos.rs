//! Quality of service, and the numbers that follow from requests and limits.

use std::collections::BTreeMap;

use cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::pod_resources::{self, Of};
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

/// Upstream `qos.ComputePodQOS`: guaranteed when every container, or the pod itself, has limits of
/// CPU and memory that equal its requests, best effort when none has any of them.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let (mut any, mut all) = (false, true);
    let mut count = |request: Option<i64>, limit: Option<i64>| {
        any |= request.is_some() || limit.is_some();
        all &= limit.is_some() && request == limit;
    };
    for resource in ["cpu", "memory"] {
        if pod_resources::are_set(pod) {
            let own = |of| pod_resources::own(pod, of, resource);
            let limit = own(Of::Limits);
            count(own(Of::Requests).or(limit), limit);
            continue;
        }
        for container in init_containers(pod).iter().chain(&spec(pod).containers) {
            count(request(container, resource), limit(container, resource));
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

pub(crate) fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i64> {
    let quantity = parse(list?.get(resource)?);
    let amount = if resource == "cpu" { quantity.milli_value() } else { quantity.value() };
    (amount > 0).then_some(amount)
}

/// The API server admits no other than valid quantities.
pub(crate) fn parse(quantity: &Quantity) -> meta::Quantity {
    quantity.0.parse().unwrap_or_else(|_| meta::Quantity::from_milli(0))
}

/// Shares of a CPU that a request in thousandths is worth: upstream `cm.MilliCPUToShares`.
pub(crate) fn cpu_shares(milli: i64) -> i64 {
    if milli == 0 { 2 } else { (milli * 1024 / 1000).clamp(2, 262_144) }
}

/// CPU period in microseconds, and the least quota the kernel takes.
pub(crate) const PERIOD: i64 = 100_000;
const QUOTA_MIN: i64 = 1000;

/// CPU time of a period for a limit in thousandths: upstream `cm.MilliCPUToQuota`.
pub(crate) fn cpu_quota(milli: i64) -> i64 {
    (milli * PERIOD / 1000).max(QUOTA_MIN)
}

/// What the runtime is told about a container. One without a limit of its own has the pod's.
pub(crate) fn linux_resources(
    pod: &Pod,
    container: &Container,
    node_memory: u64,
) -> LinuxContainerResources {
    let limit_of = |resource| {
        limit(container, resource).or_else(|| pod_resources::own(pod, Of::Limits, resource))
    };
    let cpu_limit = limit_of("cpu");
    let mut resources = LinuxContainerResources {
        cpu_shares: cpu_shares(request(container, "cpu").or(cpu_limit).unwrap_or(0)),
        memory_limit_in_bytes: limit_of("memory").unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, node_memory),
        ..LinuxContainerResources::default()
    };
    if let Some(cpu_limit) = cpu_limit {
        resources.cpu_period = PERIOD;
        resources.cpu_quota = cpu_quota(cpu_limit);
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
            let score_of = |container: &Container| {
                let own = request(container, "memory").unwrap_or(0);
                let wanted = own.saturating_add(share_of_rest(pod));
                let score = 1000 - (i128::from(wanted) * 1000 / i128::from(node));
                i64::try_from(score).unwrap_or(3)
            };
            let mut score = score_of(container);
            if init_containers(pod).iter().any(|c| c.name == container.name)
                && api::pod::is_sidecar(container)
            {
                // A sidecar goes no sooner than what it is beside.
                score = spec(pod).containers.iter().map(score_of).min().unwrap_or(score).min(score);
            }
            score.clamp(3, 999)
        }
    }
}

/// What each container has of the memory that the pod asks for and no container does.
fn share_of_rest(pod: &Pod) -> i64 {
    let Some(whole) = pod_resources::own(pod, Of::Requests, "memory") else { return 0 };
    let containers: Vec<&Container> = spec(pod).containers.iter().collect();
    let sidecars = init_containers(pod).iter().filter(|c| api::pod::is_sidecar(c));
    let all: Vec<&Container> = containers.into_iter().chain(sidecars).collect();
    let asked: i64 = all.iter().map(|c| request(c, "memory").unwrap_or(0)).sum();
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX).max(1);
    (whole - asked).max(0) / count
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
    fn what_the_whole_pod_has_decides_the_class_and_limits_its_containers() {
        let mut pod = fixture::pod("Always", vec![], vec![with(&[], &[]), with(&[], &[])]);
        let whole = with(&[("memory", "400Mi")], &[("cpu", "500m"), ("memory", "400Mi")]);
        pod.spec.as_mut().unwrap().resources = whole.resources;
        assert_eq!(qos(&pod), Qos::Guaranteed);
        let whole = with(&[("memory", "200Mi")], &[("cpu", "500m"), ("memory", "400Mi")]);
        pod.spec.as_mut().unwrap().resources = whole.resources;
        assert_eq!(qos(&pod), Qos::Burstable);
        let container = fixture::container("a");
        let resources = linux_resources(&pod, &container, 1000 << 20);
        assert_eq!((resources.cpu_shares, resources.cpu_quota), (512, 50_000));
        assert_eq!(resources.memory_limit_in_bytes, 400 << 20);
        assert_eq!(resources.oom_score_adj, 900, "half of what the pod asks for");
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
}
