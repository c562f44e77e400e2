//! Watches: what an event costs the server for each of those who watch.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use client::{Client, ListOptions, ResourcePath};
use clock::{Clock, SystemClock};
use futures::{StreamExt, TryStreamExt};
use http::Method;
use meta::{GroupVersionResource, ResourceVersion};
use serde_json::json;

use super::server::{Server, connect, send};
use super::{Figure, process};

/// Events that all watchers together get.
const EVENTS: usize = 600_000;
/// Writes under way at once.
const WRITERS: usize = 8;
/// Watches on one connection, below what servers allow.
const PER_CONNECTION: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Delivers the same events to so many watchers.
pub(crate) fn measure(server: &Server, watchers: usize) -> anyhow::Result<Figure> {
    let pid = server.pid();
    server.run(async move |kubeconfig| {
        let watching = deliver(&kubeconfig, pid, watchers);
        tokio::time::timeout(PATIENCE, watching).await.context("events do not arrive")?
    })
}

async fn deliver(kubeconfig: &Path, pid: u32, watchers: usize) -> anyhow::Result<Figure> {
    let writer = connect(kubeconfig)?;
    let each = EVENTS / watchers;
    let path = ResourcePath::new(GroupVersionResource::new("", "v1", "configmaps"));
    let options = ListOptions::labels("bench=watch");
    let from = writer.list_page(&path, "default", &options).await?.resource_version;
    let mut connections = Vec::new();
    for _ in 0..watchers.div_ceil(PER_CONNECTION) {
        connections.push(connect(kubeconfig)?);
    }
    let mut tasks = Vec::new();
    for n in 0..watchers {
        let client = &connections[n / PER_CONNECTION];
        tasks.push(open(client, &path, &options, (from, each)).await?);
    }
    let clock = SystemClock;
    let (cpu, begun) = (process::cpu(pid)?, clock.monotonic());
    let writes = futures::stream::iter((0..each).map(|n| {
        let body = json!({
            "metadata": { "name": format!("watched-{n}"), "labels": { "bench": "watch" } },
            "data": { "key": "v".repeat(1000) },
        });
        send(&writer, Method::POST, CONFIG_MAPS, Bytes::from(body.to_string()))
    }));
    let writing = writes.buffer_unordered(WRITERS).try_for_each(|_| std::future::ready(Ok(())));
    let (written, read) = futures::future::join(writing, futures::future::join_all(tasks)).await;
    written?;
    let events: usize = read.into_iter().sum();
    let took = clock.monotonic().saturating_duration_since(begun);
    let cpu = process::cpu(pid)?.saturating_sub(cpu);
    ensure!(events == watchers * each, "{events} events arrived");
    let all = format!("{CONFIG_MAPS}?labelSelector=bench%3Dwatch");
    send(&writer, Method::DELETE, &all, Bytes::new()).await?;
    Ok(figure(watchers, events, took, cpu))
}

/// Begins a watch; the future reads it and counts.
async fn open(
    client: &Client,
    path: &ResourcePath,
    options: &ListOptions,
    (from, each): (ResourceVersion, usize),
) -> anyhow::Result<impl Future<Output = usize> + use<>> {
    let events = client.watch(path, "default", options, from, 300).await?;
    Ok(
        async move { events.take(each).filter(|event| std::future::ready(event.is_ok())).count().await },
    )
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn figure(watchers: usize, events: usize, took: Duration, cpu: Duration) -> Figure {
    let per_second = events as f64 / took.as_secs_f64();
    let micros = cpu.as_secs_f64() * 1e6 / events as f64;
    Figure::new(
        format!("API: watch event of 1.4 KB, {watchers} watchers"),
        format!("{per_second:.0}/s, {micros:.2} µs of CPU each"),
    )
}
