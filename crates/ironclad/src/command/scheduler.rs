//! `ironclad scheduler`

use std::path::PathBuf;
use std::sync::Arc;

use crate::command::alone::Alone;
use crate::command::election::Election;
use crate::command::gates::Gates;
use crate::command::own_port::{self, Place};

/// Where health and metrics are served: upstream's default.
const PORT: u16 = 10259;

/// Arguments, with upstream's names.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(flatten)]
    port: Place,
    #[command(flatten)]
    election: Election,
    #[command(flatten)]
    gates: Gates,
}

/// Runs it until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let features = args.gates.read()?;
    let alone = Alone::new(&args.kubeconfig, "kube-scheduler", Some(&features))?;
    own_port::start(&args.port, &alone, "kube-scheduler", PORT).await?;
    let deps = ::scheduler::Deps {
        client: alone.client.clone(),
        clock: Arc::clone(&alone.clock),
        metrics: alone.metrics.clone(),
    };
    let (ready, _readiness) = stdx::ready::signal();
    let config = ::scheduler::Config::default();
    let shutdown = alone.shutdown.clone();
    let work = async { Ok(::scheduler::run(config, deps, ready, shutdown).await?) };
    alone.lead(&args.election, "kube-scheduler", work).await
}
