//! `cargo xtask cluster`

use std::io::IsTerminal;

use anyhow::{Context, ensure};
use testkit::{Cluster, Options};

use crate::run::{build_ironclad, say};

/// Runs `ironclad up` in network and mount namespaces of its own, and a command beside it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// Use the release build.
    #[arg(long)]
    release: bool,
    /// Image archives to load.
    #[arg(long, value_name = "FILE")]
    image: Vec<std::path::PathBuf>,
    /// Further arguments of `ironclad up`.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    up: Vec<String>,
    /// What to run on the node, with KUBECONFIG set; default: a shell.
    #[arg(last = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.nodes == 1,
        "--nodes {}: a cluster of several nodes is not supported, only one",
        args.nodes
    );
    let mut options = Options::new(build_ironclad(args.release)?);
    options.args.clone_from(&args.up);
    let mut cluster = Cluster::start(options)?;
    for image in &args.image {
        let archive =
            std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        cluster.import(&archive)?;
    }
    say(&cluster.log());
    let status = beside(&cluster, &args.command)?;
    cluster.reset()?;
    ensure!(status.success(), "the command ended with {status}");
    Ok(())
}

fn beside(cluster: &Cluster, command: &[String]) -> anyhow::Result<std::process::ExitStatus> {
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let words: Vec<String> = match command {
        [] => {
            ensure!(std::io::stdin().is_terminal(), "say what to run after --, or use a terminal");
            say("a shell on the node; leave it to remove the cluster");
            vec![shell]
        }
        words => words.to_vec(),
    };
    let (program, rest) = words.split_first().context("there is a program")?;
    let mut beside = testkit::command(program);
    beside.args(rest).env("KUBECONFIG", cluster.kubeconfig());
    beside.env("IRONCLAD_DATA_DIR", cluster.data_dir());
    if let Some(pid) = cluster.pid() {
        beside.env("IRONCLAD_PID", pid.to_string());
    }
    let printed = words.join(" ");
    let status = cluster.host().run(move || beside.status());
    status.with_context(|| format!("cannot run {printed}"))
}
