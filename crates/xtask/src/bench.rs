//! `cargo xtask bench`: cold start, idle memory, pod start, a full node, and the API server alone:
//! operations, watches, what extensions cost, pulls of images, the controllers alone, and what
//! becomes of the cost when much is stored.
//!
//! Figures of one run belong together: machines differ, and so does one machine from hour to hour.
//! CPU per operation is the server's own, from the kernel's accounting.

mod api;
mod controllers;
pub(crate) mod extend;
mod node;
mod pods;
mod process;
mod pull;
mod report;
mod scale;
mod server;
mod watch;

use std::time::Duration;

use anyhow::Context;
use testkit::{Cluster, Options};

use self::server::Server;
use crate::run::{build_ironclad, say};

/// What to measure; without any choice, everything.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these: start, memory, pods, node, api, watch, extend, crowd, scale, pull, controllers.
    #[arg(value_parser = ["start", "memory", "pods", "node", "api", "watch", "extend", "crowd", "scale", "pull", "controllers"])]
    only: Vec<String>,
    /// Objects that the API operations are measured with.
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// Objects that are stored when the cost of an operation is compared with that in a small store.
    #[arg(long, default_value_t = 200_000)]
    scale: usize,
    /// Pods of the Deployment that the controllers are measured with.
    #[arg(long, default_value_t = 10_000)]
    replicas: usize,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Cold starts.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Do not write docs/performance.md.
    #[arg(long)]
    dry_run: bool,
    /// Measure this program instead of building one; for comparisons, so nothing is written.
    #[arg(long)]
    program: Option<std::path::PathBuf>,
}

/// One line of the report.
pub(crate) struct Figure {
    pub(crate) work: String,
    pub(crate) value: String,
}

impl Figure {
    /// Says it at once: all of it takes long.
    pub(crate) fn new(work: impl Into<String>, value: impl Into<String>) -> Self {
        let figure = Self { work: work.into(), value: value.into() };
        say(&format!("{:<52} {}", figure.work, figure.value));
        figure
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let wants = |what: &str| args.only.is_empty() || args.only.iter().any(|only| only == what);
    let ironclad = match &args.program {
        Some(program) => program.clone(),
        None => build_ironclad(true)?,
    };
    let mut figures = Vec::new();
    if wants("start") {
        figures.extend(cold_start(&ironclad, args.starts)?);
    }
    if wants("memory") || wants("pods") {
        let mut cluster = Cluster::start(Options::new(&ironclad))?;
        if wants("memory") {
            figures.push(idle_memory(&cluster)?);
        }
        if wants("pods") {
            figures.extend(pods::measure(&cluster)?);
        }
        cluster.reset()?;
    }
    if wants("node") {
        figures.extend(node::measure(&ironclad)?);
    }
    if wants("api") {
        let server = Server::start(&ironclad)?;
        figures.extend(api::measure(&server, args.objects, args.in_flight)?);
        let bytes = process::resident_of(server.pid())?;
        let value = format!("{:.1} MB", megabytes(bytes));
        figures.push(Figure::new("memory of the API server after these", value));
    }
    if wants("watch") {
        let server = Server::start(&ironclad)?;
        figures.push(watch::measure(&server, 300)?);
        figures.push(watch::measure(&server, 3000)?);
    }
    if wants("extend") {
        figures.extend(extend::measure(&ironclad, args.in_flight)?);
    }
    if wants("crowd") {
        figures.extend(extend::beside_a_crowd(&ironclad)?);
    }
    if wants("scale") {
        let server = Server::start(&ironclad)?;
        figures.extend(scale::measure(&server, args.scale, args.in_flight)?);
    }
    if wants("pull") {
        figures.extend(pull::measure(&ironclad)?);
    }
    if wants("controllers") {
        figures.extend(controllers::measure(&ironclad, args.replicas)?);
    }
    let size = std::fs::metadata(&ironclad).context("the binary")?.len();
    figures.push(Figure::new("release binary, stripped", format!("{:.1} MB", megabytes(size))));
    if args.dry_run || args.program.is_some() { Ok(()) } else { report::write(&figures) }
}

fn cold_start(ironclad: &std::path::Path, count: usize) -> anyhow::Result<Vec<Figure>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let mut cluster = Cluster::start(Options::new(ironclad))?;
        let log = cluster.log();
        let time = log.lines().find_map(|line| line.strip_prefix("ready in ")?.split(' ').next());
        times.push(time.context("no time was printed")?.parse::<u64>()?);
        cluster.reset()?;
    }
    times.sort_unstable();
    let value = format!(
        "median {} ms, {}–{} ms of {count}",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1]
    );
    Ok(vec![Figure::new("cold `ironclad up`, empty directory, to ready", value)])
}

fn idle_memory(cluster: &Cluster) -> anyhow::Result<Figure> {
    // What is allocated while starting has settled by then.
    wait(Duration::from_secs(20));
    memory("idle one-node cluster, sum of resident memory", cluster)
}

fn memory(work: &str, cluster: &Cluster) -> anyhow::Result<Figure> {
    let pid = cluster.pid().context("the cluster runs")?;
    let (bytes, processes) = process::resident(pid, &cluster.data_dir())?;
    Ok(Figure::new(work, format!("{:.1} MB in {processes} process(es)", megabytes(bytes))))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, whose clock is real")]
pub(crate) fn wait(duration: Duration) {
    std::thread::sleep(duration);
}
