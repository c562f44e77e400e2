//! Parts of a cluster, each in a process of its own, that reach the API server over HTTPS.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, Credentials, KubeConfig, Remote};
use futures::StreamExt;
use http::Method;
use serde_json::Value;
use testkit::{Host, pod_image};

use crate::harness::{IRONCLAD, is_ready, pause_for};

const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);
/// Requests of one batch that are under way at once.
const AT_ONCE: usize = 16;

/// The parts on one host, which go with this value.
pub(crate) struct Parts {
    pub(crate) host: Host,
    directory: tempfile::TempDir,
    pub(crate) cgroup: String,
    running: Vec<(&'static str, Child)>,
}

/// Method, path, body.
pub(crate) type Request = (Method, String, Option<Value>);

impl Parts {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("ironclad-alone-").tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/ironclad-test-alone-{}-{number}", std::process::id());
        Self { host: Host::new().unwrap(), directory, cgroup, running: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with these arguments; what it prints is added to the part's log.
    pub(crate) fn command(&self, part: &str, args: &[&str]) -> Command {
        let mut command = testkit::command(IRONCLAD);
        let mut log = File::options();
        let log = log.create(true).append(true).open(self.path(&format!("{part}.log"))).unwrap();
        command.arg(part).args(args).env("HOME", self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    pub(crate) fn start(&mut self, part: &'static str, args: &[&str]) {
        let mut command = self.command(part, args);
        if part != "apiserver" && !args.contains(&"--kubeconfig") {
            command.arg("--kubeconfig").arg(self.path("kubeconfig"));
        }
        let child = self.host.run(move || command.spawn()).unwrap();
        self.running.push((part, child));
    }

    /// Starts a part with a kubeconfig of its own.
    pub(crate) fn start_as(&mut self, part: &'static str, kubeconfig: &str, args: &[&str]) {
        let mut command = self.command(part, args);
        command.args(["--kubeconfig", kubeconfig]);
        let child = self.host.run(move || command.spawn()).unwrap();
        self.running.push((part, child));
    }

    /// Starts the API server and waits until it is ready.
    pub(crate) fn start_api_server(&mut self) {
        self.start_api_server_with(&[]);
    }

    /// The same with further arguments.
    pub(crate) fn start_api_server_with(&mut self, further: &[&str]) {
        let path = |name: &str| self.path(name).display().to_string();
        let (server, kubeconfig) = (path("server"), path("kubeconfig"));
        let address = Host::ADDRESS.to_string();
        let mut args = vec!["--data-dir", &server, "--bind-address", &address];
        args.extend(["--secure-port", "6443", "--service-cluster-ip-range", "10.43.0.0/16"]);
        args.extend(["--write-kubeconfig", &kubeconfig]);
        args.extend(further);
        self.start("apiserver", &args);
        self.until("the API server is ready", || {
            self.request(Method::GET, "/readyz", None).filter(|body| body == "ok")
        });
    }

    /// Starts the kubelet of `node-1`.
    pub(crate) fn start_kubelet(&mut self) {
        self.start_kubelet_with(&[]);
    }

    /// The same with further arguments.
    pub(crate) fn start_kubelet_with(&mut self, further: &[&str]) {
        let (node, ca) = (self.path("node"), self.path("server/pki/ca.crt"));
        let (node, ca) = (node.display().to_string(), ca.display().to_string());
        let cgroup = self.cgroup.clone();
        let mut args = vec!["--data-dir", &node, "--hostname-override", "node-1"];
        args.extend(["--cgroup-root", &cgroup, "--client-ca-file", &ca]);
        args.extend(["--image-gc-high-threshold=100", "--eviction-hard=memory.available<100Mi"]);
        args.extend(further);
        self.start("kubelet", &args);
    }

    /// Waits for the node and gives it the tests' image.
    pub(crate) fn node_is_ready(&self) {
        self.until("the node is Ready", || {
            is_ready(&self.get("/api/v1/nodes/node-1")?).then_some(())
        });
        let archive = self.path("image.tar");
        std::fs::write(&archive, pod_image().unwrap()).unwrap();
        let mut import = self.command("image", &["import", "--data-dir"]);
        import.arg(self.path("node")).arg(&archive);
        assert!(self.host.run(move || import.status()).unwrap().success());
    }

    /// Ends a part as a crash would.
    pub(crate) fn kill(&mut self, part: &str) {
        let at = self.running.iter().position(|(running, _)| *running == part).unwrap();
        let (_, mut child) = self.running.remove(at);
        child.kill().and_then(|()| child.wait()).unwrap();
    }

    /// Runs a part to its end: whether it succeeded, and what it said so far.
    pub(crate) fn run(&self, part: &str, args: &[&str]) -> (bool, String) {
        let mut command = self.command(part, args);
        command.arg("--kubeconfig").arg(self.path("kubeconfig"));
        let status = self.host.run(move || command.status()).unwrap();
        (status.success(), self.log(part))
    }

    /// What a part said.
    pub(crate) fn log(&self, part: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{part}.log"))).unwrap_or_default()
    }

    /// Ends a part as Ctrl-C does, and waits for it: whether it succeeded.
    pub(crate) fn interrupt(&mut self, part: &str) -> bool {
        let (_, child) = self.running.iter_mut().find(|(name, _)| *name == part).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        child.wait().unwrap().success()
    }

    /// The process id of a part that runs.
    pub(crate) fn pid(&self, part: &str) -> u32 {
        self.running.iter().find(|(running, _)| *running == part).unwrap().1.id()
    }

    pub(crate) fn until<T>(&self, what: &str, ask: impl Fn() -> Option<T>) -> T {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if let Some(answer) = ask() {
                return answer;
            }
            pause_for(PAUSE);
        }
        panic!("waited for: {what}\n{}\n{}", self.describe(), self.logs());
    }

    /// What the parts that run have printed.
    pub(crate) fn logs(&self) -> String {
        let log = |(part, _): &(&str, Child)| {
            let log = std::fs::read_to_string(self.path(&format!("{part}.log")));
            format!("{part}:\n{}", log.unwrap_or_default())
        };
        self.running.iter().map(log).collect()
    }

    fn describe(&self) -> String {
        let items = |path: &str| self.get(path).map(|list| list["items"].clone());
        let pods = items("/api/v1/pods").unwrap_or_default();
        let events = items("/api/v1/events").unwrap_or_default();
        let pods = pods.as_array().into_iter().flatten();
        let pods = pods.map(|pod| format!("pod {}: {}\n", pod["metadata"]["name"], pod["status"]));
        let events = events.as_array().into_iter().flatten().map(|event| {
            let of = &event["involvedObject"]["name"];
            format!("event {of} {}: {}\n", event["reason"], event["message"])
        });
        pods.chain(events).collect()
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Bytes> {
        self.batch(vec![(method, path.to_owned(), body.cloned())]).remove(0).ok()
    }

    /// Patches an object in a form of one's own choice.
    pub(crate) fn patch(&self, content_type: &'static str, path: &str, patch: &Value) {
        let kubeconfig = self.path("kubeconfig");
        let (path, body) = (path.to_owned(), Bytes::from(patch.to_string()));
        let answer = self.host.run(move || {
            let config = KubeConfig::load(&kubeconfig).unwrap();
            let remote = Remote::new(&config, "e2e", Arc::new(clock::SystemClock)).unwrap();
            let client = Client::new(Arc::new(remote));
            block_on(client.request(Method::PATCH, &path, content_type, body))
        });
        answer.unwrap();
    }

    /// Sends requests, some of them at once, and gives the answers in their order.
    pub(crate) fn batch(&self, requests: Vec<Request>) -> Vec<Result<Bytes, ClientError>> {
        let kubeconfig = self.path("kubeconfig");
        self.host.run(move || {
            let config = match KubeConfig::load(&kubeconfig) {
                Ok(config) => config,
                // The server has not written it yet.
                Err(error) => return vec![Err(ClientError::transport(error))],
            };
            let remote = Remote::new(&config, "e2e", Arc::new(clock::SystemClock)).unwrap();
            let client = Client::new(Arc::new(remote));
            block_on(async {
                let sent = requests.into_iter().map(|(method, path, body)| {
                    let body = body.map(|body| body.to_string()).unwrap_or_default();
                    let content_type = match method {
                        Method::PATCH => "application/merge-patch+json",
                        _ => "application/json",
                    };
                    let client = client.clone();
                    async move { client.request(method, &path, content_type, body.into()).await }
                });
                futures::stream::iter(sent).buffered(AT_ONCE).collect().await
            })
        })
    }

    /// Asks another port of the host, with a token or none.
    pub(crate) fn ask(&self, port: u16, path: &str, token: &str) -> Result<Bytes, ClientError> {
        let server = format!("https://127.0.0.1:{port}");
        self.ask_server(&server, None, path, token)
    }

    /// Asks the kubelet, which shows a certificate of its own.
    pub(crate) fn ask_kubelet(&self, path: &str, token: &str) -> Result<Bytes, ClientError> {
        let authority = std::fs::read(self.path("node/kubelet/pki/kubelet.crt")).unwrap();
        self.ask_server(&format!("https://{}:10250", Host::ADDRESS), Some(authority), path, token)
    }

    fn ask_server(
        &self,
        server: &str,
        authority: Option<Vec<u8>>,
        path: &str,
        token: &str,
    ) -> Result<Bytes, ClientError> {
        let kubeconfig = self.path("kubeconfig");
        let server = server.to_owned();
        let (path, token) = (path.to_owned(), token.to_owned());
        self.host.run(move || {
            let mut config = KubeConfig::load(&kubeconfig).unwrap();
            config.server = server;
            config.certificate_authority = authority.unwrap_or(config.certificate_authority);
            config.credentials =
                if token.is_empty() { Credentials::Anonymous } else { Credentials::Token(token) };
            let remote = Remote::new(&config, "e2e", Arc::new(clock::SystemClock)).unwrap();
            let client = Client::new(Arc::new(remote));
            block_on(client.request(Method::GET, &path, "", Bytes::new()))
        })
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.request(Method::GET, path, None)?).ok()
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            child.kill().and_then(|()| child.wait()).ok();
        }
        // No pod is left to a host that goes.
        let mut reset = self.command("reset", &["--cgroup-root", &self.cgroup]);
        reset.arg("--data-dir").arg(self.path("node")).arg("--kubeconfig").arg(self.path("none"));
        let done = self.host.run(move || reset.status());
        testkit::remove_cgroup(&self.cgroup);
        if !std::thread::panicking() {
            assert!(done.unwrap().success(), "the node could not be removed: {}", self.logs());
        }
    }
}
