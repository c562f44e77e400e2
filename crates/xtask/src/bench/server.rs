//! The API server alone on a host of its own, so that its CPU and memory are nobody else's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use client::{Client, ClientError, KubeConfig, Remote};
use clock::SystemClock;
use http::Method;
use testkit::Host;

/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A running `ironclad apiserver`, which goes with this value.
pub(crate) struct Server {
    host: Host,
    directory: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// Starts it on an empty directory and waits until it is ready.
    pub(crate) fn start(ironclad: &Path) -> anyhow::Result<Self> {
        let host = Host::new()?;
        let directory = tempfile::Builder::new().prefix("ironclad-bench-").tempdir()?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = testkit::command(ironclad);
        command.arg("apiserver").arg("--data-dir").arg(directory.path().join("data"));
        command.arg("--bind-address").arg(Host::ADDRESS.to_string());
        command.args(["--secure-port", "6443", "--service-cluster-ip-range", "10.43.0.0/16"]);
        command.arg("--write-kubeconfig").arg(directory.path().join("kubeconfig"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = host.run(move || command.spawn())?;
        let server = Self { host, directory, child };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a client on the server's host.
    pub(crate) fn run<T, F>(
        &self,
        work: impl FnOnce(PathBuf) -> F + Send + 'static,
    ) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        let kubeconfig = self.kubeconfig();
        self.host.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work(kubeconfig))
        })
    }

    /// Runs on the server's host.
    pub(crate) fn on_host<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.host.run(work)
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if self.run(is_ready).is_ok() {
                return Ok(());
            }
            super::wait(PAUSE);
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        bail!("the API server does not get ready:\n{log}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its directory goes too; nothing is left to lose.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

async fn is_ready(kubeconfig: PathBuf) -> anyhow::Result<()> {
    let ready = send(&connect(&kubeconfig)?, Method::GET, "/readyz", Bytes::new()).await?;
    anyhow::ensure!(ready == "ok", "not ready");
    Ok(())
}

/// A connection with the administrator's credentials.
pub(crate) fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = KubeConfig::load(kubeconfig).context("the kubeconfig")?;
    let remote = Remote::new(&config, "ironclad-bench", Arc::new(SystemClock))?;
    Ok(Client::new(Arc::new(remote)))
}

/// A request whose body, if any, is JSON or a merge patch.
pub(crate) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, ClientError> {
    let content_type = if method == Method::PATCH {
        "application/strategic-merge-patch+json"
    } else {
        "application/json"
    };
    client.request(method, path, content_type, body).await
}
