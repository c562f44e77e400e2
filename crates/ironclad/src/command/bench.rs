//! `ironclad bench`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{Client, KubeConfig, Remote};
use clock::{SharedClock, SystemClock};
use stdx::shutdown::Shutdown;

use crate::bench::fleet::{Fleet, Options};
use crate::bench::node_object::{LABEL, Shape};
use crate::bench::registration;
use crate::{output, supervisor};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// The most nodes that their addresses suffice for.
const NODES_MAX: usize = 1 << 22;
/// Upstream's controllers take a node for dead after 50 s without a lease; ours too.
const LEASE_MAX: Duration = Duration::from_secs(40);

/// Arguments of `ironclad bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    load: Load,
}

#[derive(clap::Subcommand)]
enum Load {
    /// Register nodes that do not exist and pretend to run their pods, until Ctrl-C.
    ///
    /// The scheduler and the controllers take them for real ones: they renew leases, report
    /// their status, and move the pods that are bound to them through their lives. Nothing
    /// runs. In a cluster that is used, give them a taint.
    Nodes(Box<Nodes>),
}

#[derive(clap::Args)]
struct Nodes {
    /// How to reach the API server; default: $KUBECONFIG, then ~/.kube/config.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The API server's URL, when it is not the kubeconfig's.
    #[arg(long, short = 's')]
    server: Option<String>,
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// What the nodes' names begin with: PREFIX-0, PREFIX-1, ...
    #[arg(long, default_value = "simulated")]
    name_prefix: String,
    /// Labels of the nodes: key=value, separated by commas.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    /// Taints of the nodes: key=value:effect, separated by commas.
    #[arg(long, value_delimiter = ',')]
    taints: Vec<String>,
    /// Zones that the nodes are spread over; 0 for none.
    #[arg(long, default_value_t = 3)]
    zones: usize,
    /// Pods that fit on a node.
    #[arg(long, default_value_t = 110)]
    pods_per_node: usize,
    /// CPU of a node.
    #[arg(long, default_value = "32")]
    cpu: String,
    /// Memory of a node.
    #[arg(long, default_value = "256Gi")]
    memory: String,
    /// How long a pod takes from being bound to running.
    #[arg(long, default_value = "1s", value_parser = super::duration)]
    start_delay: Duration,
    /// How long pods run that end by themselves, such as those of jobs.
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    run_for: Duration,
    /// How long containers take to end when their pod is deleted, within its grace period.
    #[arg(long, default_value = "1s", value_parser = super::duration)]
    stop_delay: Duration,
    /// How many of the runs fail after --run-for, between 0 and 1; pods that are restarted always
    /// then crash and start again.
    #[arg(long, default_value_t = 0.0)]
    failure_rate: f64,
    /// How often each node renews its lease.
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    lease_interval: Duration,
    /// How often each node reports its status.
    #[arg(long, default_value = "5m", value_parser = super::duration)]
    status_interval: Duration,
    /// Requests per second; 0 for as many as the server takes.
    #[arg(long, default_value_t = 0.0)]
    qps: f64,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Leave the nodes at the end; they become NotReady.
    #[arg(long, conflicts_with = "cleanup")]
    keep: bool,
    /// Only remove the nodes of this prefix that an earlier run left.
    #[arg(long)]
    cleanup: bool,
}

/// Runs it to its end.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Load::Nodes(nodes) = args.load;
    nodes.run().await
}

impl Nodes {
    async fn run(&self) -> anyhow::Result<()> {
        let options = self.options()?;
        let clock: SharedClock = Arc::new(SystemClock);
        let client = self.connect(&clock)?;
        let shutdown = Shutdown::new();
        supervisor::stop_on_signals(&shutdown)?;
        if self.cleanup {
            return self.remove(&client).await;
        }
        let fleet = Fleet::new(options, client.clone(), Arc::clone(&clock), &shutdown);
        let worked = self.work(&fleet, &clock, &shutdown).await;
        output::line("");
        output::table(&fleet.tally.report());
        if self.keep {
            output::line(&format!("the nodes stay; remove them with {}", self.cleanup_command()));
        } else {
            self.remove(&client).await?;
        }
        worked
    }

