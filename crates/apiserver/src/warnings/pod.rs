//! What is odd in the spec of a pod, or of pods to come.
//!
//! Upstream: `kubernetes/pkg/api/pod/warnings.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Volumes whose plugins are gone: field, and since when.
const DEAD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
/// Labels of nodes that have other names today.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];
const SURE: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const LIKELY: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Warnings about a spec, under its path.
pub(super) fn of(path: &str, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    placement(path, spec, &mut out);
    volumes(path, spec, &mut out);
    let mut seen = BTreeSet::new();
    for (at, alias) in items(&spec["hostAliases"]) {
        if !seen.insert(text(alias, "ip")) {
            let ip = text(alias, "ip");
            out.push(format!("{path}.hostAliases[{at}].ip: duplicate ip {ip:?}"));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, secret) in items(&spec["imagePullSecrets"]) {
        let name = text(secret, "name");
        if name.is_empty() {
            out.push(format!("{path}.imagePullSecrets[{at}].name: invalid empty name {name:?}"));
        }
        if !seen.insert(name) {
            out.push(format!("{path}.imagePullSecrets[{at}].name: duplicate name {name:?}"));
        }
    }
    if let Some(memory) = spec["overhead"].get("memory") {
        fractional(format_args!("{path}.overhead[memory]"), memory, &mut out);
    }
    containers(path, spec, &mut out);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and \
             will be treated as 1"
        ));
    }
    affinity(path, &spec["affinity"], &mut out);
    out
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, why)| *why)
}

/// Which nodes the pod is for.
fn placement(path: &str, spec: &Value, out: &mut Vec<String>) {
    for key in spec["nodeSelector"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if let Some(why) = old_label(key) {
            out.push(format!("{path}.nodeSelector[{key}]: {why}"));
        }
    }
    let mut term = |path: &str, term: &Value| {
        for (at, expression) in items(&term["matchExpressions"]) {
            if let Some(why) = old_label(text(expression, "key")) {
                out.push(format!("{path}.matchExpressions[{at}].key: {why}"));
            }
        }
    };
    let node = &spec["affinity"]["nodeAffinity"];
    let base = format!("{path}.affinity.nodeAffinity");
    for (at, sure) in items(&node[SURE]["nodeSelectorTerms"]) {
        term(&format!("{base}.{SURE}.nodeSelectorTerms[{at}]"), sure);
    }
    for (at, likely) in items(&node[LIKELY]) {
        term(&format!("{base}.{LIKELY}[{at}].preference"), &likely["preference"]);
    }
    for (at, spread) in items(&spec["topologySpreadConstraints"]) {
        let path = format!("{path}.topologySpreadConstraints[{at}]");
        if let Some(why) = old_label(text(spread, "topologyKey")) {
            out.push(format!("{path}.topologyKey: {why}"));
        }
        if !spread["labelSelector"].is_object() {
            out.push(format!("{path}.labelSelector: {NO_SELECTOR}"));
        }
    }
}

fn volumes(path: &str, spec: &Value, out: &mut Vec<String>) {
    for (at, volume) in items(&spec["volumes"]) {
        for (field, since) in DEAD_VOLUMES {
            if volume.get(field).is_some() {
                // The one field that upstream spells otherwise when it speaks of it.
                let shown = if field == "storageos" { "storageOS" } else { field };
                out.push(format!("{path}.volumes[{at}].{shown}: {since}"));
            }
        }
    }
    for (_, volume) in items(&spec["volumes"]) {
        for (_, source) in items(&volume["projected"]["sources"]) {
            if source.as_object().is_some_and(serde_json::Map::is_empty) {
                let name = text(volume, "name");
                out.push(format!("volume {name:?} (Projected) has no sources provided"));
            }
        }
    }
}

fn fractional(path: std::fmt::Arguments<'_>, quantity: &Value, out: &mut Vec<String>) {
    let Some(amount) = quantity.as_str() else { return };
    if amount.parse().is_ok_and(|amount: meta::Quantity| !amount.is_whole()) {
        out.push(format!(
            "{path}: fractional byte value {amount:?} is invalid, must be an integer"
        ));
    }
}

