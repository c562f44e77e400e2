//! Exec, attach and forwarded ports.

use std::time::Duration;

use cri::{Code, ExecRequest, RuntimeService, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Node, PATIENCE, ended, logged};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn a_command_runs_inside_the_container() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["write:/mark=inside", "echo:up", "wait"], |_| {}).await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    logged(&path, "stdout F up").await;
    let cmd = words(&["/fixture", "cat:/mark", "err:no", "cat:/proc/1/comm", "exit:4"]);
    let answer = node.runtime.exec_sync(&id, &cmd, Duration::ZERO).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "inside\nfixture\n");
    assert_eq!((answer.stderr, answer.exit_code), (b"no\n".to_vec(), 4));

    let error = node.runtime.exec_sync(&id, &words(&["absent"]), PATIENCE).await.unwrap_err();
    assert!(error.message().contains("executable file not found in $PATH"), "{error}");
    let slow = words(&["/fixture", "wait"]);
    let late = node.runtime.exec_sync(&id, &slow, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    crate::harness::until("the command is killed", || async {
        let stats = node.runtime.container_stats(&id).await.unwrap();
        (stats.pids == Some(1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn input_reaches_a_command_and_ends() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let request = ExecRequest {
        cmd: words(&["/fixture", "input"]),
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let mut session = node.runtime.exec(&id, &request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"ping").await.unwrap();
    drop(stdin);
    let mut text = String::new();
    session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), session.exit.await.unwrap()), ("ping\n", 0));
}

#[tokio::test]
async fn a_terminal_echoes_and_can_be_resized() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["wait"], |_| {}).await;
    let request = ExecRequest {
        cmd: words(&["/fixture", "line", "env:TERM"]),
        tty: true,
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let mut session = node.runtime.exec(&id, &request).await.unwrap();
    let size = TerminalSize { width: 100, height: 40 };
    session.resize.as_ref().unwrap().send(size).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let mut text = String::new();
    session.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "typed\r\ntyped\r\nxterm\r\n");
    assert_eq!(session.exit.await.unwrap(), 0);
}

#[tokio::test]
async fn attaching_connects_to_the_containers_own_streams() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node
        .start(&sandbox, &["line", "input", "err:bye", "exit:5"], |config| {
            config.stdin = true;
            config.stdin_once = true;
        })
        .await;
    let request = ExecRequest { stdin: true, stdout: true, stderr: true, ..ExecRequest::default() };
    let mut session = node.runtime.attach(&id, &request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo").await.unwrap();
    // The container was told that its input ends with the first client.
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    session.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("one\ntwo\n", "bye\n"));
    assert_eq!(session.exit.await.unwrap(), 5);
}

#[tokio::test]
async fn a_container_with_a_terminal_logs_what_it_shows() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node
        .start(&sandbox, &["echo:ready", "line", "exit:0"], |config| {
            config.tty = true;
            config.stdin = true;
        })
        .await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    logged(&path, "stdout F ready").await;
    let request = ExecRequest { stdin: true, stdout: true, tty: true, ..ExecRequest::default() };
    let mut session = node.runtime.attach(&id, &request).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hi\n").await.unwrap();
    let mut text = String::new();
    session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi\r\nhi\r\n");
    assert_eq!(ended(&node.runtime, &id).await.exit_code, 0);
}

#[tokio::test]
async fn a_port_of_the_pod_can_be_reached() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, &["listen:8080"], |_| {}).await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    logged(&path, "stdout F listening").await;
    let mut stream = node.runtime.port_forward(&sandbox.0, 8080).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "pong");
    let refused = node.runtime.port_forward(&sandbox.0, 9).await.err().unwrap();
    assert!(refused.message().contains("failed to connect to localhost:9"), "{refused}");
}
