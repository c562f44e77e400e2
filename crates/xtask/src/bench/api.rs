//! API operations over HTTPS: how many per second, and what each costs the server.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{Client, KubeConfig, ListOptions, Patch, Remote, ResourcePath};
use clock::{Clock, SystemClock};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use testkit::Cluster;

use super::{Figure, process};

/// Gets and lists are repeated this often.
const GETS: usize = 5000;
const LISTS: usize = 20;

pub(crate) fn measure(
    cluster: &Cluster,
    objects: usize,
    in_flight: usize,
) -> anyhow::Result<Vec<Figure>> {
    let kubeconfig = cluster.kubeconfig();
    let pid = cluster.pid().context("the cluster runs")?;
    cluster.host().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Load { pid, objects, in_flight }.run(kubeconfig))
    })
}

/// A client with the administrator's credentials.
pub(crate) fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = KubeConfig::load(kubeconfig)?;
    let remote = Remote::new(&config, "ironclad-bench", Arc::new(SystemClock))?;
    Ok(Client::new(Arc::new(remote)))
}

struct Load {
    pid: u32,
    objects: usize,
    in_flight: usize,
}

impl Load {
    async fn run(self, kubeconfig: PathBuf) -> anyhow::Result<Vec<Figure>> {
        let client = connect(&kubeconfig)?;
        let namespaces = client.dynamic::<Value>(path("namespaces"), "");
        namespaces.create(&json!({ "metadata": { "name": "bench" } })).await?;
        let accounts = client.dynamic::<Value>(path("serviceaccounts"), "bench");
        while accounts.get_opt("default").await?.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pods = client.dynamic::<Value>(ResourcePath::of::<Pod>(), "bench");
        let pods = &pods;
        let name = |n: usize| format!("pod-{n}");
        let patch = &Patch::Merge(json!({ "status": { "message": "measured" } }));
        let mut figures = Vec::new();
        let create = |n| async move { pods.create(&pod(&name(n))).await.map(drop) };
        figures.push(self.each("create", self.objects, create).await?);
        let get = |n| async move { pods.get(&name(n % self.objects)).await.map(drop) };
        figures.push(self.each("get", GETS, get).await?);
        figures.push(self.lists(&client).await?);
        let status =
            |n| async move { pods.patch_subresource(&name(n), "status", patch).await.map(drop) };
        figures.push(self.each("status patch", self.objects, status).await?);
        let now = client::DeleteOptions { grace_period_secs: Some(0), ..Default::default() };
        let now = &now;
        let delete = |n| async move { pods.delete(&name(n), now).await };
        figures.push(self.each("delete", self.objects, delete).await?);
        Ok(figures)
    }

    async fn each<F, Fut>(&self, work: &str, count: usize, one: F) -> anyhow::Result<Figure>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<(), client::ClientError>>,
    {
        let clock = SystemClock;
        let (cpu, begun) = (process::cpu(self.pid)?, clock.monotonic());
        let mut requests =
            futures::stream::iter((0..count).map(one)).buffer_unordered(self.in_flight);
        while let Some(result) = requests.next().await {
            result.with_context(|| work.to_owned())?;
        }
        let took = clock.monotonic().saturating_duration_since(begun);
        let cpu = process::cpu(self.pid)?.saturating_sub(cpu);
        Ok(figure(work, count, took, cpu))
    }

    async fn lists(&self, client: &Client) -> anyhow::Result<Figure> {
        let clock = SystemClock;
        let (cpu, begun) = (process::cpu(self.pid)?, clock.monotonic());
        for _ in 0..LISTS {
            let path = ResourcePath::of::<Pod>();
            client.list_page(&path, "bench", &ListOptions::all()).await?;
        }
        let took = clock.monotonic().saturating_duration_since(begun);
        let cpu = process::cpu(self.pid)?.saturating_sub(cpu);
        Ok(figure(&format!("list of {} pods", self.objects), LISTS, took, cpu))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn figure(work: &str, count: usize, took: Duration, cpu: Duration) -> Figure {
    let per_second = count as f64 / took.as_secs_f64();
    let cpu_ms = cpu.as_secs_f64() * 1e3 / count as f64;
    Figure::new(format!("API: {work}"), format!("{per_second:.0}/s, {cpu_ms:.3} ms of CPU each"))
}

fn path(resource: &str) -> ResourcePath {
    ResourcePath::new(meta::GroupVersionResource::new("", "v1", resource))
}

/// A pod of about 3 KB that no node takes.
fn pod(name: &str) -> Value {
    let env: Vec<Value> = (0..20)
        .map(|n| json!({ "name": format!("VARIABLE_{n}"), "value": "a value of some length" }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "load" } },
        "spec": {
            "nodeName": "no-such-node",
            "containers": [{
                "name": "c", "image": "bench:1", "env": env,
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            }],
        },
    })
}
