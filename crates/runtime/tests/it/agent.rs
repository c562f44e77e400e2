//! The agent ends and comes back.

use std::time::Duration;

use cri::{ContainerState, PodSandboxState, RuntimeService};

use crate::harness::{Node, ended, until};

fn shim_of(node: &Node) -> i32 {
    let text = node.dir.path().display().to_string();
    let mut found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(&text).then_some(pid)
    });
    found.next().unwrap()
}

#[tokio::test]
async fn a_new_agent_finds_what_the_old_one_started() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let running = node.start(&sandbox, &["line", "exit:6"], |c| c.stdin = true).await;
    let done = node.start(&sandbox, &["exit:2"], |_| {}).await;
    ended(&node.runtime, &done).await;
    let shim = shim_of(&node);

    let agent = node.reopened().await;
    assert_eq!(shim_of(&node), shim, "the shim is the same process");
    let status = agent.pod_sandbox_status(&sandbox.0).await.unwrap();
    assert_eq!(status.state, PodSandboxState::Ready);
    assert_eq!(status.ips[0].to_string(), "10.9.8.7");
    assert_eq!(agent.container_status(&done).await.unwrap().exit_code, 2);
    let found = agent.container_status(&running).await.unwrap();
    assert_eq!(found.state, ContainerState::Running);
    assert_eq!(found, node.runtime.container_status(&running).await.unwrap());
    agent.stop_container(&running, Duration::from_millis(1)).await.unwrap();
    assert_eq!(ended(&agent, &running).await.exit_code, 137);
    agent.remove_pod_sandbox(&sandbox.0).await.unwrap();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the agent must be a process that can be killed")]
async fn a_killed_agent_loses_no_container() {
    let node = Node::new().await;
    let directory = node.dir.path().join("other");
    std::fs::create_dir(&directory).unwrap();
    let mut agent = std::process::Command::new(crate::harness::FIXTURE)
        .arg("agent")
        .args([&directory, node.images()])
        .arg(&node.cgroup)
        .spawn()
        .unwrap();
    let sandboxes = directory.join("root/sandboxes");
    let state = until("the container runs", || async {
        let sandbox = std::fs::read_dir(&sandboxes).ok()?.flatten().next()?;
        let containers = std::fs::read_dir(sandbox.path().join("containers")).ok()?;
        std::fs::read_to_string(containers.flatten().next()?.path().join("state.json")).ok()
    })
    .await;
    agent.kill().unwrap();
    agent.wait().unwrap();

    let config = crate::harness::config(&directory, &node.cgroup);
    let runtime = runtime::Runtime::open(config, crate::harness::deps()).await.unwrap();
    let containers = runtime.list_containers(&Default::default()).await.unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].state, ContainerState::Running);
    let pid = state.split("\"pid\":").nth(1).unwrap().split(',').next().unwrap();
    assert!(std::path::Path::new("/proc").join(pid).exists(), "the process is the same");
    let stats = runtime.container_stats(&containers[0].id).await.unwrap();
    assert_eq!(stats.pids, Some(1));
    runtime.remove_pod_sandbox(&containers[0].pod_sandbox_id).await.unwrap();
    assert!(!std::path::Path::new("/proc").join(pid).exists());
}

#[tokio::test]
async fn containers_end_with_their_shim_and_are_not_ready() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let shim = nix::unistd::Pid::from_raw(shim_of(&node));
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    let status = ended(&node.runtime, &id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    let state = node.runtime.pod_sandbox_status(&sandbox.0).await.unwrap().state;
    assert_eq!(state, PodSandboxState::NotReady);
    let agent = node.reopened().await;
    assert_eq!(agent.container_status(&id).await.unwrap().exit_code, 255);
    node.runtime.remove_pod_sandbox(&sandbox.0).await.unwrap();
}

#[tokio::test]
async fn a_shim_that_hangs_does_not_keep_its_pod() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let shim = nix::unistd::Pid::from_raw(shim_of(&node));
    // The first agent started the shim and would reap it; the second only found it.
    let clock = std::sync::Arc::new(clock::ManualClock::new(Default::default()));
    let mut deps = crate::harness::deps();
    deps.clock = clock.clone();
    let config = crate::harness::config(node.dir.path(), &node.cgroup);
    let agent = runtime::Runtime::open(config, deps).await.unwrap();
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let ended = until("the container is lost", || async {
        clock.advance(Duration::from_secs(60));
        let status = agent.container_status(&id).await.unwrap();
        (status.state == ContainerState::Exited).then_some(status)
    });
    let (stopped, status) = tokio::join!(agent.stop_pod_sandbox(&sandbox.0), ended);
    stopped.unwrap();
    assert_eq!(status.exit_code, 255);
    agent.remove_pod_sandbox(&sandbox.0).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_removed() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let root = node.dir.path().join("root/sandboxes");
    // A crash before the record, one before the end of a sandbox's making, one in a removal.
    std::fs::create_dir_all(root.join("early/containers")).unwrap();
    let directory = root.join(sandbox.0.as_str());
    let record = std::fs::read_to_string(directory.join("sandbox.json")).unwrap();
    let unfinished = record.replace("\"complete\":true", "\"complete\":false");
    assert_ne!(record, unfinished);
    std::fs::create_dir_all(root.join("unfinished/containers")).unwrap();
    std::fs::write(root.join("unfinished/sandbox.json"), &unfinished).unwrap();
    std::fs::create_dir_all(directory.join("containers/removed/upper")).unwrap();

    let agent = node.reopened().await;
    let left: Vec<_> = std::fs::read_dir(&root).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [sandbox.0.as_str()]);
    assert!(!directory.join("containers/removed").exists());
    assert_eq!(agent.list_containers(&Default::default()).await.unwrap().len(), 1);

    // And one whose shim runs already.
    std::fs::write(directory.join("sandbox.json"), unfinished).unwrap();
    let agent = node.reopened().await;
    assert!(agent.list_pod_sandbox(&Default::default()).await.unwrap().is_empty());
    until("the first agent sees the end", || async {
        let status = node.runtime.container_status(&id).await.unwrap();
        (status.state == ContainerState::Exited).then_some(())
    })
    .await;
}
