//! What a container sees and may do.

use cri::{
    KeyValue, LinuxContainerResources, Mount, NamespaceMode, RuntimeService, SecurityProfile,
};

use crate::harness::{Node, ended};

#[tokio::test]
async fn a_container_sees_its_own_processes_and_files() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let steps = ["id", "ls:/dev", "cat:/proc/sys/kernel/hostname", "write:/new=x", "cat:/new"];
    let (_, log) = node.run(&sandbox, &steps, |_| {}).await;
    assert_eq!(log[0], "stdout F 0:1");
    let devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    // Not every kernel lets its memory be read.
    assert_eq!(log[1].replace("core ", ""), format!("stdout F {devices}"));
    assert_eq!(log[2..], ["stdout F p", "stdout F written", "stdout F x"]);
    let (_, log) = node.run(&sandbox, &["cat:/new"], |_| {}).await;
    assert!(log[0].contains("No such file"), "a new container starts from the image: {log:?}");
}

#[tokio::test]
async fn what_is_read_only_or_masked_stays_so() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let steps =
        ["write:/x=1", "write:/proc/sys/kernel/shmmax=1", "cat:/proc/keys", "ls:/proc/acpi"];
    let (_, log) = node
        .run(&sandbox, &steps, |config| {
            let security = &mut config.linux.security_context;
            security.readonly_rootfs = true;
            security.masked_paths = vec!["/proc/keys".into(), "/proc/absent".into()];
            security.readonly_paths = vec!["/proc/sys".into()];
        })
        .await;
    assert!(log[0].contains("Read-only file system"), "{log:?}");
    assert!(log[1].contains("Read-only file system"), "{log:?}");
    assert_eq!(log[2], "stdout F ");
}

#[tokio::test]
async fn mounts_show_files_of_the_node() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "from the node").unwrap();
    let mount = |path: &str, readonly| Mount {
        container_path: path.into(),
        host_path: volume.display().to_string(),
        readonly,
        ..Mount::default()
    };
    let steps = ["cat:/a/file", "write:/a/b=1", "write:/data/deep/c=2"];
    let (_, log) = node
        .run(&sandbox, &steps, |config| {
            config.mounts = vec![mount("/a", true), mount("/data/deep", false)];
        })
        .await;
    assert_eq!(log[0], "stdout F from the node");
    assert!(log[1].contains("Read-only file system"), "{log:?}");
    assert_eq!(std::fs::read_to_string(volume.join("c")).unwrap(), "2");
}

#[tokio::test]
async fn an_image_can_be_mounted_whole_or_in_part() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let image = |path: &str, sub: &str| Mount {
        container_path: path.into(),
        image: Some("fixture:1".into()),
        image_sub_path: sub.into(),
        readonly: true,
        ..Mount::default()
    };
    let steps = ["ls:/whole", "ls:/part", "write:/whole/x=1"];
    let (_, log) = node
        .run(&sandbox, &steps, |config| {
            config.mounts = vec![image("/whole", ""), image("/part", "etc")];
        })
        .await;
    assert_eq!(log[..2], ["stdout F etc fixture lib lib64 tmp usr", "stdout F passwd"]);
    assert!(log[2].contains("Read-only file system"), "{log:?}");
}

#[tokio::test]
async fn a_user_of_the_image_gets_its_groups_and_loses_its_rights() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let (status, log) = node
        .run(
            &sandbox,
            &["id", "env:HOME", "env:A", "write:/x=1", "cat:/proc/self/status"],
            |config| {
                config.linux.security_context.run_as_username = "app".into();
                config.linux.security_context.no_new_privs = true;
                config.linux.security_context.seccomp = Some(SecurityProfile::default());
                config.linux.security_context.supplemental_groups = vec![77];
                config.envs = vec![KeyValue { key: "A".into(), value: "b".into() }];
            },
        )
        .await;
    assert_eq!(log[..3], ["stdout F 1000:1", "stdout F /home/app", "stdout F b"]);
    assert!(log[3].contains("Permission denied"), "{log:?}");
    assert_eq!(status.user, Some((1000, 1001, vec![77, 1001])));
    for line in
        ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb"]
    {
        assert!(log.contains(&format!("stdout F {line}")), "{line}: {log:?}");
    }
}

#[tokio::test]
async fn the_default_filter_applies_to_root_and_its_commands_too() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node
        .start(&sandbox, &["cat:/proc/self/status", "wait"], |config| {
            config.linux.security_context.seccomp = Some(SecurityProfile::default());
        })
        .await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    crate::harness::logged(&path, "stdout F Seccomp:\t2").await;
    let log = crate::harness::log_lines(&path);
    assert!(log.contains(&"stdout F NoNewPrivs:\t0".to_owned()));
    let cmd = ["/fixture", "cat:/proc/self/status", "ls:/proc/1/fd"].map(str::to_owned);
    let answer = node.runtime.exec_sync(&id, &cmd, std::time::Duration::ZERO).await.unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    assert!(text.contains("Seccomp:\t2") && text.contains("CapEff:\t00000000a80425fb"), "{text}");
    assert!(text.ends_with("\n0 1 2\n"), "no descriptor of the shim is left: {text}");
}