    /// Until the shutdown, or until the nodes cannot be registered.
    async fn work(
        &self,
        fleet: &Arc<Fleet>,
        clock: &SharedClock,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let begun = clock.monotonic();
        let pods = stdx::task::spawn("simulated-pods", {
            let (fleet, shutdown) = (Arc::clone(fleet), shutdown.clone());
            async move {
                fleet.synced().await;
                fleet.run_pods(shutdown).await;
            }
        });
        // Nodes that register early must not be taken for dead before the last one has come.
        let beats = stdx::task::spawn("simulated-nodes", {
            let (fleet, shutdown) = (Arc::clone(fleet), shutdown.clone());
            async move { fleet.run_beats(shutdown).await }
        });
        let registered = fleet.register(shutdown).await;
        if registered.is_err() || shutdown.is_begun() {
            shutdown.begin();
        } else {
            let took = clock.monotonic().saturating_duration_since(begun);
            output::step(&format!("{} nodes registered", self.count), took);
            output::line("press Ctrl-C to end");
        }
        while !shutdown.is_begun() {
            tokio::select! {
                () = shutdown.begun() => {}
                () = clock.sleep(PROGRESS) => output::line(&fleet.progress()),
            }
        }
        futures::future::join_all([pods, beats]).await;
        registered
    }

    async fn remove(&self, client: &Client) -> anyhow::Result<()> {
        let removed =
            registration::remove(client, &self.name_prefix, self.in_flight).await.with_context(
                || format!("the nodes could not be removed; try {}", self.cleanup_command()),
            )?;
        output::line(&format!("{removed} nodes removed"));
        Ok(())
    }

    fn cleanup_command(&self) -> String {
        format!("ironclad bench nodes --name-prefix {} --cleanup", self.name_prefix)
    }

    fn connect(&self, clock: &SharedClock) -> anyhow::Result<Client> {
        let path = match &self.kubeconfig {
            Some(path) => path.clone(),
            None => match std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
                Some(path) => PathBuf::from(path),
                None => super::up::default_kubeconfig()?,
            },
        };
        let mut config = KubeConfig::load(&path)?;
        if let Some(server) = &self.server {
            config.server.clone_from(server);
        }
        remote(&config, &path, clock)
    }

    fn options(&self) -> anyhow::Result<Options> {
        anyhow::ensure!(
            (1..=NODES_MAX).contains(&self.count),
            "--count: must be between 1 and {NODES_MAX}"
        );
        anyhow::ensure!(
            (0.0..=1.0).contains(&self.failure_rate),
            "--failure-rate: must be between 0 and 1"
        );
        anyhow::ensure!(self.qps >= 0.0 && self.qps.is_finite(), "--qps: must not be negative");
        anyhow::ensure!(self.in_flight > 0, "--in-flight: must be at least 1");
        anyhow::ensure!(self.pods_per_node > 0, "--pods-per-node: must be at least 1");
        anyhow::ensure!(
            !self.lease_interval.is_zero() && self.lease_interval < LEASE_MAX,
            "--lease-interval: must be more than 0 and less than {} s, after which nodes are \
             taken for dead",
            LEASE_MAX.as_secs()
        );
        anyhow::ensure!(!self.status_interval.is_zero(), "--status-interval: must be more than 0");
        let shape = self.shape()?;
        Ok(Options {
            shape,
            start_delay: self.start_delay,
            run_for: self.run_for,
            stop_delay: self.stop_delay,
            failure_rate: self.failure_rate,
            lease_interval: self.lease_interval,
            status_interval: self.status_interval,
            qps: self.qps,
            in_flight: self.in_flight,
        })
    }

    fn shape(&self) -> anyhow::Result<Shape> {
        let wrong = meta::names::dns1123_label(&format!("{}-{}", self.name_prefix, self.count));
        anyhow::ensure!(
            wrong.is_empty(),
            "--name-prefix: {:?} makes no node names: {}",
            self.name_prefix,
            wrong.join(", ")
        );
        for (flag, quantity) in [("cpu", &self.cpu), ("memory", &self.memory)] {
            quantity
                .parse::<meta::Quantity>()
                .with_context(|| format!("--{flag}: {quantity:?} is not a quantity"))?;
        }
        Ok(Shape {
            prefix: self.name_prefix.clone(),
            count: self.count,
            labels: labels(&self.labels)?,
            taints: self.taints.iter().map(|text| taint(text)).collect::<Result<_, _>>()?,
            zones: self.zones,
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            pods: self.pods_per_node,
        })
    }
}

