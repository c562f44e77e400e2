//! Containers that mean no good to whoever looks after them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::{NamespaceMode, RuntimeService, SandboxId};

use crate::harness::{Node, PATIENCE, ended, log_lines, until};

/// What a shim may take of memory, in kibibytes: it is this very program, and keeps one buffer.
const SHIM_KIB_MAX: u64 = 48 << 10;

/// The most memory that the shim of a sandbox ever had, in kibibytes.
fn peak_of_shim(node: &Node, id: &SandboxId) -> u64 {
    let directory = node.dir.path().join("root/sandboxes").join(id.as_str());
    let is_shim = |process: &PathBuf| {
        let words = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        words.split('\0').nth(2).is_some_and(|word| Path::new(word) == directory)
    };
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let status = std::fs::read_to_string(processes.find(is_shim).unwrap().join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_line_without_end_is_logged_in_parts_and_takes_no_memory() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let (status, log) = node.run(&sandbox, &["flood:1", "echo:end"], |_| {}).await;
    assert_eq!(status.exit_code, 0);
    let part = format!("stdout P {}", "x".repeat(16 << 10));
    assert_eq!(log.len(), 65);
    assert!(log[..64].iter().all(|line| *line == part));
    assert_eq!(log[64], "stdout F end");

    // What a gigabyte does to the disk is for the log's rotation.
    let logs = node.dir.path().join("logs/p/large");
    std::fs::create_dir_all(&logs).unwrap();
    std::os::unix::fs::symlink("/dev/null", logs.join("0.log")).unwrap();
    let large = |config: &mut cri::ContainerConfig| {
        config.metadata.name = "large".into();
        config.log_path = "large/0.log".into();
    };
    let id = node.start(&sandbox, &["flood:1024"], large).await;
    assert_eq!(ended(&node.runtime, &id).await.exit_code, 0);
    let peak = peak_of_shim(&node, &sandbox.0);
    assert!(peak < SHIM_KIB_MAX, "{peak} KiB");
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_its_end_up() {
    let node = Node::new().await;
    let mut config = node.sandbox_config("p");
    config.linux.security_context.namespace_options.pid = NamespaceMode::Pod;
    let sandbox = (node.runtime.run_pod_sandbox(&config).await.unwrap(), config);
    for (attempt, pid) in [(0, NamespaceMode::Container), (1, NamespaceMode::Pod)] {
        let id = node
            .start(&sandbox, &["orphan", "echo:done", "exit:3"], |config| {
                config.metadata.attempt = attempt;
                config.linux.security_context.namespace_options.pid = pid;
            })
            .await;
        let status = ended(&node.runtime, &id).await;
        assert_eq!(status.exit_code, 3);
        assert_eq!(log_lines(&status.log_path).last().unwrap(), "stdout F done");
        let cgroup = Path::new("/sys/fs/cgroup/pids").join(&node.cgroup[1..]);
        let procs = cgroup.join(sandbox.0.as_str()).join(id.as_str()).join("cgroup.procs");
        until("the process that was left has ended", || async {
            let left = std::fs::read_to_string(&procs).unwrap_or_default();
            left.is_empty().then_some(())
        })
        .await;
        std::fs::remove_file(&status.log_path).unwrap();
    }
}

#[tokio::test]
async fn a_command_ends_though_what_it_left_has_its_streams() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let command = ["/fixture", "orphan", "echo:hi", "exit:4"].map(str::to_owned);
    let running = node.runtime.exec_sync(&id, &command, Duration::ZERO);
    let answer = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert_eq!(answer.exit_code, 4);
    assert!(String::from_utf8(answer.stdout).unwrap().ends_with("\nhi\n"));
    // What is too much of a command is not kept.
    let command = ["/fixture", "flood:64"].map(str::to_owned);
    let answer = node.runtime.exec_sync(&id, &command, Duration::ZERO).await.unwrap();
    assert_eq!(answer.stdout.len(), 16 << 20);
}
