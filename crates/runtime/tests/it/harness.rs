//! A runtime in a directory of its own, and an image that holds the fixture and its libraries.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use cri::{
    ContainerConfig, ContainerId, ContainerMetadata, ContainerState, ContainerStatus,
    NamespaceMode, PodNetwork, PodNetworkError, PodNetworkRequest, PodSandboxConfig,
    PodSandboxMetadata, RuntimeService, SandboxId,
};
use image::{ImportOptions, Store};
use registry::Registry;
use runtime::{Config, Deps, Runtime, ShimCommand};

/// Long enough for a busy machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const FIXTURE: &str = env!("CARGO_BIN_EXE_runtime-fixture");

/// One store for all tests of all processes, beside the build's other files.
static IMAGES: LazyLock<Store> = LazyLock::new(|| {
    let store = Store::open(Path::new(env!("CARGO_TARGET_TMPDIR")).join("images")).unwrap();
    store.import(archive("fixture:1", &[]).as_slice(), &ImportOptions::default()).unwrap();
    // Those of earlier builds; what another process still uses is leased.
    for old in store.list().unwrap().iter().filter(|image| image.repo_tags.is_empty()) {
        store.remove(&old.id.to_string()).unwrap();
    }
    store
});

/// Makes an image of the fixture and these layers above it.
pub(crate) fn import(name: &str, above: &[Vec<u8>]) {
    IMAGES.import(archive(name, above).as_slice(), &ImportOptions::default()).unwrap();
}

/// A docker archive with the fixture and every library that this process, linked alike, maps, and
/// these layers above.
fn archive(name: &str, above: &[Vec<u8>]) -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<String> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["lib", "lib64", "usr/lib", "tmp"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer.append_data(&mut header, directory, std::io::empty()).unwrap();
    }
    for file in &files {
        let name = Path::new(file).file_name().unwrap();
        // The loader's path is fixed in the program, the others are searched for.
        let place = if name.to_string_lossy().starts_with("ld-") { "lib64" } else { "lib" };
        layer.append_path_with_name(file, Path::new(place).join(name)).unwrap();
    }
    layer.append_path_with_name(FIXTURE, "fixture").unwrap();
    let passwd = "root:x:0:0::/root:/\napp:x:1000:1001::/home/app:/\n";
    append(&mut layer, "etc/passwd", passwd.as_bytes());
    let layers = [&[layer.into_inner().unwrap()], above].concat();
    let digests: Vec<String> =
        layers.iter().map(|layer| format!("{:?}", image::Digest::of(layer).to_string())).collect();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Entrypoint":["/fixture"],"Env":["FROM=image"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        digests.join(","),
    );
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":[{name:?}],"Layers":{names:?}}}]"#);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, layer) in names.iter().zip(&layers) {
        append(&mut archive, name, layer);
    }
    append(&mut archive, "config.json", config.as_bytes());
    append(&mut archive, "manifest.json", manifest.as_bytes());
    archive.into_inner().unwrap()
}

pub(crate) fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes).unwrap();
}

/// A network that brings loopback up and nothing else.
struct Loopback;

#[async_trait]
impl PodNetwork for Loopback {
    async fn attach(&self, request: &PodNetworkRequest) -> Result<Vec<IpAddr>, PodNetworkError> {
        assert!(request.netns.exists(), "the namespace is there while it is connected");
        let netns = request.netns.clone();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_ne!(std::fs::read_link(&netns).unwrap(), own);
        std::thread::spawn(move || loopback_up(&netns)).join().unwrap();
        Ok(vec![IpAddr::from([10, 9, 8, 7])])
    }

    async fn detach(&self, _: &PodNetworkRequest) -> Result<(), PodNetworkError> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// On a thread of its own, because it never comes back from the namespace.
#[expect(unsafe_code, reason = "setting an interface up has no safe form")]
fn loopback_up(netns: &Path) {
    let namespace = std::fs::File::open(netns).unwrap();
    nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")
        .or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))
        .unwrap();
    // SAFETY: an all-zero request is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap();
    use std::os::fd::AsRawFd;
    // SAFETY: the socket is open and the request lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// A runtime with everything that is its own.
pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroup: String,
}