fn remote(config: &KubeConfig, path: &Path, clock: &SharedClock) -> anyhow::Result<Client> {
    let remote = Remote::new(config, "ironclad-bench", Arc::clone(clock))
        .with_context(|| format!("{} cannot be used", path.display()))?;
    Ok(Client::new(Arc::new(remote)))
}

fn labels(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| -> anyhow::Result<(String, String)> {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("--labels: {text:?} is not of the form key=value"))?;
        let wrong = meta::names::qualified_name(key);
        anyhow::ensure!(wrong.is_empty(), "--labels: {key:?}: {}", wrong.join(", "));
        anyhow::ensure!(key != LABEL, "--labels: {LABEL} says which nodes are simulated");
        Ok((key.to_owned(), value.to_owned()))
    };
    pairs.iter().map(pair).collect()
}

fn taint(text: &str) -> anyhow::Result<(String, String, String)> {
    let wrong = || format!("--taints: {text:?} is not of the form key=value:effect");
    let (pair, effect) = text.rsplit_once(':').with_context(wrong)?;
    anyhow::ensure!(
        ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect),
        "--taints: {effect:?} is no effect; there are NoSchedule, PreferNoSchedule, NoExecute"
    );
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let names = meta::names::qualified_name(key);
    anyhow::ensure!(names.is_empty(), "--taints: {key:?}: {}", names.join(", "));
    Ok((key.to_owned(), value.to_owned(), effect.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn options(flags: &[&str]) -> Result<Options, String> {
        let words = ["ironclad", "nodes"].iter().chain(flags);
        let Load::Nodes(nodes) = Cli::try_parse_from(words).map_err(|e| e.to_string())?.args.load;
        nodes.options().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_options() {
        let flags =
            ["--count", "5", "--labels", "a=b,c/d=e", "--taints", "k=v:NoSchedule,l:NoExecute"];
        let options = options(&flags).unwrap();
        assert_eq!(options.shape.count, 5);
        assert_eq!(options.shape.labels["c/d"], "e");
        assert_eq!(options.shape.taints[1], ("l".into(), String::new(), "NoExecute".into()));
    }

    #[test]
    fn wrong_flags_are_named() {
        for (flags, expected) in [
            (["--count", "0"], "--count: must be between 1"),
            (["--failure-rate", "1.5"], "--failure-rate: must be between 0 and 1"),
            (["--name-prefix", "A_B"], "--name-prefix: \"A_B\" makes no node names"),
            (["--labels", "novalue"], "--labels: \"novalue\" is not of the form key=value"),
            (["--labels", "ironclad/simulated=x"], "--labels: ironclad/simulated says which"),
            (["--taints", "a=b:Never"], "--taints: \"Never\" is no effect"),
            (["--cpu", "many"], "--cpu: \"many\" is not a quantity"),
            (["--lease-interval", "2m"], "--lease-interval: must be more than 0 and less than 40"),
            (["--qps", "NaN"], "--qps: must not be negative"),
        ] {
            let Err(error) = options(&flags) else { panic!("{flags:?} is accepted") };
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(options(&["--start-delay", "soon"]).is_err());
    }
}
