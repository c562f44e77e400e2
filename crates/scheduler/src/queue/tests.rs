//! Which pod is tried when.

use clock::{Clock, ManualClock};

use super::*;
use crate::plugins::default_plugins;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    let pod = serde_json::json!({
        "metadata": { "name": name, "namespace": "n", "uid": name },
        "spec": { "containers": [], "priority": priority },
    });
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap()))
}

fn now() -> Instant {
    ManualClock::new(jiff::Timestamp::UNIX_EPOCH).monotonic()
}

fn pop(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.pop(now).map(|popped| popped.pod.uid.clone())
}

#[test]
fn higher_priority_comes_first_then_the_order_of_arrival() {
    let (mut queue, now) = (Queue::default(), now());
    for (name, priority) in [("a", 0), ("b", 0), ("c", 10)] {
        queue.add(pod(name, priority), false, now);
    }
    let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
    assert_eq!(order, ["c", "a", "b"]);
}

#[test]
fn a_rejected_pod_waits_for_an_event_that_may_help() {
    let (mut queue, now, plugins) = (Queue::default(), now(), default_plugins());
    queue.add(pod("a", 0), false, now);
    assert!(pop(&mut queue, now).is_some());
    queue.rejected("a", BTreeSet::from(["TaintToleration"]), now);
    assert!(!queue.happened(ClusterEvent::PodLeft, &plugins, now));
    assert_eq!(pop(&mut queue, now), None);
    assert!(queue.happened(ClusterEvent::NodeTaints, &plugins, now));
    assert_eq!(pop(&mut queue, now).as_deref(), Some("a"), "an idle scheduler tries it at once");
}

#[test]
fn an_error_backs_off_and_doubles() {
    let (mut queue, start, _) = (Queue::default(), now(), ());
    queue.add(pod("a", 0), false, start);
    assert!(pop(&mut queue, start).is_some());
    queue.failed("a", start);
    assert_eq!(pop(&mut queue, start), None);
    let later = start + Duration::from_secs(1);
    assert!(pop(&mut queue, later).is_some());
    queue.failed("a", later);
    assert_eq!(pop(&mut queue, later + Duration::from_secs(1)), None);
    assert!(pop(&mut queue, later + Duration::from_secs(2)).is_some());
}

#[test]
fn a_gated_pod_is_not_tried_until_the_gate_is_gone() {
    let (mut queue, now) = (Queue::default(), now());
    queue.add(pod("a", 0), true, now);
    assert_eq!(pop(&mut queue, now), None);
    queue.add(pod("a", 0), false, now);
    assert!(pop(&mut queue, now).is_some());
}

#[test]
fn what_no_event_frees_the_repair_does() {
    let (mut queue, now) = (Queue::default(), now());
    queue.add(pod("a", 0), false, now);
    assert!(pop(&mut queue, now).is_some());
    queue.rejected("a", BTreeSet::from(["NodeAffinity"]), now);
    assert_eq!(queue.next_due(), Some(now + UNSCHEDULABLE_MAX));
    assert!(pop(&mut queue, now + UNSCHEDULABLE_MAX).is_some());
}
