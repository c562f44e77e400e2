//! A kubelet among its fakes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::Client;
use kubelet::{Config, Deps, ImageGcPolicy, ImagesConfig, ManifestUrl, ServingTls};
use serde_json::{Value, json};
use stdx::shutdown::Shutdown;

use crate::api_server::ApiServer;
use crate::clock::TokioClock;
use crate::fake_runtime::FakeRuntime;

pub(crate) struct World {
    pub(crate) api: ApiServer,
    pub(crate) runtime: FakeRuntime,
    pub(crate) cidrs: Arc<Mutex<Vec<String>>>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: clock::SharedClock,
    tls: Option<(IpAddr, ServingTls)>,
    images: ImagesConfig,
    manifest_url: Option<ManifestUrl>,
    shutdown: Shutdown,
}

impl World {
    /// A kubelet that is ready. Time is tokio's, which tests pause.
    pub(crate) async fn new() -> Self {
        Self::serving(None).await
    }

    /// One with these settings for images.
    pub(crate) async fn with_images(images: ImagesConfig) -> Self {
        Self::configured(None, images).await
    }

    /// One that serves HTTPS on an address.
    pub(crate) async fn serving(tls: Option<(IpAddr, ServingTls)>) -> Self {
        Self::configured(tls, images()).await
    }

    async fn configured(tls: Option<(IpAddr, ServingTls)>, images: ImagesConfig) -> Self {
        let mut world = Self::unstarted(tls, images);
        world.start_kubelet().await;
        world
    }

    /// One with these manifests of static pods, whose API server does not answer yet.
    pub(crate) fn with_manifests(manifests: &[(&str, Value)]) -> Self {
        let mut world = Self::unstarted(None, images());
        std::fs::create_dir(world.manifest("")).unwrap();
        for (file, manifest) in manifests {
            world.write_manifest(file, manifest);
        }
        world.api.set_down(true);
        drop(world.spawn_kubelet());
        world
    }

    /// One that asks an address for static pods.
    pub(crate) async fn with_manifest_url(url: ManifestUrl) -> Self {
        let mut world = Self::unstarted(None, images());
        world.manifest_url = Some(url);
        world.start_kubelet().await;
        world
    }

    /// The path of a manifest.
    pub(crate) fn manifest(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join("manifests").join(file)
    }

    pub(crate) fn write_manifest(&self, file: &str, manifest: &Value) {
        std::fs::write(self.manifest(file), manifest.to_string()).unwrap();
    }

    fn unstarted(tls: Option<(IpAddr, ServingTls)>, images: ImagesConfig) -> Self {
        keep_mounts_private();
        let clock: clock::SharedClock = Arc::new(TokioClock::new());
        Self {
            api: ApiServer::new(),
            runtime: FakeRuntime::new(Arc::clone(&clock)),
            clock,
            cidrs: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            tls,
            images,
            manifest_url: None,
            shutdown: Shutdown::new(),
        }
    }

    async fn start_kubelet(&mut self) {
        assert!(self.spawn_kubelet().wait().await);
    }

    fn spawn_kubelet(&mut self) -> stdx::ready::Readiness {
        let (ready, readiness) = stdx::ready::signal();
        let mut config =
            Config::new("node", [192, 0, 2, 1].into(), &self.dir.path().join("kubelet"));
        config.healthz_address = None;
        config.pod_manifest_path = Some(self.manifest(""));
        config.manifest_url.clone_from(&self.manifest_url);
        config.images = self.images.clone();
        if let Some((address, tls)) = &self.tls {
            config.address = *address;
            config.tls = Some(tls.clone());
        }
        config.cgroup_mount = self.dir.path().join("cgroup");
        let cidrs = Arc::clone(&self.cidrs);
        let deps = Deps {
            client: Client::new(Arc::new(self.api.clone())),
            clock: Arc::clone(&self.clock),
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.runtime.clone()),
            network: Arc::new(self.runtime.clone()),
            on_pod_cidr: Arc::new(move |cidr| {
                cidrs.lock().unwrap().push(cidr.to_owned());
                Ok(())
            }),
            metrics: telemetry::Registry::new(),
        };
        let shutdown = self.shutdown.clone();
        drop(stdx::task::spawn("kubelet", async move {
            kubelet::run(config, deps, ready, shutdown).await.unwrap();
        }));
        readiness
    }

    /// Ends the kubelet.
    pub(crate) fn stop_kubelet(&self) {
        self.shutdown.begin();
    }

    /// Ends the kubelet and starts another one.
    pub(crate) async fn restart(&mut self) {
        self.stop_kubelet();
        self.shutdown = Shutdown::new();
        self.start_kubelet().await;
    }

    pub(crate) fn create_pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = "node".into();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": "n", "uid": format!("u-{name}"), "generation": 1 },
            "spec": spec,
            "status": { "phase": "Pending" },
        });
        self.api.put(&path(name), pod);
    }

    /// Begins the deletion as the server does.
    pub(crate) fn delete_pod(&self, name: &str, grace: i64) {
        self.api.change(&path(name), |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        });
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.api.get(&path(name))
    }

    /// The status of a condition.
    pub(crate) fn condition(&self, name: &str, kind: &str) -> String {
        let pod = self.pod(name).unwrap_or_default();
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map(|c| c["status"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Reasons and texts of all events about a pod.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.api.below("/api/v1/namespaces/n/events/");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events.iter().map(|e| format!("{}: {}", text(&e["reason"]), text(&e["message"]))).collect()
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        // With paused time this passes as fast as the tasks go.
        for _ in 0..10_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "waited for: {what}\ncalls: {:#?}\nevents: {:#?}\npods: {:#?}",
            self.runtime.calls(),
            self.events(),
            self.api.below("/api/v1/namespaces/n/pods")
        );
    }

    pub(crate) async fn until_ready(&self, name: &str) {
        self.until("the pod is ready", || self.condition(name, "Ready") == "True").await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// Images never go, however full the disk of the tests is.
pub(crate) fn images() -> ImagesConfig {
    let never = ImageGcPolicy { high_threshold_percent: 101, ..ImageGcPolicy::default() };
    ImagesConfig { gc: never, ..ImagesConfig::default() }
}

/// The kubelet mounts: in a namespace of this thread, and of those that it starts later.
fn keep_mounts_private() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/n/pods/{name}")
}

/// A spec with one container.
pub(crate) fn one(extra: Value) -> Value {
    let mut container = json!({ "name": "c", "image": "x:1", "imagePullPolicy": "IfNotPresent" });
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "containers": [container] })
}
