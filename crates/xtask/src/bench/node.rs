//! A node with many pods: commands, logs, and what hundreds of pods that rest cost.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use client::Client;
use clock::{Clock, SystemClock};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::{Cluster, Options};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{Figure, megabytes, pods, process, server, wait};

const COMMANDS: usize = 200;
/// Lines of the log, and the length of each with its end.
const LINES: u64 = 5_000_000;
const LINE_BYTES: u64 = 100;
const PODS: u64 = 500;
const RESTS: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn measure(ironclad: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut options = Options::new(ironclad);
    options.args.extend(["--max-pods=600", "--node-cidr-mask-size-ipv4=22"].map(str::to_owned));
    let mut cluster = Cluster::start(options)?;
    pods::import(&cluster)?;
    let mut figures = run(&cluster, |kubeconfig, client| async move {
        pods::wait_for_account(&client).await?;
        pods::start(&client, &["target".to_owned()]).await?;
        let commands = commands(&kubeconfig).await?;
        Ok(vec![commands, log(&kubeconfig, &client).await?])
    })?;
    let (before, started, after, used) = full(&cluster)?;
    let each = megabytes(after.saturating_sub(before)) / PODS as f64;
    figures.extend([
        Figure::new(
            format!("{PODS} pods at once"),
            format!("{:.1}/s", PODS as f64 / started.as_secs_f64()),
        ),
        Figure::new(
            format!("memory of ours for each of {PODS} pods, shared pages counted once"),
            format!("{each:.2} MB, {:.0} MB in all", megabytes(after)),
        ),
        Figure::new(
            format!("CPU of ours with {PODS} pods at rest"),
            format!("{:.1} % of a core", used.as_secs_f64() / RESTS.as_secs_f64() * 100.0),
        ),
    ]);
    cluster.reset()?;
    Ok(figures)
}

fn run<T: Send + 'static, F: Future<Output = anyhow::Result<T>>>(
    cluster: &Cluster,
    work: impl FnOnce(std::path::PathBuf, Client) -> F + Send + 'static,
) -> anyhow::Result<T> {
    let kubeconfig = cluster.kubeconfig();
    cluster.host().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = server::connect(&kubeconfig)?;
            let work = work(kubeconfig, client);
            tokio::time::timeout(PATIENCE, work).await.context("it takes too long")?
        })
    })
}

/// Commands one after the other, each over a connection of its own, from its begin to its status.
async fn commands(kubeconfig: &Path) -> anyhow::Result<Figure> {
    let mut path = "/api/v1/namespaces/default/pods/target/exec?stdout=true".to_owned();
    for word in ["/testkit-pod", "print", "x"] {
        write!(path, "&command={word}")?;
    }
    let mut times = Vec::new();
    for _ in 0..COMMANDS {
        let begun = SystemClock.monotonic();
        let mut socket = testkit::websocket(kubeconfig, &path, "v5.channel.k8s.io").await?;
        let (mut output, mut status) = (Vec::new(), Vec::new());
        while let Some(message) = socket.next().await {
            let data = message?.into_data();
            match data.split_first() {
                Some((1, bytes)) => output.extend_from_slice(bytes),
                Some((3, bytes)) => {
                    status.extend_from_slice(bytes);
                    break;
                }
                _ => {}
            }
        }
        times.push(SystemClock.monotonic().duration_since(begun));
        ensure!(output == b"x\n", "the command printed {:?}", String::from_utf8_lossy(&output));
        let status: serde_json::Value = serde_json::from_slice(&status)?;
        ensure!(status["status"] == "Success", "{status}");
    }
    times.sort_unstable();
    let at = |part: usize| times[COMMANDS * part / 100].as_secs_f64() * 1e3;
    let value = format!("p50 {:.1} ms, p99 {:.1} ms of {COMMANDS}", at(50), at(99));
    Ok(Figure::new("exec, from the connection to its status", value))
}

/// A container that prints as fast as it can, followed through the API until it ends.
async fn log(kubeconfig: &Path, client: &Client) -> anyhow::Result<Figure> {
    let mut pod = pods::pod("printer");
    let words = ["/testkit-pod".into(), "lines".into(), LINES.to_string(), LINE_BYTES.to_string()];
    pod["spec"]["containers"][0]["command"] = json!(words);
    pod["spec"]["restartPolicy"] = json!("Never");
    let begun = SystemClock.monotonic();
    client.api::<Pod>("default").create(&serde_json::from_value(pod)?).await?;
    let mut next = 0;
    // Refused until the container has started.
    while next == 0 {
        next = follow(kubeconfig).await?;
    }
    let took = SystemClock.monotonic().duration_since(begun);
    ensure!(next == LINES, "{next} of {LINES} lines came");
    let bytes = (LINES * LINE_BYTES) as f64;
    let value = format!(
        "{:.0} MB/s, {LINES} lines of {LINE_BYTES} bytes, none lost",
        bytes / 1e6 / took.as_secs_f64()
    );
    Ok(Figure::new("log of a container, followed through the API", value))
}

/// How many lines came, in their order.
async fn follow(kubeconfig: &Path) -> anyhow::Result<u64> {
    let (mut stream, authority) = testkit::connect(kubeconfig).await?;
    let path = "/api/v1/namespaces/default/pods/printer/log?follow=true";
    // Of this version, what follows the headers is the log and nothing else.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    if !line.windows(5).any(|window| window == b" 200 ") {
        // The error is about a container that has not started.
        reader.read_to_end(&mut line).await.ok();
        tokio::time::sleep(Duration::from_millis(5)).await;
        return Ok(0);
    }
    while !line.is_empty() && line != b"\r\n" {
        line.clear();
        reader.read_until(b'\n', &mut line).await?;
    }
    let mut next = 0;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(next);
        }
        let number: u64 = std::str::from_utf8(&line)?.trim_end().parse()?;
        ensure!(number == next, "line {number} came where {next} should have");
        next += 1;
    }
}

/// Memory before many pods, how long they took to start, memory after, and what they use at rest.
fn full(cluster: &Cluster) -> anyhow::Result<(u64, Duration, u64, Duration)> {
    let (pid, data) = (cluster.pid().context("the cluster runs")?, cluster.data_dir());
    let before = process::proportional(pid, &data)?;
    let started = run(cluster, |_, client| async move {
        let names: Vec<String> = (0..PODS).map(|number| format!("many-{number}")).collect();
        pods::start(&client, &names).await
    })?;
    // Their last statuses and what is remembered of their start settle.
    wait(RESTS);
    let after = process::proportional(pid, &data)?;
    let used = process::cpu_of_all(pid, &data)?;
    wait(RESTS);
    Ok((before, started, after, process::cpu_of_all(pid, &data)?.saturating_sub(used)))
}