#[tokio::test]
async fn a_working_directory_cannot_lead_out() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    for number in 3..16 {
        let mut config = crate::harness::container("c", &["echo:out"]);
        config.metadata.attempt = number;
        config.working_dir = format!("/proc/self/fd/{number}");
        let create = node.runtime.create_container(&sandbox.0, &config, &sandbox.1);
        let id = create.await.unwrap();
        let error = node.runtime.start_container(&id).await.unwrap_err();
        assert!(error.message().contains("mkdir /proc/self/fd"), "{error}");
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_is_an_oom_kill() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let (status, _) = node
        .run(&sandbox, &["eat:64", "exit:0"], |config| {
            config.linux.resources = LinuxContainerResources {
                memory_limit_in_bytes: 16 << 20,
                cpu_shares: 512,
                cpu_quota: 50_000,
                cpu_period: 100_000,
                oom_score_adj: 900,
                ..LinuxContainerResources::default()
            };
        })
        .await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
}

/// A hierarchy of version 2 exists beside those of version 1 too; without controllers, processes
/// are still grouped, killed and kept from devices by it.
#[tokio::test]
async fn cgroups_of_version_2_group_processes_and_restrict_devices() {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
    let Some(root) = root else { return };
    let node = Node::new().await;
    let directory = node.dir.path().join("v2");
    let mut config = crate::harness::config(&directory, &node.cgroup);
    config.cgroup_root = root.to_path_buf();
    let runtime = runtime::Runtime::open(config, crate::harness::deps()).await.unwrap();
    let config = node.sandbox_config("p");
    let sandbox = runtime.run_pod_sandbox(&config).await.unwrap();
    // A device of the node that is none of the default ones: the kernel's log.
    let steps = ["write:/dev/null=x", "write:/dev/kmsg=x", "cat:/proc/self/cgroup", "wait"];
    let mut container = crate::harness::container("c", &steps);
    let kmsg = "/dev/kmsg".to_owned();
    container.devices = vec![cri::Device {
        container_path: kmsg.clone(),
        host_path: kmsg,
        permissions: "r".into(),
    }];
    let id = runtime.create_container(&sandbox, &container, &config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let path = runtime.container_status(&id).await.unwrap().log_path;
    crate::harness::logged(&path, "stdout F 0::/").await;
    let log = crate::harness::log_lines(&path);
    assert_eq!(log[0], "stdout F written");
    assert!(log[1].contains("Operation not permitted"), "{log:?}");
    let parent = root.join(&node.cgroup[1..]).join(sandbox.as_str());
    let procs = parent.join(id.as_str()).join("cgroup.procs");
    assert_eq!(std::fs::read_to_string(procs).unwrap().lines().count(), 1);
    runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(!parent.exists());
    std::fs::remove_dir(root.join(&node.cgroup[1..])).unwrap();
}

#[tokio::test]
async fn limits_change_while_the_container_runs() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node
        .start(&sandbox, &["write:/big=x", "wait"], |config| {
            config.linux.resources.memory_limit_in_bytes = 64 << 20;
        })
        .await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    crate::harness::logged(&path, "stdout F written").await;
    let more = LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
    node.runtime.update_container_resources(&id, &more).await.unwrap();
    let stats = node.runtime.container_stats(&id).await.unwrap();
    let memory = stats.memory.unwrap();
    assert_eq!(memory.available_bytes, Some((96 << 20) - memory.working_set_bytes));
    assert!(stats.cpu.unwrap().usage_core_nano_seconds > 0);
    assert_eq!(stats.pids, Some(1));
    assert!(stats.writable_layer.unwrap().used_bytes >= 4096);
}

#[tokio::test]
async fn containers_share_processes_and_memory_when_asked() {
    let node = Node::new().await;
    let mut config = node.sandbox_config("p");
    config.linux.security_context.namespace_options.pid = NamespaceMode::Pod;
    let sandbox = (node.runtime.run_pod_sandbox(&config).await.unwrap(), config);
    let share = |config: &mut cri::ContainerConfig| {
        config.linux.security_context.namespace_options.pid = NamespaceMode::Pod;
    };
    let steps = ["id", "write:/dev/shm/x=shared", "wait"];
    let first = node.start(&sandbox, &steps, share).await;
    let path = node.runtime.container_status(&first).await.unwrap().log_path;
    crate::harness::logged(&path, "stdout F written").await;
    let log = crate::harness::log_lines(&path);
    assert_eq!(log[0], "stdout F 0:2", "the pod's own process is the first");
    let second = node
        .start(&sandbox, &["cat:/dev/shm/x", "cat:/proc/2/comm"], |config| {
            share(config);
            config.log_path = "second.log".into();
        })
        .await;
    let status = ended(&node.runtime, &second).await;
    let log = crate::harness::log_lines(&status.log_path);
    assert_eq!(log, ["stdout F shared", "stdout F fixture"]);
}

#[tokio::test]
async fn the_nodes_network_and_processes_are_there_when_asked() {
    let node = Node::new().await;
    let mut config = node.sandbox_config("p");
    config.hostname.clear();
    let options = &mut config.linux.security_context.namespace_options;
    options.network = NamespaceMode::Node;
    options.pid = NamespaceMode::Node;
    let options = options.clone();
    let sandbox = (node.runtime.run_pod_sandbox(&config).await.unwrap(), config);
    assert!(node.runtime.pod_sandbox_status(&sandbox.0).await.unwrap().ips.is_empty());
    let (_, log) = node
        .run(&sandbox, &["cat:/proc/sys/kernel/hostname", "cat:/proc/self/comm"], |config| {
            config.linux.security_context.namespace_options = options;
        })
        .await;
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(log[0], format!("stdout F {}", own.trim()));
}
