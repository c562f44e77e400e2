//! What must hold when all is well and everybody has had time.

mod administered;

use std::collections::BTreeSet;

use meta::LabelSelector;
use serde_json::Value;

use self::administered::administered;
use crate::api::Api;
use crate::checks::{finished_at, is_active, target, tolerated};
use crate::nodes::{is_ready, text};
use crate::storage::{DEFAULT_CLASS, claims_of};
use crate::user::{NAMESPACES, TAINT};

/// What does not hold yet.
pub(crate) fn problems(api: &Api) -> Vec<String> {
    let mut found = Vec::new();
    let uids: BTreeSet<&str> =
        api.everything().map(|(_, object)| text(&object["metadata"]["uid"])).collect();
    for ((collection, namespace, name), object) in api.everything() {
        let meta = &object["metadata"];
        if !meta["deletionTimestamp"].is_null() {
            found.push(format!("{collection} {namespace}/{name} is still being deleted"));
        }
        let owners = meta["ownerReferences"].as_array();
        let known = |owner: &Value| uids.contains(text(&owner["uid"]));
        if owners.is_some_and(|owners| !owners.is_empty() && !owners.iter().any(known)) {
            found.push(format!("{collection} {namespace}/{name} is an orphan"));
        }
        let wrong = match collection.as_str() {
            "apps/deployments" => deployment(object),
            "apps/replicasets" | "/replicationcontrollers" => replicas(api, object),
            "apps/statefulsets" => stateful_set(api, object),
            "apps/daemonsets" => daemon_set(api, object),
            "batch/jobs" => job(api, object),
            "/services" => service(api, object),
            "policy/poddisruptionbudgets" => budget(api, object),
            "/resourcequotas" => quota(api, object),
            "/pods" => pod(api, object),
            "/nodes" => node(object),
            "/persistentvolumeclaims" => claim(api, object),
            "/persistentvolumes" => volume(api, object),
            "autoscaling/horizontalpodautoscalers" => autoscaler(api, object),
            _ => administered(api, collection, object),
        };
        if let Some(wrong) = wrong {
            found.push(format!("{collection} {namespace}/{name}: {wrong}"));
        }
    }
    for namespace in NAMESPACES {
        for (collection, name) in
            [("/serviceaccounts", "default"), ("/configmaps", "kube-root-ca.crt")]
        {
            let exists = api.get("/namespaces", "", namespace).is_some();
            if exists && api.get(collection, namespace, name).is_none() {
                found.push(format!("namespace {namespace} has no {name}"));
            }
        }
    }
    found
}

fn deployment(object: &Value) -> Option<String> {
    let wanted = number(&object["spec"]["replicas"], 1);
    expect(
        object,
        &[
            ("replicas", wanted),
            ("updatedReplicas", wanted),
            ("readyReplicas", wanted),
            ("availableReplicas", wanted),
            ("unavailableReplicas", 0),
        ],
    )
}

fn replicas(api: &Api, object: &Value) -> Option<String> {
    let wanted = number(&object["spec"]["replicas"], 1);
    let pods = count(api.all("/pods").filter(|pod| is_of(object, pod) && is_active(pod)));
    if pods != wanted {
        return Some(format!("{pods} pods instead of {wanted}"));
    }
    expect(
        object,
        &[
            ("replicas", wanted),
            ("readyReplicas", wanted),
            ("availableReplicas", wanted),
            ("fullyLabeledReplicas", wanted),
        ],
    )
}

fn stateful_set(api: &Api, object: &Value) -> Option<String> {
    let wanted = number(&object["spec"]["replicas"], 1);
    let name = text(&object["metadata"]["name"]);
    let names: BTreeSet<String> = (0..wanted).map(|ordinal| format!("{name}-{ordinal}")).collect();
    let update = &object["status"]["updateRevision"];
    let mut present = BTreeSet::new();
    for pod in api.all("/pods").filter(|pod| is_of(object, pod)) {
        let labels = &pod["metadata"]["labels"];
        if labels["controller-revision-hash"] != *update {
            return Some(format!("{} is of another revision", pod["metadata"]["name"]));
        }
        present.insert(text(&pod["metadata"]["name"]).to_owned());
    }
    if present != names {
        return Some(format!("the pods are {present:?}"));
    }
    if object["status"]["currentRevision"] != *update {
        return Some("the update is not complete".to_owned());
    }
    expect(
        object,
        &[
            ("replicas", wanted),
            ("readyReplicas", wanted),
            ("availableReplicas", wanted),
            ("currentReplicas", wanted),
            ("updatedReplicas", wanted),
        ],
    )
}

