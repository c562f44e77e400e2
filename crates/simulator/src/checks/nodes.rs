//! What must hold of pods and the nodes that do not want them.

use serde_json::Value;

use super::{Checks, IN_FLIGHT};
use crate::api::Commit;
use crate::nodes::text;

/// A taint of a node: node, key and effect.
pub(super) type Taint = (String, String, String);

impl Checks {
    /// Remembers since when a node has its taints, and until when it had others.
    pub(super) fn node(&mut self, commit: &Commit) {
        let name = &commit.key.2;
        let present: Vec<Taint> =
            commit.new.iter().flat_map(|new| taints(name, &new.value)).collect();
        let now = tokio::time::Instant::now();
        for (taint, (_, until)) in &mut self.taints {
            if taint.0 == *name && until.is_none() && !present.contains(taint) {
                *until = Some(now);
            }
        }
        for taint in present {
            let seen = self.taints.entry(taint).or_insert((now, None));
            if seen.1.is_some() {
                *seen = (now, None);
            }
        }
    }

    /// The scheduler puts a pod on a node.
    pub(super) fn placed(&mut self, pod: &Value) {
        let node = text(&pod["spec"]["nodeName"]);
        let refuses = self.taints.iter().find(|((of, key, effect), (since, until))| {
            of == node
                && until.is_none()
                && since.elapsed() > IN_FLIGHT
                && ["NoSchedule", "NoExecute"].contains(&effect.as_str())
                && tolerated(pod, key, effect).is_none()
        });
        if let Some(((_, key, _), _)) = refuses {
            let (name, key) = (&pod["metadata"]["name"], key.clone());
            self.violated(format!("pod {name} is put on {node}, which has the taint {key}"));
        }
    }

    /// A pod is taken from its node because of the node's taints.
    pub(super) fn driven_out(&mut self, pod: &Value) {
        let node = text(&pod["spec"]["nodeName"]);
        let jumped = self.skew.map(|(_, at)| at.elapsed());
        let is_due = self.taints.iter().any(|((of, key, effect), (since, until))| {
            of == node
                && effect == "NoExecute"
                && until.is_none_or(|until| until.elapsed() <= IN_FLIGHT)
                && match tolerated(pod, key, effect) {
                    None => true,
                    Some(None) => false,
                    // It is counted by a time of day.
                    Some(Some(wait)) => {
                        since.elapsed() + std::time::Duration::from_secs(1) >= wait
                            || jumped.is_some_and(|jumped| jumped <= wait + IN_FLIGHT)
                    }
                }
        });
        if !is_due {
            let name = &pod["metadata"]["name"];
            self.violated(format!("pod {name} is taken from {node}, which lets it stay"));
        }
    }
}

fn taints(node: &str, value: &Value) -> Vec<Taint> {
    let taints = value["spec"]["taints"].as_array();
    let taint = |taint: &Value| {
        (node.to_owned(), text(&taint["key"]).to_owned(), text(&taint["effect"]).to_owned())
    };
    taints.into_iter().flatten().map(taint).collect()
}

/// How long a pod tolerates a taint: not at all, for some time, or for ever.
pub(crate) fn tolerated(
    pod: &Value,
    key: &str,
    effect: &str,
) -> Option<Option<std::time::Duration>> {
    let all = pod["spec"]["tolerations"].as_array();
    let mut fitting = all.into_iter().flatten().filter(|one| {
        (text(&one["key"]) == key || (one["key"].is_null() && one["operator"] == "Exists"))
            && (one["effect"].is_null() || one["effect"] == *effect)
    });
    let first = fitting.next()?;
    let seconds = |one: &Value| one["tolerationSeconds"].as_i64();
    let least = [first].into_iter().chain(fitting).filter_map(seconds).min();
    Some(least.map(|least| std::time::Duration::from_secs(u64::try_from(least).unwrap_or(0))))
}
