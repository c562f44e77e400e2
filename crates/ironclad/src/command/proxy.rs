//! `ironclad proxy`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::command::alone::Alone;
use crate::command::gates::Gates;
use crate::node_address;

/// Arguments, with upstream's names.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The network of all pods: traffic from elsewhere is masqueraded.
    #[arg(long, default_value = "10.42.0.0/16")]
    cluster_cidr: ipnet::Ipv4Net,
    /// The node's name, when it is not the host's.
    #[arg(long)]
    hostname_override: Option<String>,
    /// Where health is served.
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: SocketAddr,
    #[command(flatten)]
    gates: Gates,
}

/// Runs it until it is told to stop. Its rules stay.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let features = args.gates.read()?;
    let alone = Alone::new(&args.kubeconfig, "kube-proxy", Some(&features))?;
    let config = ::proxy::Config {
        node_name: args.hostname_override.unwrap_or_else(node_address::host_name),
        cluster_cidr: args.cluster_cidr,
        healthz_bind_address: Some(args.healthz_bind_address),
    };
    let deps = ::proxy::Deps {
        client: alone.client.clone(),
        clock: Arc::clone(&alone.clock),
        metrics: alone.metrics.clone(),
    };
    let (ready, _readiness) = stdx::ready::signal();
    Ok(::proxy::run(config, deps, ready, alone.shutdown).await?)
}