fn daemon_set(api: &Api, object: &Value) -> Option<String> {
    let template = &object["spec"]["template"];
    let wants = |node: &&Value| unwanted(node, template, &["NoSchedule", "NoExecute"]).is_none();
    let nodes: BTreeSet<&str> =
        api.all("/nodes").filter(wants).map(|node| text(&node["metadata"]["name"])).collect();
    let pods: Vec<String> =
        api.all("/pods").filter(|pod| is_of(object, pod) && is_active(pod)).map(target).collect();
    // Where one is already it may stay, if the node does not drive it out.
    let may_stay = |name: &str| {
        let node = api.get("/nodes", "", name);
        node.is_some_and(|node| unwanted(node, template, &["NoExecute"]).is_none())
    };
    let strayed = pods.iter().map(String::as_str).filter(|name| !nodes.contains(name));
    let strayed: BTreeSet<&str> = strayed.collect();
    if pods.len() != nodes.len() + strayed.len()
        || !nodes.iter().all(|node| pods.iter().any(|pod| pod == node))
        || !strayed.iter().all(|name| may_stay(name))
    {
        return Some(format!("the pods are on {pods:?}"));
    }
    let wanted = count(nodes.iter());
    expect(
        object,
        &[
            ("desiredNumberScheduled", wanted),
            ("currentNumberScheduled", wanted),
            ("updatedNumberScheduled", wanted),
            ("numberReady", wanted),
            ("numberAvailable", wanted),
            ("numberMisscheduled", count(strayed.iter())),
            ("numberUnavailable", 0),
        ],
    )
}

