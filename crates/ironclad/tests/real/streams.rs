//! `kubectl logs`, `exec`, `attach`, `cp` and `port-forward`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{Harness, pod};
use crate::images;

fn start() -> Harness {
    let harness = Harness::start();
    harness.cluster.import(&images::busybox()).unwrap();
    let mut shell = pod("shell", &[]);
    let container = &mut shell["spec"]["containers"][0];
    container["image"] = json!("busybox:1");
    container["command"] =
        json!(["sh", "-c", "n=0; while true; do echo line $n; n=$((n+1)); sleep 1; done"]);
    harness.create("pods", &shell);
    harness.ready_pod("shell");
    harness
}

fn kubectl(harness: &Harness, args: &[&str]) -> Command {
    let mut command = testkit::command("kubectl");
    command.args(args).env("KUBECONFIG", harness.cluster.kubeconfig());
    command.env("HOME", harness.cluster.scratch());
    command
}

fn spawn(harness: &Harness, mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    harness.cluster.host().run(move || command.spawn()).unwrap()
}

fn first_lines(child: &mut Child, count: usize) -> Vec<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    out.lines().take(count).map(Result::unwrap).collect()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn logs_are_followed() {
    let harness = start();
    let mut logs = spawn(&harness, kubectl(&harness, &["logs", "-f", "shell"]));
    assert_eq!(first_lines(&mut logs, 3), ["line 0", "line 1", "line 2"]);
    end(logs);
    let tail = harness.cluster.exec("kubectl", &["logs", "shell", "--tail=1"]).unwrap();
    assert_eq!(tail.lines().count(), 1);
}

#[test]
fn exec_passes_input_output_and_the_exit_code() {
    let harness = start();
    let exec = |args: &[&str]| {
        let mut words = vec!["exec", "shell", "--"];
        words.extend(args);
        harness.cluster.exec("kubectl", &words)
    };
    assert_eq!(exec(&["echo", "hello"]).unwrap(), "hello\n");
    let failed = exec(&["sh", "-c", "echo bad >&2; exit 3"]).unwrap_err().to_string();
    assert!(failed.contains("exit status: 3") && failed.contains("bad"), "{failed}");
    let mut cat = spawn(&harness, kubectl(&harness, &["exec", "-i", "shell", "--", "cat"]));
    cat.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let mut out = String::new();
    cat.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((out.as_str(), cat.wait().unwrap().success()), ("through\n", true));
    // A terminal, which `script` stands for.
    let mut terminal = testkit::command("script");
    terminal.args(["-qec", "kubectl exec -it shell -- tty", "/dev/null"]);
    terminal.env("KUBECONFIG", harness.cluster.kubeconfig()).stdin(Stdio::null());
    let output = harness.cluster.host().run(move || terminal.output()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("/dev/pts/"), "{text}");
}

#[test]
fn attach_shows_what_the_container_prints() {
    let harness = start();
    let mut attach = spawn(&harness, kubectl(&harness, &["attach", "shell"]));
    let lines = first_lines(&mut attach, 2);
    assert!(lines.iter().all(|line| line.starts_with("line ")), "{lines:?}");
    end(attach);
}

#[test]
fn files_are_copied_both_ways() {
    let harness = start();
    let there = harness.cluster.scratch().join("there");
    let back = harness.cluster.scratch().join("back");
    let content = "x".repeat(300_000);
    std::fs::write(&there, &content).unwrap();
    let (there, back_path) = (there.display().to_string(), back.display().to_string());
    harness.cluster.exec("kubectl", &["cp", &there, "shell:/tmp/file"]).unwrap();
    harness.cluster.exec("kubectl", &["cp", "shell:/tmp/file", &back_path]).unwrap();
    assert_eq!(std::fs::read_to_string(back).unwrap(), content);
}

#[test]
fn a_port_is_forwarded() {
    let harness = start();
    harness.create("pods", &crate::harness::server("web"));
    harness.ready_pod("web");
    let mut forward =
        spawn(&harness, kubectl(&harness, &["port-forward", "pod/web", "18080:8080"]));
    let mut out = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "Forwarding from 127.0.0.1:18080 -> 8080\n");
    for _ in 0..3 {
        assert_eq!(harness.fetch("127.0.0.1", 18080, "/hostname").unwrap(), "web");
    }
    end(forward);
}
