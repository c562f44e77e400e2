//! `/stats/summary`: what the node and its pods use, as JSON.

use std::collections::BTreeMap;

use cri::ContainerStats;
use serde_json::{Value, json};

use crate::kubelet::Kubelet;
use crate::labels;
use crate::node::host;
use crate::server::metrics::{running, whose};
use crate::server::{Answer, json as answer_json};

/// The summary.
pub(super) async fn summary(kubelet: &Kubelet) -> Answer {
    let stats = match running(kubelet).await {
        Ok(stats) => stats,
        Err(answer) => return answer,
    };
    let now = meta::time::rfc3339(kubelet.deps.clock.now());
    let used = host::Usage::read(&kubelet.config.root_dir);
    let node = json!({
        "nodeName": kubelet.config.node_name,
        "cpu": { "time": now, "usageCoreNanoSeconds": used.cpu_nanos },
        "memory": {
            "time": now,
            "availableBytes": used.capacity.memory_available_bytes,
            "workingSetBytes": used.memory_working_set_bytes,
        },
        "fs": {
            "time": now,
            "availableBytes": used.capacity.storage_available_bytes,
            "capacityBytes": used.capacity.storage_bytes,
            "inodesFree": used.capacity.inodes_free,
            "inodes": used.capacity.inodes,
        },
    });
    answer_json(&json!({ "node": node, "pods": pods(&stats, &now) }))
}

fn pods(stats: &[ContainerStats], now: &str) -> Vec<Value> {
    let mut pods: BTreeMap<(&str, &str, &str), Vec<&ContainerStats>> = BTreeMap::new();
    for stats in stats {
        let (namespace, pod, _) = whose(stats);
        let uid = stats.labels.get(labels::POD_UID).map(String::as_str).unwrap_or_default();
        pods.entry((namespace, pod, uid)).or_default().push(stats);
    }
    pods.into_iter()
        .map(|((namespace, name, uid), containers)| {
            let cpu: u64 = containers
                .iter()
                .filter_map(|s| s.cpu.as_ref())
                .map(|cpu| cpu.usage_core_nano_seconds)
                .sum();
            let memory: u64 = containers
                .iter()
                .filter_map(|s| s.memory.as_ref())
                .map(|memory| memory.working_set_bytes)
                .sum();
            json!({
                "podRef": { "name": name, "namespace": namespace, "uid": uid },
                "containers": containers.iter().map(|s| container(s)).collect::<Vec<_>>(),
                "cpu": { "time": now, "usageCoreNanoSeconds": cpu },
                "memory": { "time": now, "workingSetBytes": memory },
            })
        })
        .collect()
}

fn container(stats: &ContainerStats) -> Value {
    let mut value = json!({ "name": stats.metadata.name });
    if let Some(cpu) = &stats.cpu {
        value["cpu"] = json!({
            "time": meta::time::rfc3339(cpu.timestamp),
            "usageCoreNanoSeconds": cpu.usage_core_nano_seconds,
        });
    }
    if let Some(memory) = &stats.memory {
        value["memory"] = json!({
            "time": meta::time::rfc3339(memory.timestamp),
            "usageBytes": memory.usage_bytes,
            "workingSetBytes": memory.working_set_bytes,
            "rssBytes": memory.rss_bytes,
            "pageFaults": memory.page_faults,
            "majorPageFaults": memory.major_page_faults,
        });
    }
    value
}
