//! The pure core: from a volume, the pods that need it and the attachments there are, what becomes
//! of the attachments.
//!
//! Upstream: `pkg/controller/volume/attachdetach/reconciler/reconciler.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::pod_view::PodView;

/// How long a node that is not ready may hold a volume: upstream `maxWaitForUnmountDuration`.
const HOLD_MAX: SignedDuration = SignedDuration::from_mins(6);
/// How long a driver has for an attachment before that is told: upstream `csiTimeout`.
pub(super) const ATTACH_MAX: SignedDuration = SignedDuration::from_mins(2);

/// Pods that need the volume, by their node.
pub(super) type Wanted = BTreeMap<String, Vec<Arc<PodView>>>;

/// One attachment of the volume.
pub(super) struct Attachment {
    pub(super) node: NodeFacts,
    pub(super) is_attached: bool,
    pub(super) is_deleted: bool,
    pub(super) created: Timestamp,
    /// Since when nobody needs it, if that is known already.
    pub(super) unneeded: Option<Timestamp>,
}

/// What counts of the node of an attachment.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFacts {
    pub(super) name: String,
    pub(super) is_ready: bool,
    pub(super) is_out_of_service: bool,
    /// The node says that it uses the volume, or nobody knows.
    pub(super) is_in_use: bool,
    /// The node may read in its status that the volume is attached.
    pub(super) is_reported: bool,
}

/// What to do about one node.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The volume is attached there, or will be: nothing is to be detached.
    Keep,
    /// Attach it.
    Attach,
    /// It should be attached again, but is being detached.
    Going,
    /// Another node has it; why, in the words of the event.
    Refused(String),
    /// The driver takes too long.
    Overdue,
    /// The attachment is on its way, and looked at again then.
    Pending(SignedDuration),
    /// Nobody needs it, but the node uses it; when it is looked at again.
    Hold(Option<SignedDuration>),
    /// The node has to be told first that it is not attached any more.
    Withdraw,
    /// Detach it, and why although the node uses it.
    Detach(Option<&'static str>),
}

/// What to do, by node. An exclusive volume is attached to one node at a time; of several that
/// want it the one with the oldest pod has it.
pub(super) fn decide(
    is_exclusive: bool,
    wanted: &Wanted,
    attachments: &[Attachment],
    may_force: bool,
    now: Timestamp,
) -> Vec<(String, Step)> {
    let mut steps = Vec::new();
    let mut taken = !attachments.is_empty();
    for attachment in attachments {
        let name = &attachment.node.name;
        let step = match (wanted.contains_key(name), attachment.is_deleted) {
            (true, true) => Step::Going,
            (true, false) => awaited(attachment, now),
            (false, true) => Step::Hold(None),
            (false, false) => release(attachment, may_force, now),
        };
        steps.push((name.clone(), step));
    }
    let is_new = |name: &&String| attachments.iter().all(|one| one.node.name != **name);
    let mut nodes: Vec<_> = wanted.keys().filter(is_new).collect();
    nodes.sort_by_key(|name| (wanted[*name].iter().map(|pod| pod.created).min(), *name));
    for name in nodes {
        let step = if is_exclusive && taken {
            Step::Refused(refused(&wanted[name], wanted, name))
        } else {
            Step::Attach
        };
        taken = true;
        steps.push((name.clone(), step));
    }
    steps
}

fn awaited(attachment: &Attachment, now: Timestamp) -> Step {
    let age = now.duration_since(attachment.created);
    match attachment.is_attached {
        true => Step::Keep,
        false if age >= ATTACH_MAX => Step::Overdue,
        false => Step::Pending(ATTACH_MAX - age),
    }
}

fn release(attachment: &Attachment, may_force: bool, now: Timestamp) -> Step {
    let node = &attachment.node;
    let since = attachment.unneeded.map_or(SignedDuration::ZERO, |at| now.duration_since(at));
    let forced = if !node.is_in_use {
        None
    } else if node.is_out_of_service {
        Some("out-of-service")
    } else if !node.is_ready && may_force && since >= HOLD_MAX {
        Some("timeout")
    } else {
        let wait = !node.is_ready && may_force;
        return Step::Hold(wait.then(|| HOLD_MAX - since));
    };
    if node.is_reported { Step::Withdraw } else { Step::Detach(forced) }
}