pub(crate) fn deps() -> Deps {
    let clock: clock::SharedClock = Arc::new(clock::SystemClock);
    Deps {
        images: IMAGES.clone(),
        registry: Registry::new(Default::default(), IMAGES.clone(), Arc::clone(&clock)),
        network: Arc::new(Loopback),
        clock,
    }
}

pub(crate) fn config(dir: &Path, cgroup: &str) -> Config {
    Config {
        root_dir: dir.join("root"),
        state_dir: dir.join("state"),
        cgroup_root: PathBuf::from("/sys/fs/cgroup"),
        cgroup_default: cgroup.to_owned(),
        shim: ShimCommand { program: FIXTURE.into(), args: vec!["shim".into()] },
    }
}

impl Node {
    pub(crate) async fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/ironclad-test-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(config(dir.path(), &cgroup), deps()).await.unwrap();
        Self { runtime, dir, cgroup }
    }

    /// Where the images of all tests are.
    pub(crate) fn images(&self) -> &'static Path {
        IMAGES.dir()
    }

    /// The same directories, opened again.
    pub(crate) async fn reopened(&self) -> Runtime {
        Runtime::open(config(self.dir.path(), &self.cgroup), deps()).await.unwrap()
    }

    pub(crate) async fn sandbox(&self, name: &str) -> (SandboxId, PodSandboxConfig) {
        let config = self.sandbox_config(name);
        (self.runtime.run_pod_sandbox(&config).await.unwrap(), config)
    }

    pub(crate) fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        let mut config = PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            },
            hostname: name.into(),
            log_directory: self.dir.path().join("logs").join(name).display().to_string(),
            ..PodSandboxConfig::default()
        };
        config.linux.security_context.namespace_options.pid = NamespaceMode::Container;
        config
    }

    /// Makes a container with this change to its configuration, and starts it.
    pub(crate) async fn start(
        &self,
        sandbox: &(SandboxId, PodSandboxConfig),
        steps: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> ContainerId {
        let mut config = container("c", steps);
        change(&mut config);
        let id = self.runtime.create_container(&sandbox.0, &config, &sandbox.1).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a container to its end and answers what it wrote, without times.
    pub(crate) async fn run(
        &self,
        sandbox: &(SandboxId, PodSandboxConfig),
        steps: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (ContainerStatus, Vec<String>) {
        let id = self.start(sandbox, steps, change).await;
        let status = ended(&self.runtime, &id).await;
        let log = log_lines(&status.log_path);
        self.runtime.remove_container(&id).await.unwrap();
        std::fs::remove_file(&status.log_path).unwrap();
        (status, log)
    }
}

impl Drop for Node {
    /// Also after a failed assertion: no process and no cgroup may stay.
    fn drop(&mut self) {
        let runtime = self.runtime.clone();
        let cleaned = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
            executor.unwrap().block_on(async {
                for sandbox in runtime.list_pod_sandbox(&Default::default()).await.unwrap() {
                    runtime.remove_pod_sandbox(&sandbox.id).await.unwrap();
                }
            });
        });
        let cleaned = cleaned.join();
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            std::fs::remove_dir(controller.path().join(&self.cgroup[1..])).ok();
        }
        std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.cgroup[1..])).ok();
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

pub(crate) fn container(name: &str, steps: &[&str]) -> ContainerConfig {
    let mut config = ContainerConfig {
        metadata: ContainerMetadata { name: name.into(), attempt: 0 },
        image: "fixture:1".into(),
        args: steps.iter().map(|step| (*step).to_owned()).collect(),
        log_path: format!("{name}/0.log"),
        ..ContainerConfig::default()
    };
    config.linux.security_context.namespace_options.pid = NamespaceMode::Container;
    config
}

pub(crate) async fn ended(runtime: &Runtime, id: &ContainerId) -> ContainerStatus {
    until("the container ends", || async {
        let status = runtime.container_status(id).await.unwrap();
        (status.state == ContainerState::Exited).then_some(status)
    })
    .await
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited for: {what}"))
}

/// The lines of a log after their times.
pub(crate) fn log_lines(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

pub(crate) async fn logged(path: &str, line: &str) {
    until(line, || async { log_lines(path).iter().any(|l| l == line).then_some(()) }).await;
}
