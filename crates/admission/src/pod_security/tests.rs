//! What the levels refuse, and in which words.

use serde_json::json;

use super::policy::{Standard, Version};
use super::*;

fn check(level: Level, minor: Option<u32>, spec: &Value, expected: &[&str]) {
    let version = minor.map_or(Version::Latest, Version::Minor);
    let found = violations(Standard { level, version }, spec, None);
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected, "{spec}");
}

fn pod(more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn the_baseline_keeps_the_node_to_itself() {
    let cases: [(Value, &[&str]); 9] = [
        (pod(json!({})), &[]),
        (
            pod(json!({"hostNetwork": true, "hostIPC": true})),
            &["host namespaces (hostNetwork=true, hostIPC=true)"],
        ),
        (
            pod(json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]})),
            &["hostPath volumes (volumes \"v\", \"w\")"],
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"privileged": true,
                "procMount": "Unmasked", "capabilities": {"add": ["SYS_TIME", "KILL"]}}}]}),
            &[
                "non-default capabilities (container \"a\" must not include \"SYS_TIME\" in \
                 securityContext.capabilities.add)",
                "privileged (container \"a\" must not set securityContext.privileged=true)",
                "procMount (container \"a\" must not set securityContext.procMount to \
                 \"Unmasked\")",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 1}, {"hostPort": 2}]}]}),
            &["hostPort (container \"a\" uses hostPorts 1, 2)"],
        ),
        (
            pod(json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"},
                {"name": "net.ipv4.tcp_rmem"}]}})),
            &["forbidden sysctls (kernel.msgmax)"],
        ),
        (
            pod(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"},
                "appArmorProfile": {"type": "Unconfined"}}})),
            &[
                "forbidden AppArmor profile (pod must not set AppArmor profile type to \
                 \"Unconfined\")",
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \
                 \"Unconfined\")",
            ],
        ),
        (
            pod(json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}})),
            &[
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user \
               may not be set)",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
            &["probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")"],
        ),
    ];
    for (spec, expected) in cases {
        check(Level::Baseline, None, &spec, expected);
    }
}

#[test]
fn rules_are_those_of_the_version() {
    let spec = pod(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}));
    check(Level::Baseline, Some(31), &spec, &["forbidden sysctls (net.ipv4.tcp_rmem)"]);
    check(Level::Baseline, Some(32), &spec, &[]);
}

#[test]
fn the_restricted_level_wants_everything_said() {
    check(
        Level::Restricted,
        None,
        &pod(json!({"volumes": [{"name": "v", "nfs": {}}, {"name": "w", "emptyDir": {}}]})),
        &[
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
             securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (containers \"a\", \"b\" must set \
             securityContext.capabilities.drop=[\"ALL\"])",
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")",
            "runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
             securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or containers \"a\", \"b\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ],
    );
    let good = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    check(
        Level::Restricted,
        None,
        &json!({"containers": [{"name": "a", "securityContext": good}],
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "Localhost"}}}),
        &[],
    );
    check(
        Level::Restricted,
        None,
        &json!({"containers": [{"name": "a", "securityContext": good}],
            "securityContext": {"runAsNonRoot": false, "runAsUser": 0,
                "seccompProfile": {"type": "RuntimeDefault"}}}),
        &[
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
            "runAsUser=0 (pod must not set runAsUser=0)",
        ],
    );
}

#[test]
fn labels_name_levels_and_versions() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/warn": "x", "pod-security.kubernetes.io/audit-version": "1"});
    let (policy, wrong) = Policy::of(&json!({"metadata": {"labels": labels}}));
    assert_eq!(policy.enforce.to_string(), "baseline:v1.30");
    let texts: Vec<String> =
        wrong.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    assert_eq!(
        texts,
        [
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1\": must \
             be \"latest\" or \"v1.x\"",
            "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"x\": must be one \
             of privileged, baseline, restricted",
        ]
    );
}

#[test]
fn updates_that_change_no_image_are_let_be() {
    let with = |image: &str, note: &str| {
        json!({"metadata": {"annotations": {"a": note}},
            "spec": {"containers": [{"name": "c", "image": image}]}})
    };
    assert!(is_insignificant(&with("i", "1"), Some(&with("i", "2"))));
    assert!(!is_insignificant(&with("i", "1"), Some(&with("j", "1"))));
    assert!(!is_insignificant(&with("i", "1"), None));
}
