//! Cells of tables.

use super::*;
use crate::registry;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn check(group: &str, resource: &str, object: &Value, expected: &Value) {
    let gvr = GroupVersionResource::new(group, "v1", resource);
    assert_eq!(Value::Array(table_row(&gvr, object, now())), *expected);
}

#[test]
fn durations_get_coarser_with_length() {
    for (seconds, expected) in [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (599, "9m59s"),
        (3600, "60m"),
        (3 * 3600 + 60, "3h1m"),
        (30 * 3600, "30h"),
        (3 * 86400 + 4 * 3600, "3d4h"),
        (400 * 86400, "400d"),
        (1054 * 86400, "2y324d"),
    ] {
        assert_eq!(human_duration(seconds), expected);
    }
}

#[test]
fn every_row_is_as_wide_as_its_table() {
    for group in registry().groups() {
        for version in &group.versions {
            for resource in version.resources.iter().filter(|r| !r.columns.is_empty()) {
                let gvr =
                    GroupVersionResource::new(&*group.name, &*version.version, &*resource.name);
                let row = table_row(&gvr, &json!({"metadata": {"name": "x"}}), now());
                // Upstream prints an age that has no column.
                let extra = usize::from(resource.name == "ipaddresses");
                let wanted = resource.columns.len() + extra;
                assert!(row.len() == wanted, "{gvr}: {} of {wanted}", row.len());
            }
        }
    }
}

#[test]
fn a_crashing_pod_shows_why_and_when() {
    let pod = json!({"metadata": {"name": "x", "creationTimestamp": "2025-12-31T23:00:00Z"},
        "spec": {"containers": [{}], "nodeName": "n"},
        "status": {"phase": "Running", "containerStatuses": [{"restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2025-12-31T23:59:00Z"}}}]}});
    check(
        "",
        "pods",
        &pod,
        &json!([
            "x",
            "0/1",
            "CrashLoopBackOff",
            "2 (60s ago)",
            "60m",
            "<none>",
            "n",
            "<none>",
            "<none>"
        ]),
    );
}

#[test]
fn a_pod_at_its_init_containers_shows_at_which() {
    let pod = json!({"metadata": {"name": "x"},
        "spec": {"containers": [{}], "initContainers": [{"name": "a"}, {"name": "b"}]},
        "status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0}}},
            {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}}]}});
    let gvr = GroupVersionResource::new("", "v1", "pods");
    assert_eq!(table_row(&gvr, &pod, now())[2], "Init:1/2");
}

#[test]
fn a_service_shows_its_addresses_and_ports() {
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer",
        "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}],
        "selector": {"app": "a"}}});
    check(
        "",
        "services",
        &service,
        &json!([
            "s",
            "LoadBalancer",
            "10.0.0.1",
            "<pending>",
            "80:30000/TCP",
            "<unknown>",
            "app=a"
        ]),
    );
}
