//! `cargo xtask test`

use anyhow::Context;

use crate::run::{self, cargo, say};

/// Debian packages that the tests against real programs use.
const PACKAGES: [&str; 5] =
    ["nginx-light", "busybox-static", "bsdutils", "faketime", testkit::REGISTRY_PACKAGE];

/// Programs that may have come from elsewhere, and the packages they are in otherwise.
const PROGRAMS: [(&str, &str); 4] =
    [("node", "nodejs"), ("npm", "npm"), ("python3", "python3"), ("pip3", "python3-pip")];

/// The clients of other languages, from their registries.
const PYTHON_CLIENTS: [&str; 2] = ["kubernetes==36.0.3", "kopf==1.45.2"];
const JAVASCRIPT_CLIENT: &str = "@kubernetes/client-node@1.4.0";

/// Which tests to run; without any choice, unit, component and end-to-end tests.
///
/// `IRONCLAD_TEST_PODS` says how many pods come and go while the agent is killed, 200 by default;
/// `IRONCLAD_TEST_SEED` repeats the dice of a failure, which names it.
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
        install_clients()?;
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

pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        let query = testkit::command("dpkg").args(["-s", package]).output();
        if !query.is_ok_and(|output| output.status.success()) {
            missing.push(*package);
        }
    }
    for (program, package) in PROGRAMS {
        if testkit::command(program).arg("--version").output().is_err() {
            missing.push(package);
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

/// Installs the clients of other languages into the build's directory, once per version.
fn install_clients() -> anyhow::Result<()> {
    let root = testkit::real_clients();
    let python = root.join("python");
    let mark = python.join(PYTHON_CLIENTS.join(","));
    if !mark.exists() {
        say(&format!("installing {} for Python", PYTHON_CLIENTS.join(" and ")));
        let mut pip = testkit::command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&python);
        pip.args(PYTHON_CLIENTS);
        run::run(pip)?;
        std::fs::write(mark, "")?;
    }
    let javascript = root.join("javascript");
    let mark = javascript.join(JAVASCRIPT_CLIENT.replace('/', "-"));
    if !mark.exists() {
        say(&format!("installing {JAVASCRIPT_CLIENT} for Node.js"));
        std::fs::create_dir_all(&javascript)?;
        let mut npm = testkit::command("npm");
        npm.args(["install", "--silent", "--no-save", "--prefix"]).arg(&javascript);
        run::run({
            npm.arg(JAVASCRIPT_CLIENT);
            npm
        })?;
        std::fs::write(mark, "")?;
    }
    Ok(())
}

fn require_kubectl() -> anyhow::Result<()> {
    let found = testkit::command("kubectl").args(["version", "--client"]).output();
    found.map(drop).context("kubectl is not installed; it is not in Debian, so install it yourself")
}
