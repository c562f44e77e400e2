//! `ironclad up` on a [`Host`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Host, command};

/// How long the server may take to end after a signal.
const PATIENCE_TO_END: Duration = Duration::from_secs(20);

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub ironclad: PathBuf,
    /// Further arguments of `ironclad up`.
    pub args: Vec<String>,
    /// How long it may take until it is ready: debug builds on a busy machine are slow.
    pub patience: Duration,
    /// The size of a file system of its own for the store, when it shall have one.
    pub store_bytes: Option<u64>,
    /// Further variables of the environment.
    pub env: Vec<(String, String)>,
}

impl Options {
    /// The defaults for a program.
    pub fn new(ironclad: impl Into<PathBuf>) -> Self {
        Self {
            ironclad: ironclad.into(),
            args: Vec::new(),
            patience: Duration::from_secs(60),
            store_bytes: None,
            env: Vec::new(),
        }
    }
}

/// A cluster that goes with its value: its pods, rules, files and host.
pub struct Cluster {
    host: Arc<Host>,
    options: Options,
    directory: tempfile::TempDir,
    cgroup: String,
    child: Option<Child>,
}

impl Cluster {
    /// Makes a host, starts the cluster on it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the error holds what it printed.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut cluster = Self {
            host: Arc::new(Host::new()?),
            options,
            directory: tempfile::Builder::new().prefix("ironclad-").tempdir()?,
            cgroup: format!("/ironclad-test-{}-{number}", std::process::id()),
            child: None,
        };
        cluster.mount_store()?;
        cluster.up()?;
        Ok(cluster)
    }

    fn mount_store(&self) -> anyhow::Result<()> {
        let Some(bytes) = self.options.store_bytes else { return Ok(()) };
        let store = self.store_dir();
        std::fs::create_dir_all(&store)?;
        self.host.run(move || {
            let options = format!("size={bytes},mode=700");
            mount(Some("tmpfs"), &store, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        })?;
        Ok(())
    }

    /// Where the API server's store is.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir().join("store")
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where it keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// The cgroup of its pods.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The process id of `ironclad up`.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it has printed, logs included.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts it, after a stop or a kill, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn up(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "the cluster is running");
        let log = File::create(self.log_path())?;
        let mut up = self.ironclad("up");
        up.arg("--kubeconfig").arg(self.kubeconfig());
        // However full this machine's disk is, images stay that no pod uses yet, and pods come.
        up.args(["--image-gc-high-threshold=100", "--eviction-hard=memory.available<100Mi"]);
        up.args(["--node-name", "node-1"]).args(&self.options.args);
        up.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.host.run(move || up.spawn())?);
        self.wait_until_ready()
    }

    /// Runs a program on the host, with the cluster's kubeconfig, and gives its output.
    ///
    /// # Errors
    /// When it cannot be run, or fails; the error holds what it printed.
    pub fn exec(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut command = command(program);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.scratch());
        let output = self.host.run(move || command.stdin(Stdio::null()).output())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "{program} {}: {}\n{}{}",
            args.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    /// Loads an image archive into the node.
    ///
    /// # Errors
    /// When the import fails.
    pub fn import(&self, archive: &[u8]) -> anyhow::Result<()> {
        let path = self.directory.path().join("image.tar");
        std::fs::write(&path, archive)?;
        let mut import = command(&self.options.ironclad);
        import.args(["image", "import", "--data-dir"]).arg(self.data_dir()).arg(&path);
        let output = import.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Ends the server as a crash would. Pods go on running.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Ends the server as Ctrl-C would. Pods go on running.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGINT)
    }

    /// Removes every trace, as a user would.
    ///
    /// # Errors
    /// When something is left.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.stop()?;
        }
        let mut reset = self.ironclad("reset");
        reset.arg("--kubeconfig").arg(self.kubeconfig());
        if self.options.store_bytes.is_some() {
            let store = self.store_dir();
            // A second reset finds it gone.
            self.host.run(move || umount2(&store, MntFlags::MNT_DETACH)).ok();
        }
        let output = self.host.run(move || reset.output())?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn ironclad(&self, subcommand: &str) -> Command {
        let mut ironclad = command(&self.options.ironclad);
        ironclad.arg(subcommand).arg("--data-dir").arg(self.data_dir());
        ironclad.args(["--cgroup-root", &self.cgroup]).env("HOME", self.directory.path());
        ironclad.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        ironclad
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("it was just started")?;
        let pause = Duration::from_millis(10);
        let tries = self.options.patience.as_millis() / pause.as_millis();
        for _ in 0..tries {
            let log = std::fs::read_to_string(self.directory.path().join("log"))?;
            if log.contains("\nready in ") {
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("ironclad up ended ({status}):\n{log}");
            }
            pause_for(pause);
        }
        bail!("ironclad up is not ready after {:?}:\n{}", self.options.patience, self.log())
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the cluster is not running")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let pause = Duration::from_millis(10);
        for _ in 0..PATIENCE_TO_END.as_millis() / pause.as_millis() {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            pause_for(pause);
        }
        child.kill()?;
        child.wait()?;
        bail!("ironclad up did not end within {PATIENCE_TO_END:?} of {signal}:\n{}", self.log())
    }
}

impl Drop for Cluster {
    /// Also after a failed assertion: no process, mount or cgroup may stay.
    fn drop(&mut self) {
        if std::env::var_os("IRONCLAD_TEST_KEEP_LOG").is_some() {
            std::fs::write("/tmp/ironclad-test.log", self.log()).ok();
        }
        if self.data_dir().exists()
            && let Err(error) = self.reset()
            && !std::thread::panicking()
        {
            panic!("the cluster could not be removed: {error:#}");
        }
        remove_cgroup(&self.cgroup);
    }
}

/// Removes a cgroup, such as `/x`, and those below it, of every controller. One with processes in
/// it stays.
pub fn remove_cgroup(cgroup: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let mut roots = vec![root.to_path_buf()];
    roots.extend(std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()));
    for controller in roots {
        remove_tree(&controller.join(cgroup.trim_start_matches('/')));
    }
}

/// Removes a cgroup and those below it; one with processes in it stays.
fn remove_tree(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    std::fs::remove_dir(cgroup).ok();
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, whose clock is real")]
fn pause_for(duration: Duration) {
    std::thread::sleep(duration);
}
