//! A runtime in memory whose containers do what a test says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cri::*;
use futures::StreamExt;
use tokio::sync::broadcast;

/// What becomes of a pull, by image and user.
pub(crate) type Pull = Box<dyn Fn(&str, &str) -> Result<()> + Send>;

type Result<T> = std::result::Result<T, CriError>;

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<SandboxId, PodSandboxStatus>,
    containers: BTreeMap<ContainerId, (Container, ContainerStatus)>,
    configs: BTreeMap<ContainerId, ContainerConfig>,
    images: Vec<String>,
    pull: Option<Pull>,
    calls: Vec<String>,
    log_path: String,
    ip: Option<IpAddr>,
    outcomes: BTreeMap<String, i32>,
}

/// The runtime. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEvent>,
    clock: clock::SharedClock,
    /// Held by every command that hangs.
    hanging: Arc<()>,
}

impl FakeRuntime {
    pub(crate) fn new(clock: clock::SharedClock) -> Self {
        let state = State { images: vec!["x:1".into()], ..State::default() };
        let (events, hanging) = (broadcast::Sender::new(1024), Arc::default());
        Self { state: Arc::new(Mutex::new(state)), events, clock, hanging }
    }

    /// How many commands there are that hang.
    pub(crate) fn hanging(&self) -> usize {
        // Clones of the runtime hold it too, each beside the state.
        Arc::strong_count(&self.hanging) - Arc::strong_count(&self.state)
    }

    /// Calls that change something, in their order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The newest configuration of a container.
    pub(crate) fn config(&self, name: &str) -> Option<ContainerConfig> {
        let state = self.state.lock().unwrap();
        let mut of_name: Vec<_> =
            state.configs.values().filter(|config| config.metadata.name == name).collect();
        of_name.sort_by_key(|config| config.metadata.attempt);
        of_name.last().map(|config| (*config).clone())
    }

    /// What becomes of pulls from now on.
    pub(crate) fn set_pull(&self, pull: impl Fn(&str, &str) -> Result<()> + Send + 'static) {
        self.state.lock().unwrap().pull = Some(Box::new(pull));
    }

    /// An image is there.
    pub(crate) fn add_image(&self, name: &str) {
        self.state.lock().unwrap().images.push(name.to_owned());
    }

    /// Where containers made from now on have their log.
    pub(crate) fn set_log_path(&self, path: &std::path::Path) {
        self.state.lock().unwrap().log_path = path.display().to_string();
    }

    /// Sandboxes made from now on have this address.
    pub(crate) fn set_ip(&self, ip: IpAddr) {
        self.state.lock().unwrap().ip = Some(ip);
    }

    /// From now on this command ends with this code.
    pub(crate) fn set_outcome(&self, command: &str, code: i32) {
        self.state.lock().unwrap().outcomes.insert(command.to_owned(), code);
    }

    /// Ends the running container of a name.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let id = {
            let state = self.state.lock().unwrap();
            let found = state.containers.values().find(|(container, status)| {
                container.metadata.name == name && status.state == ContainerState::Running
            });
            found.map(|(container, _)| container.id.clone()).unwrap()
        };
        self.finish(&id, code);
    }

    fn finish(&self, id: &ContainerId, code: i32) {
        let now = self.clock.now();
        {
            let mut state = self.state.lock().unwrap();
            let Some((container, status)) = state.containers.get_mut(id) else { return };
            if status.state != ContainerState::Running {
                return;
            }
            container.state = ContainerState::Exited;
            status.state = ContainerState::Exited;
            status.exit_code = code;
            status.finished_at = Some(now);
            status.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        }
        self.tell(id, ContainerEventType::Stopped);
    }

    fn tell(&self, id: &ContainerId, event_type: ContainerEventType) {
        let state = self.state.lock().unwrap();
        let Some((container, _)) = state.containers.get(id) else { return };
        let sandbox = &container.pod_sandbox_id;
        let event = ContainerEvent {
            container_id: Some(id.clone()),
            pod_sandbox_id: sandbox.clone(),
            pod_uid: state.sandboxes[sandbox].metadata.uid.clone(),
            event_type,
            created_at: self.clock.now(),
        };
        self.events.send(event).ok();
    }

    fn call(&self, text: String) -> u32 {
        let mut state = self.state.lock().unwrap();
        state.calls.push(text);
        state.next += 1;
        state.next
    }

    fn name(&self, id: &ContainerId) -> String {
        let state = self.state.lock().unwrap();
        state.containers.get(id).map(|(c, _)| c.metadata.name.clone()).unwrap_or_default()
    }
}

