//! Making room for critical pods: which others have to go. Upstream `pkg/kubelet/preemption`.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::admission::Lack;
use crate::pod::pod_resources;
use crate::pod::qos::{Qos, qos};
use crate::pod::spec;

/// The reason of a pod that has to go.
pub(crate) const PREEMPTING: &str = "Preempting";
/// And what it is told.
pub(crate) const MESSAGE: &str = "Preempted in order to admit critical pod";
/// What its condition says.
pub(crate) const CONDITION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// Pods of this priority are critical: upstream `SystemCriticalPriority`.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// A pod, and whether it is one of the node's own files, which are all critical.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) is_static: bool,
}

impl Candidate<'_> {
    pub(crate) fn is_critical(self) -> bool {
        self.is_static || self.priority() >= CRITICAL_PRIORITY
    }

    fn priority(self) -> i32 {
        spec::spec(self.pod).priority.unwrap_or(0)
    }

    fn gives_way_to(self, pod: Candidate<'_>) -> bool {
        pod.is_critical() && !self.is_critical() || pod.priority() > self.priority()
    }
}

/// The pods that have to go so that `pod` is no longer short of what it lacks: as few and as cheap
/// ones as can be. When not even all of them are enough, what is lacking still.
pub(crate) fn victims<'a>(
    pod: Candidate<'_>,
    lacks: &[Lack],
    others: &[Candidate<'a>],
) -> Result<Vec<&'a Pod>, Vec<Lack>> {
    let of = |class: Qos| -> Vec<&'a Pod> {
        let others = others.iter().filter(|other| other.gives_way_to(pod));
        others.map(|other| other.pod).filter(|other| qos(other) == class).collect()
    };
    let classes = [of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed)];
    let [best_effort, burstable, guaranteed] = &classes;
    let still = without(lacks, classes.iter().flatten().copied());
    if !still.is_empty() {
        return Err(still);
    }
    let cheaper = best_effort.iter().chain(burstable).copied();
    let dear = nearest(guaranteed, without(lacks, cheaper));
    let rest = best_effort.iter().chain(&dear).copied();
    let middle = nearest(burstable, without(lacks, rest));
    let gone = middle.iter().chain(&dear).copied();
    let cheap = nearest(best_effort, without(lacks, gone));
    Ok([cheap, middle, dear].concat())
}

/// What is lacking when these pods are gone.
fn without<'a>(lacks: &[Lack], pods: impl Iterator<Item = &'a Pod> + Clone) -> Vec<Lack> {
    let left = lacks.iter().map(|lack| {
        let freed: i64 = pods.clone().map(|pod| amount(pod, lack.name)).sum();
        Lack { amount: lack.amount.saturating_sub(freed), ..*lack }
    });
    left.filter(|lack| lack.amount > 0).collect()
}

/// Takes pods one after the other, always the one that comes nearest to what is lacking, and of
/// those the one that asks for the least.
fn nearest<'a>(pods: &[&'a Pod], mut lacks: Vec<Lack>) -> Vec<&'a Pod> {
    let (mut pods, mut taken) = (pods.to_vec(), Vec::new());
    while !lacks.is_empty() {
        let best = pods.iter().enumerate().min_by(|(_, a), (_, b)| {
            distance(a, &lacks).total_cmp(&distance(b, &lacks)).then_with(|| size(a).cmp(&size(b)))
        });
        let Some((at, _)) = best else { break };
        let pod = pods.swap_remove(at);
        lacks = without(&lacks, std::iter::once(pod));
        taken.push(pod);
    }
    taken
}

/// How far the pod is from giving all that is lacking: 0 when it does.
fn distance(pod: &Pod, lacks: &[Lack]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "what is near does not depend on the last bits")]
    let share = |lack: &Lack| {
        let left = lack.amount.saturating_sub(amount(pod, lack.name)).max(0);
        left as f64 / lack.amount as f64
    };
    lacks.iter().map(|lack| share(lack).powi(2)).sum()
}

fn size(pod: &Pod) -> (i64, i64) {
    (pod_resources::request(pod, "memory"), pod_resources::request(pod, "cpu"))
}

fn amount(pod: &Pod, resource: &str) -> i64 {
    if resource == "pods" { 1 } else { pod_resources::request(pod, resource) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceRequirements;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::pod::fixture;

    /// A pod that asks for so many thousandths of a CPU, and is guaranteed them or not.
    fn pod(milli: i64, guaranteed: bool) -> Pod {
        let mut container = fixture::container("a");
        let cpu = ("cpu".to_owned(), Quantity(format!("{milli}m")));
        let memory = ("memory".to_owned(), Quantity("1Mi".to_owned()));
        let list: std::collections::BTreeMap<_, _> = [cpu, memory].into();
        container.resources = (milli > 0).then(|| ResourceRequirements {
            requests: Some(list.clone()),
            limits: guaranteed.then_some(list),
            ..ResourceRequirements::default()
        });
        fixture::pod("Always", vec![], vec![container])
    }

    fn lack(name: &'static str, amount: i64) -> Lack {
        Lack { name, amount, requested: 0, used: 0, capacity: 0 }
    }

    fn chosen(lacks: &[Lack], others: &[Pod]) -> Result<Vec<i64>, Vec<Lack>> {
        let critical = pod(0, false);
        let candidates: Vec<_> =
            others.iter().map(|pod| Candidate { pod, is_static: false }).collect();
        let victims = victims(Candidate { pod: &critical, is_static: true }, lacks, &candidates)?;
        Ok(victims.into_iter().map(|pod| pod_resources::request(pod, "cpu")).collect())
    }

    #[test]
    fn as_few_and_as_cheap_pods_go_as_can() {
        let others = [pod(100, false), pod(300, false), pod(400, false), pod(500, true)];
        assert_eq!(chosen(&[lack("cpu", 250)], &others).unwrap(), [300]);
        assert_eq!(chosen(&[lack("cpu", 700)], &others).unwrap(), [400, 300]);
        assert_eq!(
            chosen(&[lack("cpu", 900)], &others).unwrap(),
            [400, 500],
            "guaranteed ones only when the others are not enough"
        );
        let idle = [pod(0, false), pod(100, false)];
        assert_eq!(chosen(&[lack("pods", 1)], &idle).unwrap(), [0]);
    }

    #[test]
    fn nobody_goes_when_it_would_not_help() {
        assert_eq!(
            chosen(&[lack("cpu", 500), lack("pods", 1)], &[pod(100, false)]).unwrap_err(),
            [lack("cpu", 400)]
        );
    }

    #[test]
    fn critical_pods_give_way_only_to_higher_priorities() {
        let with = |priority: i32| {
            let mut pod = pod(100, false);
            pod.spec.as_mut().unwrap().priority = Some(priority);
            pod
        };
        let (high, higher, low) = (with(CRITICAL_PRIORITY), with(CRITICAL_PRIORITY + 1), with(1));
        let of = |pod| Candidate { pod, is_static: false };
        assert!(of(&high).gives_way_to(of(&higher)));
        assert!(!of(&higher).gives_way_to(of(&high)));
        assert!(of(&low).gives_way_to(Candidate { pod: &low, is_static: true }));
        assert!(!Candidate { pod: &low, is_static: true }.gives_way_to(of(&low)));
    }
}
