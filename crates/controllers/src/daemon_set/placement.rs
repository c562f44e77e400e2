//! Which nodes a DaemonSet's pods belong on, and what the pod of a node looks like.

use api::taints::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY,
    PID_PRESSURE, UNREACHABLE, UNSCHEDULABLE,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use super::{HASH, TEMPLATE_GENERATION, template_generation};
use crate::pod_control::{Owner, from_template};
use crate::taint_eviction::tolerates;

/// Whether a node should get a pod, and whether it may keep one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) should_run: bool,
    pub(super) may_stay: bool,
}

/// Upstream `NodeShouldRunDaemonPod`.
pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let is_named =
        spec.node_name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
    if !is_named || !is_selected(&spec, node) {
        return Fit { should_run: false, may_stay: false };
    }
    let tolerations = tolerations(&spec);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let is_tolerated = |effects: &[&str]| {
        taints
            .iter()
            .filter(|taint| effects.contains(&taint.effect.as_str()))
            .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    };
    Fit {
        should_run: is_tolerated(&[NO_SCHEDULE, NO_EXECUTE]),
        may_stay: is_tolerated(&[NO_EXECUTE]),
    }
}

/// The pod for a node. The scheduler binds it: the affinity leaves it only this node.
pub(super) fn pod(set: &DaemonSet, owner: &Owner, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = from_template(owner, &template);
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = template_generation(set) {
        labels.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
    }
    labels.insert(HASH.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    // Terms are alternatives: those of the template were asked already and would let others in.
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    });
    pod
}

/// The template's tolerations and those that every daemon has.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let mut always = vec![
        (NOT_READY, NO_EXECUTE),
        (UNREACHABLE, NO_EXECUTE),
        (DISK_PRESSURE, NO_SCHEDULE),
        (MEMORY_PRESSURE, NO_SCHEDULE),
        (PID_PRESSURE, NO_SCHEDULE),
        (UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if spec.host_network == Some(true) {
        always.push((NETWORK_UNAVAILABLE, NO_SCHEDULE));
    }
    for (key, effect) in always {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let is_same = |present: &&mut Toleration| {
            let value = present.value.as_deref().unwrap_or_default();
            (&present.key, &present.operator, &present.effect, value)
                == (&wanted.key, &wanted.operator, &wanted.effect, "")
        };
        match all.iter_mut().find(is_same) {
            Some(present) => *present = wanted,
            None => all.push(wanted),
        }
    }
    all
}

fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let selector = spec.node_selector.iter().flatten();
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    selector.into_iter().all(|(key, value)| label(key) == Some(value.as_str()))
        && required.is_none_or(|selector| api::node_selector::takes(selector, name, label))
}
