//! Starting, ending, logs and what is left.

use std::time::Duration;

use clock::Clock;

use cri::{ContainerEventType, ContainerState, ImageService, PodSandboxState, RuntimeService};
use futures::StreamExt;

use crate::harness::{Node, container, ended, log_lines, logged};

#[tokio::test]
async fn a_container_runs_and_its_log_is_kept() {
    let node = Node::new().await;
    let sandbox = node.sandbox("web").await;
    let steps = ["echo:hello", "err:oops", "env:FROM", "cat:/etc/hostname", "exit:3"];
    let (status, log) = node.run(&sandbox, &steps, |_| {}).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
    assert_eq!(status.user, Some((0, 0, vec![0])));
    let stdout: Vec<_> = log.iter().filter(|line| line.starts_with("stdout")).collect();
    assert_eq!(stdout, ["stdout F hello", "stdout F image", "stdout F web"]);
    assert!(log.contains(&"stderr F oops".to_owned()));
    let status = node.runtime.pod_sandbox_status(&sandbox.0).await.unwrap();
    assert_eq!(status.state, PodSandboxState::Ready);
    assert_eq!(status.ips[0].to_string(), "10.9.8.7");
}

#[tokio::test]
async fn events_tell_the_life_of_a_container() {
    let node = Node::new().await;
    let mut events = node.runtime.events();
    let sandbox = node.sandbox("p").await;
    node.run(&sandbox, &["exit:0"], |_| {}).await;
    use ContainerEventType::{Created, Deleted, Started, Stopped};
    let mut seen = Vec::new();
    while seen.last() != Some(&Deleted) {
        let event = events.next().await.unwrap().unwrap();
        if event.container_id.is_some() {
            assert_eq!(event.pod_uid, "uid-p");
            seen.push(event.event_type);
        }
    }
    assert_eq!(seen, [Created, Started, Stopped, Deleted]);
}

#[tokio::test]
async fn stopping_asks_first_and_kills_then() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let polite = node.start(&sandbox, &["term:7"], |_| {}).await;
    let path = node.runtime.container_status(&polite).await.unwrap().log_path;
    logged(&path, "stdout F ready").await;
    node.runtime.stop_container(&polite, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended(&node.runtime, &polite).await.exit_code, 7);

    let deaf = node.start(&sandbox, &["wait"], |config| config.metadata.attempt = 1).await;
    let clock = clock::SystemClock;
    let begin = clock.monotonic();
    node.runtime.stop_container(&deaf, Duration::from_millis(300)).await.unwrap();
    assert!(clock.monotonic() - begin >= Duration::from_millis(300));
    assert_eq!(ended(&node.runtime, &deaf).await.exit_code, 137);
    node.runtime.stop_container(&deaf, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_start_error() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let mut config = container("c", &[]);
    config.command = vec!["nothing".into()];
    let id = node.runtime.create_container(&sandbox.0, &config, &sandbox.1).await.unwrap();
    let error = node.runtime.start_container(&id).await.unwrap_err().to_string();
    assert!(error.ends_with("exec: \"nothing\": executable file not found in $PATH"), "{error}");
    let status = node.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 128));
    assert_eq!(status.reason, "StartError");
    assert!(error.ends_with(&status.message));
}

#[tokio::test]
async fn an_unknown_image_or_sandbox_is_not_found() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let mut config = container("c", &[]);
    config.image = "absent".into();
    let create = node.runtime.create_container(&sandbox.0, &config, &sandbox.1).await;
    assert!(create.unwrap_err().is_not_found());
    assert!(node.runtime.pod_sandbox_status(&"x".into()).await.unwrap_err().is_not_found());
    node.runtime.remove_pod_sandbox(&"x".into()).await.unwrap();
    let again = node.runtime.run_pod_sandbox(&sandbox.1).await.unwrap_err().to_string();
    assert!(again.contains("is reserved for"), "{again}");
}