fn unsupported<T>() -> Result<T> {
    Err(CriError::new(Code::Unimplemented, "not in the fake"))
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> Result<VersionInfo> {
        Ok(VersionInfo {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        let number = self.call(format!("run sandbox {}", config.metadata.name));
        let id = SandboxId::from(format!("s{number}"));
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: PodSandboxState::Ready,
            created_at: self.clock.now(),
            ips: vec![self.state.lock().unwrap().ip.unwrap_or([10, 0, 0, 9].into())],
            namespace_options: config.linux.security_context.namespace_options.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: String::new(),
        };
        self.state.lock().unwrap().sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.call("stop sandbox".into());
        if let Some(sandbox) = self.state.lock().unwrap().sandboxes.get_mut(id) {
            sandbox.state = PodSandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.call("remove sandbox".into());
        let mut state = self.state.lock().unwrap();
        state.sandboxes.remove(id);
        state.containers.retain(|_, (container, _)| container.pod_sandbox_id != *id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        let state = self.state.lock().unwrap();
        state.sandboxes.get(id).cloned().ok_or_else(|| CriError::not_found("sandbox"))
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = self.state.lock().unwrap();
        let all = state.sandboxes.values().map(|status| PodSandbox {
            id: status.id.clone(),
            metadata: status.metadata.clone(),
            state: status.state,
            created_at: status.created_at,
            labels: status.labels.clone(),
            annotations: status.annotations.clone(),
            runtime_handler: String::new(),
        });
        Ok(all.filter(|sandbox| filter.matches(sandbox)).collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &SandboxId,
        config: &ContainerConfig,
        _: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        let name = &config.metadata.name;
        let number = self.call(format!("create {name}"));
        let id = ContainerId::from(format!("c{number}"));
        let created_at = self.clock.now();
        let container = Container {
            id: id.clone(),
            pod_sandbox_id: sandbox_id.clone(),
            metadata: config.metadata.clone(),
            image: config.image.clone(),
            image_ref: "x@sha256:1".into(),
            image_id: "sha256:1".into(),
            state: ContainerState::Created,
            created_at,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            image: config.image.clone(),
            image_ref: "x@sha256:1".into(),
            image_id: "sha256:1".into(),
            reason: String::new(),
            message: String::new(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: self.state.lock().unwrap().log_path.clone(),
            resources: Some(config.linux.resources.clone()),
            user: None,
            stop_signal: String::new(),
        };
        let mut state = self.state.lock().unwrap();
        state.containers.insert(id.clone(), (container, status));
        state.configs.insert(id.clone(), config.clone());
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.call(format!("start {}", self.name(id)));
        {
            let mut state = self.state.lock().unwrap();
            let (container, status) = state.containers.get_mut(id).unwrap();
            container.state = ContainerState::Running;
            status.state = ContainerState::Running;
            status.started_at = Some(self.clock.now());
        }
        self.tell(id, ContainerEventType::Started);
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        self.call(format!("stop {} {}s", self.name(id), timeout.as_secs()));
        self.finish(id, if timeout.is_zero() { 137 } else { 0 });
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.state.lock().unwrap().containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let state = self.state.lock().unwrap();
        let all = state.containers.values().map(|(container, _)| container);
        Ok(all.filter(|container| filter.matches(container)).cloned().collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let state = self.state.lock().unwrap();
        let found = state.containers.get(id).map(|(_, status)| status.clone());
        found.ok_or_else(|| CriError::not_found("container"))
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        self.call(format!("resize {} to {}", self.name(id), resources.cpu_quota));
        let mut state = self.state.lock().unwrap();
        let (_, status) = state.containers.get_mut(id).unwrap();
        let present = status.resources.get_or_insert_default();
        present.cpu_quota = resources.cpu_quota;
        present.cpu_shares = resources.cpu_shares;
        Ok(())
    }

    async fn reopen_container_log(&self, _: &ContainerId) -> Result<()> {
        unsupported()
    }

    /// The command is the exit code, unless a test said otherwise.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        cmd: &[String],
        _: Duration,
    ) -> Result<ExecSyncResponse> {
        self.call(format!("exec {} {}", self.name(id), cmd.join(" ")));
        let known = self.state.lock().unwrap().outcomes.get(&cmd[0]).copied();
        Ok(ExecSyncResponse {
            exit_code: known.unwrap_or_else(|| cmd[0].parse().unwrap_or(127)),
            stdout: b"said".to_vec(),
            stderr: Vec::new(),
        })
    }

    /// Says its command, and ends with 7; `hang` reads its input and never ends.
    async fn exec(&self, _: &ContainerId, request: &ExecRequest) -> Result<ExecSession> {
        if request.cmd == ["hang"] {
            self.call("hang".to_owned());
            let held = Arc::clone(&self.hanging);
            return Ok(ExecSession {
                stdin: Some(Box::pin(tokio::io::sink())),
                stdout: None,
                stderr: None,
                resize: None,
                exit: Box::pin(async move {
                    std::future::pending::<()>().await;
                    drop(held);
                    Ok(0)
                }),
            });
        }
        let said = request.cmd.join(" ").into_bytes();
        Ok(ExecSession {
            stdin: None,
            stdout: Some(Box::pin(std::io::Cursor::new(said))),
            stderr: None,
            resize: None,
            exit: Box::pin(async { Ok(7) }),
        })
    }

    async fn attach(&self, _: &ContainerId, _: &ExecRequest) -> Result<ExecSession> {
        unsupported()
    }

    async fn port_forward(&self, _: &SandboxId, _: u16) -> Result<Box<dyn DuplexStream>> {
        unsupported()
    }

    async fn container_stats(&self, _: &ContainerId) -> Result<ContainerStats> {
        unsupported()
    }

    async fn list_container_stats(&self, _: &ContainerFilter) -> Result<Vec<ContainerStats>> {
        Ok(Vec::new())
    }

    async fn update_runtime_config(&self, _: &RuntimeConfig) -> Result<()> {
        Ok(())
    }

    async fn runtime_config(&self) -> Result<CgroupDriver> {
        Ok(CgroupDriver::Cgroupfs)
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        Ok(RuntimeStatus::default())
    }

    fn events(&self) -> EventStream {
        let events = futures::stream::unfold(self.events.subscribe(), |mut events| async move {
            events.recv().await.ok().map(|event| (Ok(event), events))
        });
        events.boxed()
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self, _: Option<&ImageSpec>) -> Result<Vec<Image>> {
        let images = self.state.lock().unwrap().images.clone();
        Ok(images.into_iter().map(|id| Image { id, size: 1 << 20, ..Image::default() }).collect())
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let present = self.state.lock().unwrap().images.contains(&image.image);
        Ok(present.then(|| Image { id: image.image.clone(), ..Image::default() }))
    }

    async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        _: Option<&PodSandboxConfig>,
    ) -> Result<String> {
        let (name, user) = (&image.image, auth.map_or("nobody", |auth| &auth.username));
        self.call(format!("pull {name} as {user}"));
        // A pull takes its time.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let mut state = self.state.lock().unwrap();
        match &state.pull {
            None => return Err(CriError::not_found(format!("no such image: {name}"))),
            Some(pull) => pull(name, user)?,
        }
        state.images.push(name.clone());
        Ok(name.clone())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        self.call(format!("remove image {}", image.image));
        self.state.lock().unwrap().images.retain(|other| *other != image.image);
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        let disk = FilesystemUsage {
            timestamp: self.clock.now(),
            mountpoint: std::env::temp_dir(),
            used_bytes: 0,
            inodes_used: 0,
        };
        Ok(ImageFsInfo { image_filesystems: vec![disk], ..ImageFsInfo::default() })
    }
}

#[async_trait]
impl PodNetwork for FakeRuntime {
    async fn attach(
        &self,
        _: &PodNetworkRequest,
    ) -> std::result::Result<Vec<IpAddr>, PodNetworkError> {
        Ok(Vec::new())
    }

    async fn detach(&self, _: &PodNetworkRequest) -> std::result::Result<(), PodNetworkError> {
        Ok(())
    }

    fn ready(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}