fn job(api: &Api, object: &Value) -> Option<String> {
    let status = &object["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let has = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
    if finished_at(object).is_some() && object["spec"]["ttlSecondsAfterFinished"].is_i64() {
        return Some("should be deleted after its time".to_owned());
    }
    if object["spec"]["suspend"] == true || object["spec"]["parallelism"] == 0 {
        return None;
    }
    if !has("Complete") && !has("Failed") {
        return Some(format!("is not finished: {status}"));
    }
    if status["uncountedTerminatedPods"].as_object().is_some_and(|lists| {
        lists.values().any(|list| list.as_array().is_some_and(|list| !list.is_empty()))
    }) {
        return Some("has pods that are not counted".to_owned());
    }
    let counted = number(&status["succeeded"], 0);
    let completions = number(&object["spec"]["completions"], 1);
    if has("Complete") && counted < completions {
        return Some(format!("is complete with {counted} of {completions}"));
    }
    let truth = api.checks.succeeded(text(&object["metadata"]["uid"]));
    if has("Complete") && counted > i64::try_from(truth).unwrap_or(i64::MAX) {
        return Some(format!("counts {counted} pods that succeeded; there were {truth}"));
    }
    if number(&status["active"], 0) != 0 {
        return Some("has active pods though it is finished".to_owned());
    }
    None
}

fn service(api: &Api, object: &Value) -> Option<String> {
    let (name, namespace) = (&object["metadata"]["name"], &object["metadata"]["namespace"]);
    let labels: Vec<(String, String)> = object["spec"]["selector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value).to_owned()))
        .collect();
    if labels.is_empty() {
        return administered::plain(api, object);
    }
    let selector = LabelSelector::from_labels(labels);
    let wanted: BTreeSet<&str> = api
        .all("/pods")
        .filter(|pod| {
            pod["metadata"]["namespace"] == *namespace
                && selector.matches_value(&pod["metadata"]["labels"])
                && is_active(pod)
                && is_ready(pod)
        })
        .map(|pod| text(&pod["status"]["podIP"]))
        .collect();
    let slices = api.all("discovery.k8s.io/endpointslices").filter(|slice| {
        let meta = &slice["metadata"];
        meta["namespace"] == *namespace && meta["labels"]["kubernetes.io/service-name"] == *name
    });
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    let addresses: Vec<&str> = ready.map(|endpoint| text(&endpoint["addresses"][0])).collect();
    let present: BTreeSet<&str> = addresses.iter().copied().collect();
    if present != wanted || present.len() != addresses.len() {
        return Some(format!("slices have {addresses:?} instead of {wanted:?}"));
    }
    let of = api.get("/endpoints", text(namespace), text(name));
    let subsets = of.and_then(|of| of["subsets"].as_array()).into_iter().flatten();
    let addresses = subsets.flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
    let present: BTreeSet<&str> = addresses.map(|address| text(&address["ip"])).collect();
    (present != wanted).then(|| format!("endpoints have {present:?} instead of {wanted:?}"))
}

fn budget(api: &Api, object: &Value) -> Option<String> {
    let namespace = &object["metadata"]["namespace"];
    let Ok(selector) = LabelSelector::from_object(object["spec"].get("selector")) else {
        return None;
    };
    let healthy = count(api.all("/pods").filter(|pod| {
        pod["metadata"]["namespace"] == *namespace
            && selector.matches_value(&pod["metadata"]["labels"])
            && is_active(pod)
            && is_ready(pod)
    }));
    if object["status"]["disruptedPods"].as_object().is_some_and(|pods| !pods.is_empty()) {
        return Some(format!("waits for {}", object["status"]["disruptedPods"]));
    }
    let least = number(&object["spec"]["minAvailable"], 0);
    expect(
        object,
        &[
            ("currentHealthy", healthy),
            ("desiredHealthy", least),
            ("disruptionsAllowed", (healthy - least).max(0)),
        ],
    )
}

fn quota(api: &Api, object: &Value) -> Option<String> {
    let namespace = &object["metadata"]["namespace"];
    let pods = api.all("/pods").filter(|pod| {
        let phase = text(&pod["status"]["phase"]);
        pod["metadata"]["namespace"] == *namespace && !["Succeeded", "Failed"].contains(&phase)
    });
    let (used, pods) = (&object["status"]["used"]["pods"], pods.count().to_string());
    (*used != *pods).then(|| format!("counts {used} pods instead of {pods}"))
}

fn pod(api: &Api, object: &Value) -> Option<String> {
    let node = text(&object["spec"]["nodeName"]);
    if node.is_empty() {
        // One for a node that has come not to want it stays, as upstream's.
        let meant = api.get("/nodes", "", &target(object));
        let effects = ["NoSchedule", "NoExecute"];
        let is_unwanted = meant.is_some_and(|on| unwanted(on, object, &effects).is_some());
        return (is_active(object) && !is_unwanted).then(|| "has no node".to_owned());
    }
    let Some(on) = api.get("/nodes", "", node) else {
        return Some(format!("is on {node}, which is gone"));
    };
    if !is_active(object) {
        return None;
    }
    let conditions = object["status"]["conditions"].as_array();
    let is_disrupted = |one: &Value| one["type"] == "DisruptionTarget" && one["status"] == "True";
    if conditions.is_some_and(|all| all.iter().any(is_disrupted)) {
        // What was not done in the end is taken back after two minutes.
        return Some("is still said to be disrupted".to_owned());
    }
    let taint = unwanted(on, object, &["NoExecute"])?;
    Some(format!("is on {node}, which has {taint}"))
}

/// A claim is bound, unless it waits for its first pod.
fn claim(api: &Api, object: &Value) -> Option<String> {
    let (namespace, name) = (&object["metadata"]["namespace"], text(&object["metadata"]["name"]));
    let volume = text(&object["spec"]["volumeName"]);
    if volume.is_empty() {
        let is_used = api.all("/pods").any(|pod| {
            pod["metadata"]["namespace"] == *namespace && claims_of(pod).any(|claim| claim == name)
        });
        let waits = object["spec"]["storageClassName"] == DEFAULT_CLASS && !is_used;
        return (!waits).then(|| "is not bound".to_owned());
    }
    if object["status"]["phase"] != "Bound" {
        return Some(format!("is {}", object["status"]["phase"]));
    }
    let bound = api.get("/persistentvolumes", "", volume);
    let is_mutual =
        bound.is_some_and(|bound| bound["spec"]["claimRef"]["uid"] == object["metadata"]["uid"]);
    (!is_mutual).then(|| format!("is bound to {volume}, which is not bound to it"))
}

/// A volume is bound, or stays because it is to be retained.
fn volume(api: &Api, object: &Value) -> Option<String> {
    let reference = &object["spec"]["claimRef"];
    let of =
        api.get("/persistentvolumeclaims", text(&reference["namespace"]), text(&reference["name"]));
    let is_claimed = of.is_some_and(|claim| claim["metadata"]["uid"] == reference["uid"]);
    let phase = text(&object["status"]["phase"]);
    let retained = object["spec"]["persistentVolumeReclaimPolicy"] == "Retain";
    let is_well = if is_claimed { phase == "Bound" } else { retained && phase == "Released" };
    (!is_well).then(|| format!("is {phase}, its claim is {is_claimed}"))
}

/// Only the user's taints stay.
fn node(object: &Value) -> Option<String> {
    let mut taints = object["spec"]["taints"].as_array()?.iter();
    let other = taints.find(|taint| taint["key"] != TAINT)?;
    Some(format!("has the taint {other}"))
}

/// Why the user does not want a pod on a node, if it is so.
fn unwanted<'a>(node: &'a Value, pod: &Value, effects: &[&str]) -> Option<&'a Value> {
    node["spec"]["taints"].as_array().into_iter().flatten().find(|taint| {
        let (key, effect) = (text(&taint["key"]), text(&taint["effect"]));
        effects.contains(&effect) && !matches!(tolerated(pod, key, effect), Some(None))
    })
}

