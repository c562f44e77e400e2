//! `ironclad dns`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::command::alone::Alone;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Where to serve, on UDP and TCP.
    #[arg(long, default_value = "0.0.0.0:53")]
    bind_address: SocketAddr,
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Resolvers for all other names are read from here.
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
}

/// Runs it until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let alone = Alone::new(&args.kubeconfig, "coredns", None)?;
    let ourselves = args.bind_address.ip();
    let config = ::dns::Config {
        bind_address: args.bind_address,
        cluster_domain: args.cluster_domain,
        upstreams: ::dns::Upstreams::from_resolv_conf(&args.resolv_conf, ourselves),
    };
    let deps = ::dns::Deps {
        client: alone.client.clone(),
        clock: Arc::clone(&alone.clock),
        metrics: alone.metrics.clone(),
    };
    let (ready, _readiness) = stdx::ready::signal();
    Ok(::dns::run(config, deps, ready, alone.shutdown).await?)
}
