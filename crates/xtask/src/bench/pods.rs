//! Pod start: from the request that creates a pod to the event that says it is Ready.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use client::{Client, ListOptions, ResourcePath};
use clock::{Clock, SystemClock};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use meta::WatchEvent;
use serde_json::{Value, json};
use testkit::{Cluster, ImageBuilder};

use super::{Figure, server};
use crate::run;

const SERIAL: usize = 50;
const BURST: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    import(cluster)?;
    let kubeconfig = cluster.kubeconfig();
    cluster.host().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = server::connect(&kubeconfig)?;
            tokio::time::timeout(PATIENCE, starts(&client)).await.context("pods are not ready")?
        })
    })
}

/// Imports the image of the pods that are measured.
pub(super) fn import(cluster: &Cluster) -> anyhow::Result<()> {
    run::run(run::cargo(&["build", "--release", "--package", "testkit", "--bin", "testkit-pod"]))?;
    let program = run::target_dir()?.join("release/testkit-pod");
    cluster.import(&image(&program)?)
}

fn image(program: &Path) -> anyhow::Result<Vec<u8>> {
    let mut image = ImageBuilder::new("bench:1", &["/testkit-pod", "wait"]);
    image.file(program, "/testkit-pod")?.libraries_of("self")?;
    image.build()
}

async fn starts(client: &Client) -> anyhow::Result<Vec<Figure>> {
    wait_for_account(client).await?;
    let mut latencies = Vec::new();
    for n in 0..SERIAL {
        let took = start(client, &[format!("serial-{n}")]).await?;
        latencies.push(took.as_millis());
    }
    latencies.sort_unstable();
    let names: Vec<String> = (0..BURST).map(|n| format!("burst-{n}")).collect();
    let took = start(client, &names).await?;
    ensure!(!latencies.is_empty(), "nothing was measured");
    let rate = f64::from(u32::try_from(BURST)?) / took.as_secs_f64();
    let serial = format!(
        "p50 {} ms, p99 {} ms of {SERIAL}",
        latencies[SERIAL / 2],
        latencies[SERIAL * 99 / 100]
    );
    let all = client::DeleteOptions { grace_period_secs: Some(0), ..Default::default() };
    client.api::<Pod>("default").delete_collection(&all, &ListOptions::labels("app=bench")).await?;
    Ok(vec![
        Figure::new("pod start, one at a time, image present", serial),
        Figure::new(format!("{BURST} pods at once"), format!("{rate:.1}/s")),
    ])
}

/// Pods cannot be created before their account is there.
pub(super) async fn wait_for_account(client: &Client) -> anyhow::Result<()> {
    let accounts = ResourcePath::new(meta::GroupVersionResource::new("", "v1", "serviceaccounts"));
    let accounts = client.dynamic::<Value>(accounts, "default");
    while accounts.get_opt("default").await?.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Creates pods and waits until all are Ready.
pub(super) async fn start(client: &Client, names: &[String]) -> anyhow::Result<Duration> {
    let path = ResourcePath::of::<Pod>();
    let options = ListOptions::labels("app=bench");
    let version = client.list_page(&path, "default", &options).await?.resource_version;
    let clock = SystemClock;
    let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let begun = clock.monotonic();
    let pods = client.dynamic::<Value>(path.clone(), "default");
    let creating = async {
        for name in names {
            pods.create(&pod(name)).await?;
        }
        anyhow::Ok(())
    };
    let watching = async {
        let mut events = client.watch(&path, "default", &options, version, 300).await?;
        while let Some(event) = events.next().await {
            if let WatchEvent::Modified(object) = event? {
                let pod: Pod = object.decode()?;
                let conditions = pod.status.and_then(|status| status.conditions);
                let is_ready = conditions
                    .iter()
                    .flatten()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                if is_ready {
                    waiting.remove(object.header().name.as_str());
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    let (created, watched) = futures::future::join(creating, watching).await;
    created?;
    watched?;
    Ok(clock.monotonic().saturating_duration_since(begun))
}

/// A pod that waits.
pub(super) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench" } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "bench:1", "imagePullPolicy": "Never" }],
        },
    })
}