/// The load over what a pod should have of it, within the bounds.
fn autoscaler(api: &Api, object: &Value) -> Option<String> {
    let (namespace, spec) = (text(&object["metadata"]["namespace"]), &object["spec"]);
    let name = text(&spec["scaleTargetRef"]["name"]);
    let target = api.get("apps/deployments", namespace, name)?;
    let replicas = number(&target["spec"]["replicas"], 1);
    if replicas == 0 {
        return None;
    }
    let load = api.load(namespace, &format!("deployments-{name}"));
    let (least, most) = (number(&spec["minReplicas"], 1), number(&spec["maxReplicas"], 1));
    let wanted = load.div_euclid(100) + i64::from(load % 100 != 0);
    let wanted = wanted.clamp(least, most);
    // A tenth is not worth a change.
    let is_near = (replicas * 90..=replicas * 110).contains(&load);
    if replicas != wanted && !(is_near && (least..=most).contains(&replicas)) {
        return Some(format!("{replicas} replicas for {load}m instead of {wanted}"));
    }
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let reasons: Vec<&str> = conditions.map(|condition| text(&condition["reason"])).collect();
    let waits = reasons.iter().any(|reason| reason.ends_with("Stabilized"));
    if waits || !reasons.contains(&"ValidMetricFound") {
        return Some(format!("still waits: {reasons:?}"));
    }
    let counted = number(&object["status"]["currentReplicas"], 0);
    (counted != replicas).then(|| format!("counts {counted} replicas instead of {replicas}"))
}

fn expect(object: &Value, fields: &[(&str, i64)]) -> Option<String> {
    let status = &object["status"];
    if status["observedGeneration"].is_i64()
        && status["observedGeneration"] != object["metadata"]["generation"]
    {
        return Some(format!("generation {} is not observed", object["metadata"]["generation"]));
    }
    let wrong = fields.iter().find(|(field, wanted)| number(&status[*field], 0) != *wanted)?;
    Some(format!("{} should be {}: {status}", wrong.0, wrong.1))
}

fn is_of(owner: &Value, object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| {
        owners.iter().any(|one| one["uid"] == owner["metadata"]["uid"] && one["controller"] == true)
    })
}

fn count<T>(of: impl Iterator<Item = T>) -> i64 {
    i64::try_from(of.count()).unwrap_or(i64::MAX)
}

fn number(value: &Value, absent: i64) -> i64 {
    value.as_i64().unwrap_or(absent)
}