fn containers(path: &str, spec: &Value, out: &mut Vec<String>) {
    let mut ports: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    // In the order in which upstream visits them.
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, container) in items(&spec[list]) {
            let path = format!("{path}.{list}[{at}]");
            let mut seen = BTreeSet::new();
            for (at, variable) in items(&container["env"]) {
                let name = text(variable, "name");
                let is_extended = || text(variable, "value").contains(&format!("$({name})"));
                if !seen.insert(name) && !is_extended() {
                    out.push(format!(
                        "{path}.env[{at}]: hides previous definition of {name:?}, which may be \
                         dropped when using apply"
                    ));
                }
            }
            for (side, resource) in [
                ("limits", "memory"),
                ("requests", "memory"),
                ("limits", "ephemeral-storage"),
                ("requests", "ephemeral-storage"),
            ] {
                let at = format_args!("{path}.resources.{side}[{resource}]");
                fractional(at, &container["resources"][side][resource], out);
            }
            for (at, port) in items(&container["ports"]) {
                let path = format!("{path}.ports[{at}]");
                let protocol = port["protocol"].as_str().unwrap_or("TCP");
                let key = (port["containerPort"].as_i64().unwrap_or_default(), protocol);
                let others = ports.entry(key).or_default();
                out.extend(
                    others.iter().filter_map(|(at, other)| conflict(&path, port, at, other)),
                );
                others.push((path, port));
            }
        }
    }
}

/// Two ports of one number and protocol.
fn conflict(path: &str, port: &Value, other_path: &str, other: &Value) -> Option<String> {
    let host = |port: &Value| port["hostPort"].as_i64().unwrap_or_default();
    let (ip, other_ip) = (text(port, "hostIP"), text(other, "hostIP"));
    let (host, other_host) = (host(port), host(other));
    let sort = if ip == other_ip && host == other_host {
        "duplicate"
    } else if host == 0 || other_host == 0 {
        "overlapping"
    } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
        "dangerously ambiguous"
    } else {
        return None;
    };
    Some(format!("{path}: {sort} port definition with {other_path}"))
}

fn affinity(path: &str, affinity: &Value, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let base = format!("{path}.affinity.{kind}");
        for (at, term) in items(&affinity[kind][SURE]) {
            if !term["labelSelector"].is_object() {
                out.push(format!("{base}.{SURE}[{at}].labelSelector: {NO_SELECTOR}"));
            }
        }
        for (at, term) in items(&affinity[kind][LIKELY]) {
            if !term["podAffinityTerm"]["labelSelector"].is_object() {
                let term = "podAffinityTerm.labelSelector";
                out.push(format!("{base}.{LIKELY}[{at}].{term}: {NO_SELECTOR}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_that_are_named_twice_are_told() {
        let ports = json!([{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"},
            {"containerPort": 1, "hostPort": 2}]);
        let spec = json!({"containers": [{"ports": ports}, {"ports": [{"containerPort": 1}]}]});
        assert_eq!(
            of("spec", &spec),
            [
                "spec.containers[0].ports[2]: overlapping port definition with \
             spec.containers[0].ports[0]",
                "spec.containers[1].ports[0]: duplicate port definition with \
             spec.containers[0].ports[0]",
                "spec.containers[1].ports[0]: overlapping port definition with \
             spec.containers[0].ports[2]",
            ]
        );
    }

    #[test]
    fn variables_may_extend_what_they_hide() {
        let variable = |value: &str| json!({"name": "A", "value": value});
        let env = json!([variable("1"), variable("$(A)2"), variable("3")]);
        let spec = json!({"containers": [{"env": env}]});
        assert_eq!(
            of("spec.template.spec", &spec),
            ["spec.template.spec.containers[0].env[2]: hides previous definition of \"A\", which \
             may be dropped when using apply",]
        );
    }

    #[test]
    fn odd_amounts_and_names_are_told() {
        let spec = json!({"containers": [{"resources": {"limits": {"memory": "100m"}}}],
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
            "volumes": [{"name": "v", "projected": {"sources": [{}]}}],
            "topologySpreadConstraints": [{"topologyKey": "a"}]});
        assert_eq!(
            of("spec", &spec),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \
             \"kubernetes.io/os\" instead",
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in \
             matching no pod",
                "volume \"v\" (Projected) has no sources provided",
                "spec.imagePullSecrets[1].name: duplicate name \"a\"",
                "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is \
             invalid, must be an integer",
            ]
        );
    }
}