/// Upstream `reportMultiAttachError`.
fn refused(pods: &[Arc<PodView>], wanted: &Wanted, node: &str) -> String {
    let namespace = pods.first().map(|pod| pod.key.namespace.as_str()).unwrap_or_default();
    let others = wanted.iter().filter(|(name, _)| *name != node).flat_map(|(_, pods)| pods);
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        others.partition(|pod| pod.key.namespace == namespace);
    let names: Vec<_> = here.iter().map(|pod| pod.key.name.as_str()).collect();
    let names = names.join(", ");
    match (here.is_empty(), elsewhere.len()) {
        (true, 0) => "Volume is already exclusively attached to one node and can't be attached to \
                      another"
            .to_owned(),
        (true, count) => {
            format!("Volume is already used by {count} pod(s) in different namespaces")
        }
        (false, 0) => format!("Volume is already used by pod(s) {names}"),
        (false, count) => format!(
            "Volume is already used by pod(s) {names} and {count} pod(s) in different namespaces"
        ),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn at(minutes_ago: i64) -> Timestamp {
        NOW.parse::<Timestamp>().unwrap() - SignedDuration::from_mins(minutes_ago)
    }

    fn pod(namespace: &str, name: &str, age: i64) -> Arc<PodView> {
        let created = meta::time::rfc3339(at(age));
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": name, "creationTimestamp": created } }))
        .unwrap();
        Arc::new(PodView::new(pod))
    }

    fn wanted(pods: &[(&str, &str, &str, i64)]) -> Wanted {
        let mut wanted = Wanted::new();
        for (node, namespace, name, age) in pods {
            wanted.entry((*node).to_owned()).or_default().push(pod(namespace, name, *age));
        }
        wanted
    }

    /// Attached to `a` an hour ago, without need for so many minutes.
    fn attached(change: impl FnOnce(&mut Attachment)) -> Attachment {
        let mut attachment = Attachment {
            node: NodeFacts { name: "a".to_owned(), is_ready: true, ..NodeFacts::default() },
            is_attached: true,
            is_deleted: false,
            created: at(60),
            unneeded: None,
        };
        change(&mut attachment);
        attachment
    }

    fn one(wanted: &Wanted, attachment: Attachment) -> Step {
        let steps = decide(true, wanted, &[attachment], true, at(0));
        steps.into_iter().next().unwrap().1
    }

    #[test]
    fn a_volume_is_attached_where_its_pods_are() {
        let here = wanted(&[("a", "n", "p", 1)]);
        let both = wanted(&[("a", "n", "p", 1), ("b", "n", "q", 2)]);
        let steps = |is_exclusive, wanted: &Wanted| decide(is_exclusive, wanted, &[], true, at(0));
        assert_eq!(steps(true, &here), [("a".to_owned(), Step::Attach)]);
        let shared = [("b".to_owned(), Step::Attach), ("a".to_owned(), Step::Attach)];
        assert_eq!(steps(false, &both), shared);
        let refused = Step::Refused("Volume is already used by pod(s) q".to_owned());
        assert_eq!(steps(true, &both), [("b".to_owned(), Step::Attach), ("a".to_owned(), refused)]);
    }

    #[test]
    fn an_attachment_that_is_needed_stays() {
        let here = wanted(&[("a", "n", "p", 1)]);
        assert_eq!(one(&here, attached(|_| ())), Step::Keep);
        let slow = |minutes| {
            one(
                &here,
                attached(|one| {
                    one.is_attached = false;
                    one.created = at(minutes);
                }),
            )
        };
        assert_eq!(slow(1), Step::Pending(SignedDuration::from_mins(1)));
        assert_eq!(slow(2), Step::Overdue);
        let going = one(&here, attached(|one| one.is_deleted = true));
        assert_eq!(going, Step::Going);
    }

    #[test]
    fn an_exclusive_volume_is_not_attached_twice() {
        let told = |pods: &[(&str, &str, &str, i64)]| {
            let steps = decide(true, &wanted(pods), &[attached(|_| ())], true, at(0));
            match &steps[1] {
                (_, Step::Refused(text)) => text.clone(),
                other => panic!("{other:?}"),
            }
        };
        let b = ("b", "n", "q", 1);
        assert_eq!(
            told(&[b]),
            "Volume is already exclusively attached to one node and can't be attached to another"
        );
        assert_eq!(told(&[b, ("a", "n", "p", 1)]), "Volume is already used by pod(s) p");
        assert_eq!(
            told(&[b, ("a", "m", "p", 1)]),
            "Volume is already used by 1 pod(s) in different namespaces"
        );
        assert_eq!(
            told(&[b, ("a", "n", "p", 1), ("a", "m", "p", 1)]),
            "Volume is already used by pod(s) p and 1 pod(s) in different namespaces"
        );
    }

    #[test]
    fn a_volume_is_detached_when_its_node_has_let_go() {
        let none = Wanted::new();
        let step = |change: fn(&mut NodeFacts)| one(&none, attached(|one| change(&mut one.node)));
        assert_eq!(step(|_| ()), Step::Detach(None));
        assert_eq!(step(|node| node.is_reported = true), Step::Withdraw);
        assert_eq!(step(|node| node.is_in_use = true), Step::Hold(None));
        let hour = |change: fn(&mut NodeFacts)| {
            let change = |one: &mut Attachment| {
                one.node.is_in_use = true;
                one.unneeded = Some(at(60));
                change(&mut one.node);
            };
            one(&none, attached(change))
        };
        assert_eq!(hour(|_| ()), Step::Hold(None), "a node that is ready is waited for");
        assert_eq!(one(&none, attached(|one| one.is_deleted = true)), Step::Hold(None));
    }

    #[test]
    fn a_dead_node_holds_a_volume_for_six_minutes() {
        let none = Wanted::new();
        let dead = |minutes| {
            attached(|one| {
                one.node.is_in_use = true;
                one.node.is_ready = false;
                one.unneeded = Some(at(minutes));
            })
        };
        assert_eq!(one(&none, dead(1)), Step::Hold(Some(SignedDuration::from_mins(5))));
        assert_eq!(one(&none, dead(6)), Step::Detach(Some("timeout")));
        let unforced = decide(true, &none, &[dead(60)], false, at(0));
        assert_eq!(unforced[0].1, Step::Hold(None));
        let mut out = dead(0);
        out.node.is_out_of_service = true;
        assert_eq!(one(&none, out), Step::Detach(Some("out-of-service")));
    }
}
