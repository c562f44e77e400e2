//! The controllers in a process of their own: how fast they make and remove things on simulated
//! nodes, and what that costs.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use client::Client;
use clock::{Clock, SystemClock};
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};

use super::api::Cost;
use super::server::{self, Server};
use super::{Figure, megabytes, process};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Requests under way at once while things are created.
const IN_FLIGHT: usize = 64;
/// Where all of it is.
const NAMESPACE: &str = "bench";
/// Pods on a node.
const PER_NODE: usize = 100;
/// How long is waited before idle time is measured, and how long that is.
const SETTLE: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(30);

/// A server and the parts that work for it.
struct Plane {
    // They go first.
    parts: Arc<Parts>,
    server: Server,
}

/// Processes, which go with this value.
#[derive(Default)]
struct Parts(Mutex<Vec<(&'static str, Child)>>);

/// What each scenario works with.
#[derive(Clone)]
struct Load {
    client: Client,
    clock: Arc<SystemClock>,
    parts: Arc<Parts>,
    /// The processes of the controllers and the server.
    pids: [u32; 2],
    pods: usize,
}

/// Measures with a Deployment of so many pods, and with the same in many objects.
pub(crate) fn measure(ironclad: &Path, pods: usize) -> anyhow::Result<Vec<Figure>> {
    let plane = Plane { parts: Arc::default(), server: Server::start(ironclad)? };
    plane.start(ironclad, "controller-manager", &["--secure-port", "0"])?;
    let count = (10 * pods).div_ceil(PER_NODE).max(10).to_string();
    let flags = ["nodes", "--count", &count, "--start-delay", "0s", "--run-for", "0s"];
    plane.start(ironclad, "bench", &[&flags[..], &["--stop-delay", "0s"]].concat())?;
    let manager = plane.parts.pid("controller-manager")?;
    let (parts, pids) = (plane.parts.clone(), [manager, plane.server.pid()]);
    let load = move |kubeconfig: &Path| -> anyhow::Result<Load> {
        let (client, clock) = (server::connect(kubeconfig)?, Arc::new(SystemClock));
        Ok(Load { client, clock, parts: parts.clone(), pids, pods })
    };
    let load_alone = load.clone();
    // The controllers by themselves: on two cores the others would take most of the time.
    let mut figures = plane.server.run(async move |kubeconfig| {
        let load = load_alone(&kubeconfig)?;
        load.prepare().await?;
        load.pods_alone().await
    })?;
    plane.start(ironclad, "scheduler", &["--secure-port", "0"])?;
    figures.extend(plane.server.run(async move |kubeconfig| {
        let load = load(&kubeconfig)?;
        let mut figures = load.one_deployment().await?;
        figures.push(load.many_deployments().await?);
        figures.push(load.jobs().await?);
        figures.extend(load.memory(manager).await?);
        figures.push(load.namespace().await?);
        // Without their nodes they would be made again and again.
        load.remove_deployments().await?;
        Ok(figures)
    })?);
    // Without nodes and pods nothing is left to be done.
    plane.parts.stop("bench");
    let mut cleanup = testkit::command(ironclad);
    cleanup.args(["bench", "nodes", "--cleanup", "--kubeconfig"]).arg(plane.server.kubeconfig());
    cleanup.stdin(Stdio::null()).stdout(Stdio::null());
    plane.server.on_host(move || cleanup.status())?;
    super::wait(SETTLE);
    let before = process::cpu(manager)?;
    super::wait(IDLE);
    let part = (process::cpu(manager)? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    figures.push(Figure::new("controllers without work", format!("{part:.2} % of a core")));
    Ok(figures)
}

impl Plane {
    fn start(&self, ironclad: &Path, part: &'static str, args: &[&str]) -> anyhow::Result<()> {
        let mut command = testkit::command(ironclad);
        command.arg(part).args(args).arg("--kubeconfig").arg(self.server.kubeconfig());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = self.server.on_host(move || command.spawn())?;
        self.parts.lock().push((part, child));
        Ok(())
    }
}

impl Parts {
    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Child)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid(&self, part: &str) -> anyhow::Result<u32> {
        let parts = self.lock();
        let child = parts.iter().find(|(name, _)| *name == part);
        child.map(|(_, child)| child.id()).with_context(|| format!("{part} runs"))
    }

    /// What waits for a part that has ended waits in vain.
    fn check(&self) -> anyhow::Result<()> {
        for (part, child) in self.lock().iter_mut() {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("{part} has ended: {status}");
            }
        }
        Ok(())
    }

    fn stop(&self, part: &str) {
        self.lock().extract_if(.., |(name, _)| *name == part).for_each(|(_, child)| end(child));
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.lock().drain(..).for_each(|(_, child)| end(child));
    }
}

fn end(mut child: Child) {
    child.kill().and_then(|()| child.wait()).ok();
}

impl Load {
    async fn prepare(&self) -> anyhow::Result<()> {
        let namespace = json!({ "metadata": { "name": NAMESPACE } });
        self.create("/api/v1/namespaces", &namespace).await?;
        let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
        self.until("the service account", Duration::from_millis(20), async || {
            Ok(self.get(&account).await?.is_some().then_some(()))
        })
        .await
    }

    /// Makes pods that stay where they are made, and removes them.
    async fn pods_alone(&self) -> anyhow::Result<Vec<Figure>> {
        let pods = self.pods;
        let (begun, cpu) = (self.clock.monotonic(), self.cpu()?);
        self.create(&apps("deployments"), &deployment("alone", pods)).await?;
        self.deployment_has("alone", "replicas", pods).await?;
        let (took, after) = (self.since(begun), self.cpu()?);
        self.remove_deployments().await?;
        let [controllers, server] = [0, 1].map(|at| {
            let cpu = after[at].saturating_sub(cpu[at]);
            Cost { count: pods, took, cpu }.cpu_ms()
        });
        Ok(vec![
            Figure::new(format!("pods of a Deployment of {pods}, made"), rate(pods, took)),
            Figure::new(
                "  CPU of the controllers and the server for each",
                format!("{controllers:.3} and {server:.3} ms"),
            ),
        ])
    }

    fn cpu(&self) -> anyhow::Result<[Duration; 2]> {
        let [controllers, server] = self.pids;
        Ok([process::cpu(controllers)?, process::cpu(server)?])
    }

    async fn one_deployment(&self) -> anyhow::Result<Vec<Figure>> {
        let pods = self.pods;
        let begun = self.clock.monotonic();
        self.create(&apps("deployments"), &deployment("one", pods)).await?;
        self.deployment_has("one", "replicas", pods).await?;
        let made = rate(pods, self.since(begun));
        self.deployment_has("one", "readyReplicas", pods).await?;
        let ready = self.since(begun);
        let begun = self.clock.monotonic();
        let change =
            json!({ "spec": { "template": { "metadata": { "annotations": { "v": "2" } } } } });
        let path = format!("{}/one", apps("deployments"));
        self.send(Method::PATCH, &path, &change).await?;
        self.deployment_has("one", "updatedReplicas", pods).await?;
        self.deployment_has("one", "readyReplicas", pods).await?;
        let rolled = self.since(begun);
        self.remove_deployments().await?;
        Ok(vec![
            Figure::new("the same while they are scheduled and started, made", made),
            Figure::new(
                format!("a Deployment of {pods} pods, until all are Ready"),
                seconds(ready),
            ),
            Figure::new("the same, rolled out anew", seconds(rolled)),
        ])
    }

    async fn many_deployments(&self) -> anyhow::Result<Figure> {
        let count = (self.pods / 10).max(1);
        let begun = self.clock.monotonic();
        let objects = (0..count).map(|n| deployment(&format!("many-{n}"), 10));
        self.create_all(&apps("deployments"), objects).await?;
        self.all(&apps("deployments"), |one| one["status"]["readyReplicas"] == 10).await?;
        let took = self.since(begun);
        self.remove_deployments().await?;
        let what = format!("{count} Deployments of 10 pods, until all are Ready");
        Ok(Figure::new(what, seconds(took)))
    }

    async fn jobs(&self) -> anyhow::Result<Figure> {
        let count = (self.pods / 2).max(1);
        let path = format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs");
        let begun = self.clock.monotonic();
        let job = |n: usize| {
            let spec = json!({ "restartPolicy": "Never",
                "containers": [{ "name": "c", "image": "none.example/none" }] });
            json!({ "metadata": { "name": format!("job-{n}") },
                "spec": { "template": { "spec": spec } } })
        };
        self.create_all(&path, (0..count).map(job)).await?;
        self.all(&path, |one| one["status"]["succeeded"] == 1).await?;
        let took = self.since(begun);
        let how = json!({ "propagationPolicy": "Background" });
        self.send(Method::DELETE, &path, &how).await?;
        self.no_pods().await?;
        Ok(Figure::new(format!("{count} Jobs, until all are complete"), rate(count, took)))
    }

    /// What ten times as many pods add to the controllers' memory.
    async fn memory(&self, manager: u32) -> anyhow::Result<Vec<Figure>> {
        let before = process::resident_of(manager)?;
        let objects = (0..10).map(|n| deployment(&format!("much-{n}"), self.pods));
        self.create_all(&apps("deployments"), objects).await?;
        self.all(&apps("deployments"), |one| one["status"]["readyReplicas"] == self.pods).await?;
        let after = process::resident_of(manager)?;
        let pods = 10 * self.pods;
        let total = format!("{:.0} MB", megabytes(after));
        let more = format!("{:.0} MB", megabytes(after.saturating_sub(before)));
        Ok(vec![
            Figure::new(format!("memory of the controllers with {pods} pods"), total),
            Figure::new("  more than without them", more),
        ])
    }

    /// Deletes a namespace in which there is a lot.
    async fn namespace(&self) -> anyhow::Result<Figure> {
        let count = 5 * self.pods;
        let name = json!({ "metadata": { "name": "full" } });
        self.create("/api/v1/namespaces", &name).await?;
        let maps = (0..count).map(|n| json!({ "metadata": { "name": format!("m-{n}") } }));
        self.create_all("/api/v1/namespaces/full/configmaps", maps).await?;
        let begun = self.clock.monotonic();
        self.send(Method::DELETE, "/api/v1/namespaces/full", &json!({})).await?;
        self.until("the namespace is gone", Duration::from_millis(50), async || {
            Ok(self.get("/api/v1/namespaces/full").await?.is_none().then_some(()))
        })
        .await?;
        let value = rate(count, self.since(begun));
        Ok(Figure::new(format!("objects of a namespace of {count}, deleted"), value))
    }

    async fn remove_deployments(&self) -> anyhow::Result<()> {
        let how = json!({ "propagationPolicy": "Background" });
        self.send(Method::DELETE, &apps("deployments"), &how).await?;
        self.no_pods().await
    }

    async fn no_pods(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1");
        self.until("the pods are gone", Duration::from_millis(200), async || {
            let list = self.get(&path).await?.unwrap_or_default();
            Ok(list["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })
        .await
    }

    async fn deployment_has(&self, name: &str, field: &str, count: usize) -> anyhow::Result<()> {
        let path = format!("{}/{name}", apps("deployments"));
        self.until(field, Duration::from_millis(20), async || {
            let object = self.get(&path).await?.unwrap_or_default();
            let is_seen =
                object["status"]["observedGeneration"] == object["metadata"]["generation"];
            Ok((is_seen && object["status"][field] == count).then_some(()))
        })
        .await
    }

    /// Waits until all of a collection are so.
    async fn all(&self, path: &str, so: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        self.until(path, Duration::from_millis(250), async || {
            let list = self.get(path).await?.unwrap_or_default();
            let items = list["items"].as_array().context("items")?;
            Ok(items.iter().all(&so).then_some(()))
        })
        .await
    }

    async fn until(
        &self,
        what: &str,
        pause: Duration,
        ask: impl AsyncFn() -> anyhow::Result<Option<()>>,
    ) -> anyhow::Result<()> {
        let begun = self.clock.monotonic();
        while ask().await?.is_none() {
            anyhow::ensure!(self.since(begun) < PATIENCE, "waited in vain: {what}");
            self.parts.check()?;
            self.clock.sleep(pause).await;
        }
        Ok(())
    }

    async fn create_all(
        &self,
        path: &str,
        objects: impl Iterator<Item = Value>,
    ) -> anyhow::Result<()> {
        let objects = stream::iter(objects).map(Ok);
        objects
            .try_for_each_concurrent(
                IN_FLIGHT,
                |object| async move { self.create(path, &object).await },
            )
            .await
    }

    async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        self.send(Method::POST, path, object).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
        let body = Bytes::from(body.to_string());
        server::send(&self.client, method, path, body).await.map(drop).map_err(Into::into)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        match server::send(&self.client, Method::GET, path, Bytes::new()).await {
            Ok(body) => Ok(Some(serde_json::from_slice(&body)?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn since(&self, begun: std::time::Instant) -> Duration {
        self.clock.monotonic().saturating_duration_since(begun)
    }
}

fn apps(plural: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/{plural}")
}

fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({ "app": name });
    json!({ "metadata": { "name": name }, "spec": { "replicas": replicas,
        "selector": { "matchLabels": labels },
        "strategy": { "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
        "template": { "metadata": { "labels": labels }, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "none.example/none" }] } } } })
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(count: usize, took: Duration) -> String {
    format!("{:.0}/s", count as f64 / took.as_secs_f64())
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
