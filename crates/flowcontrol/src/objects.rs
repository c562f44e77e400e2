//! The objects that every cluster has: upstream's mandatory and suggested ones.
//!
//! Upstream: `apis/flowcontrol/bootstrap/default.go`.

use serde_json::{Value, json};

/// Whose specification is kept as it should be: `true`, or not.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const MASTERS: &str = "system:masters";
const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
const NODES: &str = "system:nodes";
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const EVERY: &str = "*";

/// An object that should be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Plural resource.
    pub resource: &'static str,
    /// Whether nobody may have it otherwise.
    pub is_mandatory: bool,
    /// The object.
    pub object: Value,
}

/// All of them, levels before the schemas that lead to them.
pub fn wanted() -> Vec<Wanted> {
    let mut all = levels();
    all.extend(schemas());
    all
}

/// What the status of a schema says about its level.
pub fn dangling_condition(level: &str, is_there: bool, now: &str) -> Value {
    let (status, reason, what) = if is_there {
        ("False", "Found", "it exists")
    } else {
        ("True", "NotFound", "there is no such object")
    };
    let (joint, what) = if is_there { ("and", what) } else { ("but", what) };
    json!({
        "type": "Dangling", "status": status, "lastTransitionTime": now, "reason": reason,
        "message": format!("This FlowSchema references the PriorityLevelConfiguration object \
                            named {level:?} {joint} {what}"),
    })
}

fn levels() -> Vec<Wanted> {
    let level = |name: &str, is_mandatory, spec: Value| Wanted {
        resource: "prioritylevelconfigurations",
        is_mandatory,
        object: json!({"apiVersion": API_VERSION, "kind": "PriorityLevelConfiguration",
            "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec}),
    };
    let limited = |shares: u32, lendable: u32, response: Value| {
        json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares,
            "lendablePercent": lendable, "limitResponse": response}})
    };
    let queued = |queues: u32, hand: u32| {
        json!({"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
    };
    let exempt = json!({"type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    vec![
        level("exempt", true, exempt),
        level("catch-all", true, limited(5, 0, json!({"type": "Reject"}))),
        level("system", false, limited(30, 33, queued(64, 6))),
        level("node-high", false, limited(40, 25, queued(64, 6))),
        level("leader-election", false, limited(10, 0, queued(16, 4))),
        level("workload-high", false, limited(40, 50, queued(128, 6))),
        level("workload-low", false, limited(100, 90, queued(128, 6))),
        level("global-default", false, limited(20, 50, queued(128, 6))),
    ]
}

/// A schema that leads to a level; `by` tells flows apart.
fn schema(
    (name, level): (&str, &str),
    precedence: u32,
    by: &str,
    subjects: Vec<Value>,
    rules: &Value,
) -> Wanted {
    let mut rule = rules.clone();
    rule["subjects"] = Value::Array(subjects);
    let mut spec = json!({"priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence, "rules": [rule]});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": by });
    }
    Wanted {
        resource: "flowschemas",
        is_mandatory: name == level,
        object: json!({"apiVersion": API_VERSION, "kind": "FlowSchema",
            "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec}),
    }
}

fn schemas() -> Vec<Wanted> {
    let all = json!({
        "resourceRules": [resources(&[EVERY], EVERY, &[EVERY], true)],
        "nonResourceRules": [{"verbs": [EVERY], "nonResourceURLs": [EVERY]}],
    });
    let leases =
        || resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false);
    let core = |names: &[&str]| resources(&["get", "create", "update"], "", names, false);
    let rules = |list: Vec<Value>| json!({ "resourceRules": list });
    let election = rules(vec![leases()]);
    let endpoints = rules(vec![core(&["endpoints"])]);
    let workload = rules(vec![core(&["endpoints", "configmaps"]), leases()]);
    let node = rules(vec![
        resources(&[EVERY], "", &["nodes", "nodes/status"], true),
        resources(&[EVERY], "coordination.k8s.io", &["leases"], false),
    ]);
    let health = json!({"nonResourceRules":
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let leaders = || [users(&[MANAGER, SCHEDULER]), accounts(&[EVERY])].concat();
    let of_endpoints = accounts(&["endpoint-controller", "endpointslicemirroring-controller"]);
    let of_endpoints = [users(&[MANAGER]), of_endpoints].concat();
    let (user, namespace) = ("ByUser", "ByNamespace");
    let everybody = || groups(&EVERYBODY);
    vec![
        schema(("exempt", "exempt"), 1, "", groups(&[MASTERS]), &all),
        schema(("probes", "exempt"), 2, "", everybody(), &health),
        schema(("system-leader-election", "leader-election"), 100, user, leaders(), &election),
        schema(("endpoint-controller", "workload-high"), 150, user, of_endpoints, &endpoints),
        schema(
            ("workload-leader-election", "leader-election"),
            200,
            user,
            accounts(&[EVERY]),
            &workload,
        ),
        schema(("system-node-high", "node-high"), 400, user, groups(&[NODES]), &node),
        schema(("system-nodes", "system"), 500, user, groups(&[NODES]), &all),
        schema(
            ("kube-controller-manager", "workload-high"),
            800,
            namespace,
            users(&[MANAGER]),
            &all,
        ),
        schema(("kube-scheduler", "workload-high"), 800, namespace, users(&[SCHEDULER]), &all),
        schema(
            ("kube-system-service-accounts", "workload-high"),
            900,
            namespace,
            accounts(&[EVERY]),
            &all,
        ),
        schema(
            ("service-accounts", "workload-low"),
            9000,
            user,
            groups(&["system:serviceaccounts"]),
            &all,
        ),
        // Its level has its name, but unlike the mandatory ones it may be changed.
        Wanted {
            is_mandatory: false,
            ..schema(("global-default", "global-default"), 9900, user, everybody(), &all)
        },
        schema(("catch-all", "catch-all"), 10_000, user, everybody(), &all),
    ]
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources,
        "namespaces": [EVERY]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let account = |name: &&str| {
        json!({"kind": "ServiceAccount",
            "serviceAccount": {"namespace": "kube-system", "name": name}})
    };
    names.iter().map(account).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mandatory_ones_are_those_that_let_everybody_in() {
        let all = wanted();
        let mandatory: Vec<_> = all
            .iter()
            .filter(|wanted| wanted.is_mandatory)
            .map(|w| (w.resource, w.object["metadata"]["name"].as_str().unwrap()))
            .collect();
        let (levels, schemas) = ("prioritylevelconfigurations", "flowschemas");
        let expected = [
            (levels, "exempt"),
            (levels, "catch-all"),
            (schemas, "exempt"),
            (schemas, "catch-all"),
        ];
        assert_eq!(mandatory, expected);
        assert_eq!(all.len(), 8 + 13);
    }

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let there = dangling_condition("l", true, "t");
        assert_eq!(
            (there["status"].as_str(), there["reason"].as_str()),
            (Some("False"), Some("Found"))
        );
        assert_eq!(
            dangling_condition("l", false, "t")["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but \
             there is no such object"
        );
    }
}
