//! The command line.

mod up;

mod apiserver;
mod controller_manager;
mod dns;
mod kubelet;
mod own_port;
mod proxy;
mod scheduler;

mod alone;
mod auditing;
mod gates;
mod images;
mod joining;
mod static_pods;

mod bench;
mod doctor;
mod election;
mod image;
mod reset;

use clap::{Parser, Subcommand};

/// Kubernetes in one binary.
#[derive(Parser)]
#[command(name = "ironclad", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What is logged: a level such as `info`, or directives such as `kubelet=debug`.
    #[arg(long, global = true, default_value = "warn", value_name = "FILTER")]
    log: String,
    /// How log lines look.
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    logging_format: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a one-node cluster in the foreground.
    Up(Box<up::Args>),
    /// Remove every trace of a cluster from this host.
    Reset(reset::Args),
    /// Check whether this host can run a node.
    Doctor,
    /// Put load on a cluster.
    Bench(bench::Args),
    /// Work with the images of this node.
    Image(image::Args),
    /// Run the API server alone, with its store embedded.
    Apiserver(Box<apiserver::Args>),
    /// Run the controllers alone.
    ControllerManager(Box<controller_manager::Args>),
    /// Run the scheduler alone.
    Scheduler(scheduler::Args),
    /// Run the node agent alone.
    Kubelet(Box<kubelet::Args>),
    /// Run the service proxy alone.
    Proxy(proxy::Args),
    /// Run cluster DNS alone.
    Dns(dns::Args),
}

/// A duration as Go writes it.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let nanos = meta::time::parse_duration(text)?;
    u64::try_from(nanos)
        .map(std::time::Duration::from_nanos)
        .map_err(|_| "it is negative".to_owned())
}

/// Runs a command to its end.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let format = match cli.logging_format.as_str() {
        "json" => telemetry::Format::Json,
        _ => telemetry::Format::Text,
    };
    telemetry::init(format, &cli.log);
    match cli.command {
        Command::Up(args) => block_on(up::run(*args)),
        Command::Reset(args) => block_on(reset::run(args)),
        Command::Bench(args) => block_on(bench::run(args)),
        Command::Doctor => doctor::run(),
        Command::Image(args) => image::run(args),
        Command::Apiserver(args) => block_on(apiserver::run(*args)),
        Command::ControllerManager(args) => block_on(controller_manager::run(*args)),
        Command::Scheduler(args) => block_on(scheduler::run(args)),
        Command::Kubelet(args) => block_on(kubelet::run(*args)),
        Command::Proxy(args) => block_on(proxy::run(args)),
        Command::Dns(args) => block_on(dns::run(args)),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ironclad")
        .build()?
        .block_on(work)
}
