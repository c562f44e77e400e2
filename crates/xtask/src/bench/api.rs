//! API operations over HTTPS: how many per second, and what each costs the server.
//!
//! The answers are not decoded: on a machine of two cores the client must leave room to the server.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use client::{Client, ClientError};
use clock::{Clock, SystemClock};
use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::server::{Server, connect, send};
use super::{Figure, process};

/// Gets and lists are repeated this often.
const GETS: usize = 5000;
const LISTS: usize = 20;
/// Connections that the requests are spread over.
const CONNECTIONS: usize = 8;
/// Where the pods of the load are.
pub(crate) const PODS: &str = "/api/v1/namespaces/bench/pods";

/// Operations on a number of pods.
pub(crate) fn measure(
    server: &Server,
    objects: usize,
    in_flight: usize,
) -> anyhow::Result<Vec<Figure>> {
    let pid = server.pid();
    server.run(async move |kubeconfig| {
        let load = Load::prepare(&kubeconfig, pid, in_flight).await?;
        Ok(vec![
            load.create(0..objects).await?.named("create"),
            load.get(objects, GETS).await?.named("get"),
            load.list("").await?.named(&format!("list of {objects} pods")),
            load.list("?labelSelector=shard%3D5").await?.named("list of 1/97 of them by label"),
            load.status(0..objects).await?.named("status patch"),
            load.delete(0..objects).await?.named("delete"),
        ])
    })
}

/// What some operations took.
pub(crate) struct Cost {
    pub(crate) count: usize,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
}

impl Cost {
    /// Operations per second and the server's CPU for each.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(crate) fn named(&self, work: &str) -> Figure {
        let per_second = self.count as f64 / self.took.as_secs_f64();
        Figure::new(
            format!("API: {work}"),
            format!("{per_second:.0}/s, {:.3} ms of CPU each", self.cpu_ms()),
        )
    }

    /// Milliseconds of CPU per operation.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(crate) fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.count as f64
    }
}

/// A client that loads a server.
pub(crate) struct Load {
    clients: Vec<Client>,
    pid: u32,
    in_flight: usize,
}

impl Load {
    /// Connects, and makes the namespace of the load if it is not there.
    pub(crate) async fn prepare(
        kubeconfig: &Path,
        pid: u32,
        in_flight: usize,
    ) -> anyhow::Result<Self> {
        let clients: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| connect(kubeconfig)).collect();
        let load = Self { clients: clients?, pid, in_flight };
        let made = [
            ("/api/v1/namespaces", "bench"),
            // Nobody else is there to make it.
            ("/api/v1/namespaces/bench/serviceaccounts", "default"),
        ];
        for (path, name) in made {
            let body = json!({ "metadata": { "name": name } }).to_string();
            match send(&load.clients[0], Method::POST, path, body.into()).await {
                Err(error) if error.is_already_exists() => {}
                result => drop(result?),
            }
        }
        Ok(load)
    }

    /// Creates pods.
    pub(crate) async fn create(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<Cost> {
        let body = |n| Bytes::from(pod(n).to_string());
        self.each(numbers, |n| self.send(n, Method::POST, PODS.to_owned(), body(n))).await
    }

    /// Gets pods out of the first `objects`.
    pub(crate) async fn get(&self, objects: usize, count: usize) -> anyhow::Result<Cost> {
        // A prime, so that neighbours in time are no neighbours in the store.
        let path = |n: usize| format!("{PODS}/pod-{}", n * 7919 % objects);
        self.each(0..count, |n| self.send(n, Method::GET, path(n), Bytes::new())).await
    }

    /// Writes what a kubelet would.
    pub(crate) async fn status(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<Cost> {
        let condition = json!({
            "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = json!({ "phase": "Running", "podIP": "10.0.0.1", "conditions": [condition] });
        let body = Bytes::from(json!({ "status": status }).to_string());
        let path = |n| format!("{PODS}/pod-{n}/status");
        self.each(numbers, |n| self.send(n, Method::PATCH, path(n), body.clone())).await
    }

    /// Deletes pods at once.
    pub(crate) async fn delete(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<Cost> {
        let path = |n| format!("{PODS}/pod-{n}?gracePeriodSeconds=0");
        self.each(numbers, |n| self.send(n, Method::DELETE, path(n), Bytes::new())).await
    }

    /// Lists all pods, one list after the other.
    pub(crate) async fn list(&self, query: &str) -> anyhow::Result<Cost> {
        self.list_of(&format!("{PODS}{query}")).await
    }

    /// The same of any path.
    pub(crate) async fn list_of(&self, path: &str) -> anyhow::Result<Cost> {
        let alone = Self { clients: self.clients.clone(), pid: self.pid, in_flight: 1 };
        let one = |n| alone.send(n, Method::GET, path.to_owned(), Bytes::new());
        alone.each(0..LISTS, one).await
    }

    /// One of its connections.
    pub(crate) fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// One request.
    pub(crate) async fn send(
        &self,
        n: usize,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<(), ClientError> {
        send(&self.clients[n % CONNECTIONS], method, &path, body).await.map(drop)
    }

    /// A request for each number, so many at once.
    pub(crate) async fn each<F, Fut>(
        &self,
        numbers: std::ops::Range<usize>,
        one: F,
    ) -> anyhow::Result<Cost>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<(), ClientError>>,
    {
        let count = numbers.len();
        ensure!(count > 0, "nothing to measure");
        let clock = SystemClock;
        let (cpu, begun) = (process::cpu(self.pid)?, clock.monotonic());
        let mut requests = futures::stream::iter(numbers.map(one)).buffer_unordered(self.in_flight);
        while let Some(result) = requests.next().await {
            result.context("a request of the load")?;
        }
        let took = clock.monotonic().saturating_duration_since(begun);
        let cpu = process::cpu(self.pid)?.saturating_sub(cpu);
        Ok(Cost { count, took, cpu })
    }
}

/// A pod of about 3 KB that nobody schedules.
pub(crate) fn pod(n: usize) -> Value {
    let env: Vec<Value> = (0..8)
        .map(|k| json!({ "name": format!("VARIABLE_{k}"), "value": format!("value {k} of {n}") }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("pod-{n}"),
            "labels": {
                "app": "bench", "tier": format!("tier-{}", n % 7), "shard": format!("{}", n % 97),
            },
            "annotations": { "bench/description": "x".repeat(200) },
        },
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "bench:1", "env": env,
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "resources": {
                    "requests": { "cpu": "10m", "memory": "16Mi" },
                    "limits": { "cpu": "1", "memory": "64Mi" },
                },
                "livenessProbe": { "httpGet": { "path": "/healthz", "port": 8080 } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "tolerations": [{
                "key": "dedicated", "operator": "Equal", "value": "bench", "effect": "NoSchedule",
            }],
        },
    })
}