#[tokio::test]
async fn a_rotated_log_is_opened_anew() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id =
        node.start(&sandbox, &["echo:one", "line", "echo:two", "wait"], |c| c.stdin = true).await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    logged(&path, "stdout F one").await;
    let rotated = format!("{path}.1");
    std::fs::rename(&path, &rotated).unwrap();
    node.runtime.reopen_container_log(&id).await.unwrap();
    let request = cri::ExecRequest { stdin: true, ..Default::default() };
    let mut session = node.runtime.attach(&id, &request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"go\n").await.unwrap();
    logged(&path, "stdout F two").await;
    assert_eq!(log_lines(&rotated), ["stdout F one"]);
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let node = Node::new().await;
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |text: &str| text.contains(node.dir.path().to_str().unwrap());
    let sandbox = node.sandbox("p").await;
    node.start(&sandbox, &["wait"], |_| {}).await;
    assert!(!ours(&mounts()), "the node sees none of the container's mounts");
    let shims = || processes_with(node.dir.path().to_str().unwrap());
    assert_eq!(shims(), 1);
    node.runtime.remove_pod_sandbox(&sandbox.0).await.unwrap();
    assert_eq!(shims(), 0);
    assert!(!ours(&mounts()));
    for place in ["root/sandboxes", "state"] {
        assert_eq!(std::fs::read_dir(node.dir.path().join(place)).unwrap().count(), 0, "{place}");
    }
    let parents = ["memory", "pids", "."].map(|c| format!("/sys/fs/cgroup/{c}{}", node.cgroup));
    for parent in parents {
        let children = std::fs::read_dir(parent).into_iter().flatten().flatten();
        assert_eq!(children.filter(|e| e.file_type().unwrap().is_dir()).count(), 0);
    }
    assert!(node.runtime.list_containers(&Default::default()).await.unwrap().is_empty());
}

/// Processes whose command line holds `text`.
fn processes_with(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

#[tokio::test]
async fn two_pods_at_once_do_not_disturb_each_other() {
    let node = Node::new().await;
    let (a, b) = (node.sandbox("a").await, node.sandbox("b").await);
    let run = |sandbox, step| node.run(sandbox, step, |_| {});
    let (first, second) = tokio::join!(
        run(&a, &["cat:/proc/sys/kernel/hostname"]),
        run(&b, &["cat:/proc/sys/kernel/hostname"])
    );
    assert_eq!(first.1, ["stdout F a"]);
    assert_eq!(second.1, ["stdout F b"]);
}

#[tokio::test]
async fn what_a_pod_was_told_is_the_agents_alone() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let directory = node.dir.path().join("root/sandboxes").join(sandbox.0.as_str());
    let container = directory.join("containers").join(id.as_str());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    for name in ["spec.json", "container.json"] {
        assert_eq!(mode(&container.join(name)) & 0o777, 0o600, "{name}");
    }
    assert_eq!(mode(&directory.join("sandbox.json")) & 0o777, 0o600);
    assert_eq!(mode(directory.parent().unwrap()) & 0o777, 0o700);
    assert_eq!(mode(&node.dir.path().join("state")) & 0o777, 0o700);
}

#[tokio::test]
async fn images_are_answered_from_the_store() {
    let node = Node::new().await;
    let status = node.runtime.image_status(&"fixture:1".into()).await.unwrap().unwrap();
    assert_eq!(status.repo_tags, ["docker.io/library/fixture:1"]);
    let listed = node.runtime.list_images(Some(&"fixture:1".into())).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&status));
    assert_eq!(node.runtime.image_status(&"absent".into()).await.unwrap(), None);
    // Nobody listens there.
    let nowhere = "127.0.0.1:1/absent:1";
    let error = node.runtime.pull_image(&nowhere.into(), None, None).await.unwrap_err();
    let expected = format!(
        "rpc error: code = Unknown desc = failed to pull and unpack image {nowhere:?}: failed to \
         resolve reference {nowhere:?}: failed to do request: GET \"http://127.0.0.1:1/v2/absent/"
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.to_string().contains("onnection refused"), "{error}");
    node.runtime.remove_image(&"absent".into()).await.unwrap();
    let usage = node.runtime.image_fs_info().await.unwrap();
    assert!(usage.image_filesystems[0].used_bytes > status.size);
}
