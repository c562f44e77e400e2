//! `cargo xtask test`

use anyhow::Context;

use crate::run::{self, cargo, say};

/// Debian packages that the tests against real programs use.
const PACKAGES: [&str; 4] = ["nginx-light", "busybox-static", "bsdutils", "faketime"];

/// Which tests to run; without any choice, unit, component and end-to-end tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests beside the code.
    #[arg(long, conflicts_with_all = ["e2e", "real"])]
    unit: bool,
    /// Only end-to-end tests: clusters in namespaces of their own.
    #[arg(long)]
    e2e: bool,
    /// Also the tests against real clients and servers; installs the Debian packages it lacks.
    #[arg(long)]
    real: bool,
    /// Only this crate.
    #[arg(short, long, value_name = "CRATE")]
    package: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.real {
        install(&PACKAGES)?;
        require_kubectl()?;
    }
    let mut words = vec!["test"];
    match &args.package {
        Some(package) => words.extend(["--package", package]),
        // The whole workspace's features also for few tests: nothing is built twice.
        None => words.push("--workspace"),
    }
    if args.unit {
        words.extend(["--lib", "--bins"]);
    }
    if args.e2e {
        words.extend(["--test", "e2e"]);
    }
    run::run(cargo(&words))?;
    if args.real {
        run::run(cargo(&["test", "--workspace", "--test", "real"]))?;
    }
    Ok(())
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        let query = testkit::command("dpkg").args(["-s", package]).output();
        if !query.is_ok_and(|output| output.status.success()) {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("installing {}", missing.join(", ")));
    let mut update = testkit::command("apt-get");
    update.args(["update", "--quiet"]);
    run::run(update)?;
    let mut install = testkit::command("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(&missing);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    // The packages' services must not start on this machine: the tests run them in pods.
    install.env("RUNLEVEL", "1");
    run::run(install)
}

fn require_kubectl() -> anyhow::Result<()> {
    let found = testkit::command("kubectl").args(["version", "--client"]).output();
    found.map(drop).context("kubectl is not installed; it is not in Debian, so install it yourself")
}
