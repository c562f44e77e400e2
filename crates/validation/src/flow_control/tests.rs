//! Flow schemas and priority levels: what is refused, and in which words.

use serde_json::{Value, json};

use crate::tests::{check, object};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

fn schema(rules: Value) -> Value {
    object(json!({"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "p"},
        "rules": rules}))
}

#[test]
fn rules_say_for_whom_and_about_what() {
    let subjects = json!([
        {"kind": "User", "group": {"name": "g"}},
        {"kind": "ServiceAccount", "serviceAccount": {"name": "-"}},
        {"kind": "Robot"},
    ]);
    let rule = json!({"subjects": subjects,
        "resourceRules": [{"verbs": ["get", "*"], "apiGroups": [], "resources": ["a", "*"],
            "namespaces": ["A"]}],
        "nonResourceRules": [{"verbs": ["post"], "nonResourceURLs": ["a b", "/x*", "/a//b", "/v/*"]}]});
    let at = "spec.rules[0]";
    check(
        GROUP,
        "FlowSchema",
        schema(json!([rule, {}])),
        &[
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have \
             matchingPrecedence 1",
            &format!(
                "{at}.subjects[0].user: Required value: user is required when subject kind is \
                 'User'"
            ),
            &format!(
                "{at}.subjects[0].group: Forbidden: group is forbidden when subject kind is not \
                 'Group'"
            ),
            &format!(
                "{at}.subjects[1].serviceAccount.name: Invalid value: \"-\": a lowercase RFC 1123 \
                 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                 must start and end with an alphanumeric character (e.g. 'example.com', regex used \
                 for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ),
            &format!(
                "{at}.subjects[1].serviceAccount.namespace: Required value: must specify namespace \
                 for service account"
            ),
            &format!(
                "{at}.subjects[2].kind: Unsupported value: \"Robot\": supported values: \"Group\", \
                 \"ServiceAccount\", \"User\""
            ),
            &format!(
                "{at}.resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, \
                 must not specify other verbs"
            ),
            &format!(
                "{at}.resourceRules[0].apiGroups: Required value: resource rules must supply at \
                 least one api group"
            ),
            &format!(
                "{at}.resourceRules[0].resources: Invalid value: [\"a\",\"*\"]: if '*' is present, \
                 must not specify other resources"
            ),
            &format!(
                "{at}.resourceRules[0].namespaces[0]: Invalid value: \"A\": each member of this \
                 list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used \
                 for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ),
            &format!(
                "{at}.nonResourceRules[0].verbs: Unsupported value: [\"post\"]: supported values: \
                 \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \
                 \"proxy\", \"update\", \"watch\""
            ),
            &format!(
                "{at}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a b\": must start \
                 with slash"
            ),
            &format!(
                "{at}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a b\": must not \
                 contain white-space"
            ),
            &format!(
                "{at}.nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/x*\": wildcard can \
                 only do suffix matching"
            ),
            &format!(
                "{at}.nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/a//b\": must not \
                 contain double slash"
            ),
            "spec.rules[1].subjects: Required value: subjects must contain at least one value",
            "spec.rules[1]: Required value: at least one of resourceRules and nonResourceRules has \
             to be non-empty",
        ],
    );
}

#[test]
fn a_level_is_exempt_or_has_limits() {
    let level = |spec: Value| object(spec);
    check(
        GROUP,
        "PriorityLevelConfiguration",
        level(json!({"type": "Exempt", "limited": {}})),
        &[
            "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is \
             'exempt'",
            "spec.limited: Forbidden: must be nil if the type is not Limited",
        ],
    );
    let queuing = json!({"queues": 8, "handSize": 9, "queueLengthLimit": -1});
    let limited = json!({"limitResponse": {"type": "Queue", "queuing": queuing},
        "lendablePercent": 101, "borrowingLimitPercent": -1});
    let at = "spec.limited";
    check(
        GROUP,
        "PriorityLevelConfiguration",
        level(json!({"type": "Limited", "limited": limited})),
        &[
            &format!(
                "{at}.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive"
            ),
            &format!(
                "{at}.limitResponse.queuing.handSize: Invalid value: 9: should not be greater than \
                 queues (8)"
            ),
            &format!(
                "{at}.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"
            ),
            &format!(
                "{at}.borrowingLimitPercent: Invalid value: -1: if specified, must be a \
                 non-negative integer"
            ),
        ],
    );
}
