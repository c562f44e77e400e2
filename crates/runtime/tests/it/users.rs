//! Pods whose users are not the node's.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use cri::{
    ContainerConfig, ExecRequest, IdMapping, Mount, NamespaceMode, PodSandboxConfig,
    RuntimeService, SandboxId, UserNamespace,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Node, ended, log_lines, logged};

const BASE: u32 = 3 << 16;

fn users() -> UserNamespace {
    let mapping = IdMapping { host_id: BASE, container_id: 0, length: 65536 };
    UserNamespace { uids: vec![mapping], gids: vec![mapping] }
}

async fn sandbox(node: &Node, pid: NamespaceMode) -> (SandboxId, PodSandboxConfig) {
    let mut config = node.sandbox_config("p");
    let options = &mut config.linux.security_context.namespace_options;
    options.users = Some(users());
    options.pid = pid;
    config.linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    config.linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "99".into());
    (node.runtime.run_pod_sandbox(&config).await.unwrap(), config)
}

fn mount(node: &Path, container: &str) -> Mount {
    Mount {
        host_path: node.display().to_string(),
        container_path: container.into(),
        uid_mappings: users().uids,
        gid_mappings: users().gids,
        ..Mount::default()
    }
}

#[tokio::test]
async fn root_of_a_pod_is_nobody_on_the_node() {
    let node = Node::new().await;
    let sandbox = sandbox(&node, NamespaceMode::Container).await;
    let steps = [
        "id",
        "cat:/proc/self/uid_map",
        "cat:/proc/sys/kernel/hostname",
        "write:/new=x",
        "write:/dev/null=x",
        "ls:/dev",
        "cat:/proc/sys/kernel/shm_rmid_forced",
        "cat:/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "write:/dev/stdout=again\n",
        "write:/proc/sys/kernel/printk_ratelimit=5",
        "wait",
    ];
    let id = node.start(&sandbox, &steps, |_| {}).await;
    let status = node.runtime.container_status(&id).await.unwrap();
    logged(&status.log_path, "stdout F failed: Permission denied (os error 13)").await;
    let log = log_lines(&status.log_path);
    assert_eq!(log[0], "stdout F 0:1");
    let map: Vec<&str> = log[1].split_whitespace().collect();
    assert_eq!(map, ["stdout", "F", "0", "196608", "65536"]);
    assert_eq!(log[2..5], ["stdout F p", "stdout F written", "stdout F written"]);
    let devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(log[5].replace("core ", ""), format!("stdout F {devices}"));
    assert_eq!(log[6..9], ["stdout F 1", "stdout F 99", "stdout F again"]);
    // What it is and what it writes, seen from the node.
    let shown = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!shown.contains(sandbox.0.as_str()), "nothing is mounted on the node");
    let directory = node.dir.path().join("root/sandboxes").join(sandbox.0.as_str());
    let written = directory.join("containers").join(id.as_str()).join("upper/new");
    let owner = std::fs::metadata(written).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (BASE, BASE));
    assert_eq!(node.runtime.container_stats(&id).await.unwrap().pids, Some(1));
}

#[tokio::test]
async fn volumes_have_the_owners_that_the_pod_sees() {
    let node = Node::new().await;
    let sandbox = sandbox(&node, NamespaceMode::Container).await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    for (name, owner) in [("roots", 0), ("users", 1000), ("nobodys", BASE + 70000)] {
        std::fs::write(volume.join(name), name).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(volume.join(name), mode).unwrap();
        chown(volume.join(name), Some(owner), Some(owner)).unwrap();
    }
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777)).unwrap();
    let config = |user: i64| {
        let mount = mount(&volume, "/v");
        move |config: &mut ContainerConfig| {
            config.metadata.attempt = u32::try_from(user).unwrap();
            config.mounts = vec![mount];
            config.linux.security_context.run_as_user = Some(user);
            config.linux.security_context.run_as_group = Some(user);
        }
    };
    let steps = ["cat:/v/roots", "cat:/v/users", "cat:/v/nobodys", "write:/v/new=1"];
    let (_, log) = node.run(&sandbox, &steps, config(0)).await;
    assert_eq!(log[..2], ["stdout F roots", "stdout F users"]);
    assert!(log[2].contains("Permission denied"), "{log:?}");
    assert_eq!(std::fs::metadata(volume.join("new")).unwrap().uid(), 0);
    let steps = ["cat:/v/roots", "cat:/v/users", "write:/v/new2=1"];
    let (_, log) = node.run(&sandbox, &steps, config(1000)).await;
    assert!(log[0].contains("Permission denied"), "{log:?}");
    assert_eq!(log[1], "stdout F users");
    assert_eq!(std::fs::metadata(volume.join("new2")).unwrap().gid(), 1000);
}

#[tokio::test]
async fn commands_terminals_and_shared_processes_work_among_its_users() {
    let node = Node::new().await;
    let sandbox = sandbox(&node, NamespaceMode::Pod).await;
    let pod = |config: &mut ContainerConfig| {
        config.linux.security_context.namespace_options.pid = NamespaceMode::Pod;
    };
    let id = node.start(&sandbox, &["listen:8080", "wait"], pod).await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    logged(&path, "stdout F listening").await;
    let command = ["/fixture", "cat:/proc/1/comm", "cat:/proc/self/gid_map", "exit:4"];
    let command = command.map(str::to_owned);
    let answer = node.runtime.exec_sync(&id, &command, Duration::ZERO).await.unwrap();
    let said = String::from_utf8(answer.stdout).unwrap();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["pause", "0", "196608", "65536"]);
    assert_eq!(answer.exit_code, 4);
    let mut stream = node.runtime.port_forward(&sandbox.0, 8080).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "pong");
    let request = ExecRequest {
        cmd: ["/fixture", "line", "env:TERM"].map(str::to_owned).into(),
        tty: true,
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let mut session = node.runtime.exec(&id, &request).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let mut text = String::new();
    session.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "typed\r\ntyped\r\nxterm\r\n");
    // Its end leaves nothing, and it can be run once more.
    node.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(ended(&node.runtime, &id).await.exit_code, 137);
    let steps = ["write:/proc/sys/kernel/shmmax=65536", "exit:0"];
    let (status, log) = node
        .run(&sandbox, &steps, |config| {
            pod(config);
            config.metadata.attempt = 1;
            config.log_path = "c/1.log".into();
            config.linux.security_context.readonly_paths = vec!["/proc/sys".into()];
            config.linux.security_context.masked_paths = vec!["/proc/keys".into()];
        })
        .await;
    assert_eq!(status.exit_code, 0);
    assert!(log[0].contains("Read-only file system"), "{log:?}");
}

#[tokio::test]
async fn a_mapping_of_no_pod_is_refused() {
    let node = Node::new().await;
    let sandbox = sandbox(&node, NamespaceMode::Container).await;
    let mut config = crate::harness::container("c", &["wait"]);
    let mut other = mount(node.dir.path(), "/v");
    other.uid_mappings[0].host_id += 1;
    config.mounts = vec![other];
    let refused = node.runtime.create_container(&sandbox.0, &config, &sandbox.1).await;
    assert!(refused.unwrap_err().message().contains("mappings of the pod's user namespace"));
}
