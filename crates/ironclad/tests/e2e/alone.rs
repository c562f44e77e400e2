//! Every part in a process of its own, against an API server reached over HTTPS.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, Credentials, KubeConfig, Remote};
use http::Method;
use serde_json::{Value, json};
use testkit::{Host, POD_IMAGE, pod_image};

use crate::harness::{IRONCLAD, is_ready, server};

const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// The parts on one host, which go with this value.
pub(crate) struct Parts {
    host: Host,
    directory: tempfile::TempDir,
    cgroup: String,
    running: Vec<(&'static str, Child)>,
}

impl Parts {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("ironclad-alone-").tempdir().unwrap();
        let cgroup = format!("/ironclad-test-alone-{}", std::process::id());
        Self { host: Host::new().unwrap(), directory, cgroup, running: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, part: &str, args: &[&str]) -> Command {
        let mut command = testkit::command(IRONCLAD);
        let log = std::fs::File::create(self.path(&format!("{part}.log"))).unwrap();
        command.arg(part).args(args).env("HOME", self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    pub(crate) fn start(&mut self, part: &'static str, args: &[&str]) {
        let mut command = self.command(part, args);
        if part != "apiserver" {
            command.arg("--kubeconfig").arg(self.path("kubeconfig"));
        }
        let child = self.host.run(move || command.spawn()).unwrap();
        self.running.push((part, child));
    }

    /// Starts the API server, on the directory `server`, and waits until it is ready.
    pub(crate) fn start_apiserver(&mut self) {
        let text = |name: &str| self.path(name).display().to_string();
        let (directory, kubeconfig) = (text("server"), text("kubeconfig"));
        self.start(
            "apiserver",
            &[
                "--data-dir",
                &directory,
                "--bind-address",
                &Host::ADDRESS.to_string(),
                "--secure-port",
                "6443",
                "--service-cluster-ip-range",
                "10.43.0.0/16",
                "--write-kubeconfig",
                &kubeconfig,
            ],
        );
        self.until("the API server is ready", || {
            self.request(Method::GET, "/readyz", None).filter(|body| body == "ok")
        });
    }

    /// Runs a part to its end: whether it succeeded, and what it said.
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

    pub(crate) fn until<T>(&self, what: &str, ask: impl Fn() -> Option<T>) -> T {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if let Some(answer) = ask() {
                return answer;
            }
            pause();
        }
        let logs = self.running.iter().map(|(part, _)| {
            let log = std::fs::read_to_string(self.path(&format!("{part}.log")));
            format!("{part}:\n{}", log.unwrap_or_default())
        });
        panic!("waited for: {what}\n{}", logs.collect::<String>());
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Bytes> {
        let kubeconfig = self.path("kubeconfig");
        let (path, body) = (path.to_owned(), body.map(ToString::to_string).unwrap_or_default());
        self.host.run(move || {
            let config = KubeConfig::load(&kubeconfig).ok()?;
            let remote = Remote::new(&config, "e2e", Arc::new(clock::SystemClock)).unwrap();
            let client = Client::new(Arc::new(remote));
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let request = client.request(method, &path, "application/json", Bytes::from(body));
            runtime.block_on(request).ok()
        })
    }

    /// Asks another port of the host, with a token or none.
    fn ask(&self, port: u16, path: &str, token: &str) -> Result<Bytes, ClientError> {
        let kubeconfig = self.path("kubeconfig");
        let (path, token) = (path.to_owned(), token.to_owned());
        self.host.run(move || {
            let mut config = KubeConfig::load(&kubeconfig).unwrap();
            config.server = format!("https://127.0.0.1:{port}");
            config.credentials =
                if token.is_empty() { Credentials::Anonymous } else { Credentials::Token(token) };
            let remote = Remote::new(&config, "e2e", Arc::new(clock::SystemClock)).unwrap();
            let client = Client::new(Arc::new(remote));
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(client.request(Method::GET, &path, "", Bytes::new()))
        })
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.request(Method::GET, path, None)?).ok()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // The kubelet is asked first, so that no pod is left to a host that goes.
        for (_, child) in &mut self.running {
            child.kill().and_then(|()| child.wait()).ok();
        }
        let mut reset = self.command("reset", &["--cgroup-root", &self.cgroup]);
        reset.arg("--data-dir").arg(self.path("node")).arg("--kubeconfig").arg(self.path("none"));
        self.host.run(move || reset.status()).ok();
        testkit::remove_cgroup(&self.cgroup);
    }
}

#[test]
fn a_cluster_of_separate_processes_runs_pods() {
    let mut parts = Parts::new();
    let (server_dir, node_dir) = (parts.path("server"), parts.path("node"));
    let cgroup = parts.cgroup.clone();
    let address = Host::ADDRESS.to_string();
    parts.start_apiserver();
    let pki = |name: &str| server_dir.join("pki").join(name).display().to_string();
    let (certificate, key) = (pki("apiserver.crt"), pki("apiserver.key"));
    parts.start(
        "controller-manager",
        &["--tls-cert-file", &certificate, "--tls-private-key-file", &key],
    );
    parts.start("scheduler", &[]);
    let ca = server_dir.join("pki/ca.crt").display().to_string();
    parts.start(
        "kubelet",
        &[
            "--data-dir",
            &node_dir.display().to_string(),
            "--hostname-override",
            "node-1",
            "--cgroup-root",
            &cgroup,
            "--client-ca-file",
            &ca,
        ],
    );
    parts.start("proxy", &["--hostname-override", "node-1"]);
    parts.start("dns", &["--bind-address", &format!("{address}:53")]);

    let archive = parts.path("image.tar");
    std::fs::write(&archive, pod_image().unwrap()).unwrap();
    parts
        .until("the node is Ready", || is_ready(&parts.get("/api/v1/nodes/node-1")?).then_some(()));
    let mut import = parts.command("image", &["import", "--data-dir"]);
    import.arg(&node_dir).arg(&archive);
    assert!(parts.host.run(move || import.status()).unwrap().success());

    let pods = "/api/v1/namespaces/default/pods";
    parts.until("the pod is created", || parts.request(Method::POST, pods, Some(&server("web"))));
    let pod =
        parts.until("the pod is Ready", || parts.get(&format!("{pods}/web")).filter(is_ready));
    assert_eq!(pod["spec"]["containers"][0]["image"], POD_IMAGE);
    let log = parts.request(Method::GET, &format!("{pods}/web/log"), None).unwrap();
    assert!(log.starts_with(b"serving on port 8080"), "{log:?}");
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" },
                  "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let services = "/api/v1/namespaces/default/services";
    let service = parts.request(Method::POST, services, Some(&service)).unwrap();
    let service: Value = serde_json::from_slice(&service).unwrap();
    let virtual_address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    // Through the API server's proxy to the pod, which asks the service, which is itself.
    let through = format!("{pods}/web:8080/proxy/fetch?{virtual_address}:80/hostname");
    parts.until("the service answers", || {
        parts.request(Method::GET, &through, None).filter(|body| body == "web")
    });
    the_controllers_tell_who_may_know(&parts);
    assert!(parts.request(Method::DELETE, &format!("{pods}/web"), None).is_some());
    parts.until("the pod is gone", || parts.get(&format!("{pods}/web")).is_none().then_some(()));
}

/// Health is told to everybody; metrics to whom the API server lets have them.
fn the_controllers_tell_who_may_know(parts: &Parts) {
    let ask = |path: &str, token: &str| parts.ask(10257, path, token);
    assert_eq!(ask("/healthz", "").unwrap(), "ok");
    let code = |path: &str, token: &str| ask(path, token).unwrap_err().status().map(|s| s.code);
    assert_eq!(code("/metrics", ""), Some(401));
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = parts.request(Method::POST, tokens, Some(&json!({ "spec": {} }))).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    assert_eq!(code("/metrics", token), Some(403));
    let binding = json!({
        "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                     "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": "default" }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    parts.request(Method::POST, bindings, Some(&binding)).unwrap();
    let metrics = parts.until("the metrics", || ask("/metrics", token).ok());
    let metrics = String::from_utf8_lossy(&metrics);
    for wanted in ["workqueue_adds_total{name=\"statefulset\"}", "running_managed_controllers"] {
        assert!(metrics.contains(wanted), "{wanted}: {metrics}");
    }
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, whose clock is real")]
fn pause() {
    std::thread::sleep(PAUSE);
}
