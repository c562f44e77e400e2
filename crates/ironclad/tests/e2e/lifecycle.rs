//! The life of pods: upstream's tests of pods, of hooks, and of init and ephemeral containers.

use std::time::Duration;

use clock::Clock as _;
use http::Method;
use serde_json::{Value, json};
use testkit::{Options, POD_IMAGE};

use crate::harness::{Harness, IRONCLAD, collection, pod, pod_path, server};

fn once(name: &str, args: &[&str]) -> Value {
    let mut pod = pod(name, args);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

fn container(name: &str, args: &[&str]) -> Value {
    json!({ "name": name, "image": POD_IMAGE, "args": args })
}

fn ended(harness: &Harness, name: &str) -> Value {
    harness.until(&format!("{name} has ended"), || {
        let pod = harness.get(&pod_path(name));
        matches!(pod["status"]["phase"].as_str()?, "Succeeded" | "Failed").then_some(pod)
    })
}

fn log(harness: &Harness, name: &str, container: &str) -> String {
    harness.text(&format!("{}/log?container={container}", pod_path(name)))
}

/// What is in a container's state: waiting, running or terminated.
fn state(pod: &Value, at: usize, kind: &str) -> Value {
    pod["status"]["containerStatuses"][at]["state"][kind].clone()
}

/// Runs a command in a container and gives what it printed.
fn run(harness: &Harness, pod: &str, container: &str, command: &[&str]) -> String {
    let words: Vec<String> = command.iter().map(|word| format!("command={word}")).collect();
    let path = format!("{}/exec?stdout=1&container={container}&{}", pod_path(pod), words.join("&"));
    let messages = harness.websocket(&path, "v5.channel.k8s.io");
    let said = messages.iter().filter(|message| message.first() == Some(&1));
    said.map(|message| String::from_utf8_lossy(&message[1..]).into_owned()).collect()
}

/// \[sig-node\] Pods should be submitted and removed; should be updated; should delete a collection
/// of pods; \[sig-node\] Pods Extended Delete Grace Period should be submitted and removed;
/// Pod Generation pod generation should start at 1 and increment per update
#[test]
fn a_pod_counts_the_changes_of_its_spec_until_it_is_deleted() {
    let harness = Harness::start();
    let mut counted = server("counted");
    counted["metadata"]["generation"] = json!(100);
    // The program gets the signals of a process that is not the first one.
    counted["spec"]["shareProcessNamespace"] = json!(true);
    counted["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let made = harness.create("pods", &counted);
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    harness.ready_pod("counted");
    let path = pod_path("counted");
    let changed = harness.patch(&path, &json!({ "metadata": { "labels": { "time": "late" } } }));
    assert_eq!(changed["metadata"]["generation"], 1);
    let observed = |generation: i64| {
        harness.until(&format!("generation {generation} is observed"), || {
            let pod = harness.get(&path);
            (pod["status"]["observedGeneration"] == generation).then_some(pod)
        })
    };
    observed(1);
    harness.patch(&path, &json!({ "spec": { "activeDeadlineSeconds": 10_000 } }));
    observed(2);
    for step in 1..=500 {
        let deadline = json!({ "spec": { "activeDeadlineSeconds": 10_000 - step } });
        harness.patch(&path, &deadline);
    }
    let pod = observed(502);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    harness.delete(&path);
    let deleted = harness.get(&path);
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(deleted["metadata"]["generation"], 503);
    harness.until("the pod is gone", || (!harness.exists(&path)).then_some(()));

    for name in ["one", "two", "three"] {
        let mut one = server(name);
        one["metadata"]["labels"] = json!({ "type": "testing" });
        harness.create("pods", &one);
    }
    let of_type = format!("{}?labelSelector=type=testing", collection("pods"));
    harness.request(Method::DELETE, &of_type, None).unwrap();
    harness.until("the collection is gone", || {
        harness.get(&of_type)["items"].as_array().unwrap().is_empty().then_some(())
    });
}

/// \[sig-node\] Pods should allow activeDeadlineSeconds to be updated; should run through the
/// lifecycle of Pods and PodStatus; should patch a pod status
#[test]
fn a_deadline_ends_a_pod_and_its_status_can_be_written() {
    let harness = Harness::start();
    harness.create("pods", &server("p"));
    harness.ready_pod("p");
    let status = format!("{}/status", pod_path("p"));
    let gate = json!({ "type": "Own", "status": "True", "reason": "Patched" });
    let mut conditions = harness.get(&status)["status"]["conditions"].as_array().unwrap().clone();
    conditions.push(gate);
    harness.patch(&status, &json!({ "status": { "conditions": conditions } }));
    harness.patch(&pod_path("p"), &json!({ "spec": { "activeDeadlineSeconds": 1 } }));
    let pod = ended(&harness, "p");
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["reason"] == "Patched"), "the kubelet leaves it alone");
    let mut whole = harness.get(&pod_path("p"));
    whole["status"]["message"] = json!("put");
    let put = harness.request(Method::PUT, &status, Some(&whole)).unwrap();
    assert_eq!(put["status"]["message"], "put");
}

/// \[sig-node\] Pods should contain environment variables for services; should support remote
/// command execution over websockets; should support retrieving logs from the container over
/// websockets
#[test]
fn services_are_told_and_streams_are_read_over_websockets() {
    let harness = Harness::start();
    let service = json!({ "metadata": { "name": "fooservice" }, "spec": {
        "selector": { "app": "server" }, "ports": [{ "port": 8765, "targetPort": 8080 }] } });
    let address = harness.create("services", &service)["spec"]["clusterIP"].clone();
    harness.create("pods", &server("server"));
    harness.ready_pod("server");
    let words = ["HOST", "PORT"].map(|word| format!("$(FOOSERVICE_SERVICE_{word})"));
    let url = "$(FOOSERVICE_PORT_8765_TCP_ADDR) $(FOOSERVICE_PORT_8765_TCP)";
    harness.create("pods", &once("client", &["print", &words[0], &words[1], url]));
    ended(&harness, "client");
    let address = address.as_str().unwrap();
    assert_eq!(
        log(&harness, "client", "c"),
        format!("{address} 8765 {address} tcp://{address}:8765\n")
    );

    let command = "command=/testkit-pod&command=print&command=remote&command=execution";
    let path = format!("{}/exec?stdout=1&stderr=1&container=c&{command}", pod_path("server"));
    let messages = harness.websocket(&path, "channel.k8s.io");
    let (on_stdout, others): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message.first() == Some(&1));
    assert_eq!(
        on_stdout.concat().split(|byte| *byte == 1).collect::<Vec<_>>().concat(),
        b"remote execution\n"
    );
    assert!(others.iter().all(|message| message.len() == 1), "nothing else: {others:?}");
    let messages =
        harness.websocket(&format!("{}/log?container=c", pod_path("client")), "binary.k8s.io");
    assert!(messages.concat().ends_with(format!("tcp://{address}:8765\n").as_bytes()));
}

/// \[sig-node\] Container Lifecycle Hook when create a pod with lifecycle hook should execute
/// poststart and prestop exec and http hooks properly; \[sig-node\] PreStop should call prestop
/// when killing a pod
#[test]
fn hooks_run_after_the_start_and_before_the_end() {
    let harness = Harness::start();
    let mut target = server("target");
    // It serves from its sidecar, which must have started before the hooks' pod is made.
    target["spec"]["initContainers"] = json!([{
        "name": "side", "image": POD_IMAGE, "args": ["serve", "8090"], "restartPolicy": "Always",
        "startupProbe": { "httpGet": { "path": "/hostname", "port": 8090 }, "periodSeconds": 1 },
    }]);
    harness.create("pods", &target);
    let target = harness.ready_pod("target")["status"]["podIP"].as_str().unwrap().to_owned();
    let get = |path: &str| {
        json!({ "httpGet": { "host": target, "port": 8090, "path": path,
        "httpHeaders": [{ "name": "X-Own", "value": "1" }] } })
    };
    let exec = |path: &str| {
        let fetched = format!("{target}:8090{path}");
        json!({ "exec": { "command": ["/testkit-pod", "fetch", fetched] } })
    };
    let mut http = server("http");
    http["spec"]["containers"][0]["lifecycle"] =
        json!({ "postStart": get("/echo/http-begins"), "preStop": get("/echo/http-ends") });
    let mut command = server("command");
    command["spec"]["containers"][0]["lifecycle"] =
        json!({ "postStart": exec("/echo/exec-begins"), "preStop": exec("/echo/exec-ends") });
    for (name, pod) in [("http", &http), ("command", &command)] {
        harness.create("pods", pod);
        harness.ready_pod(name);
        harness.delete(&pod_path(name));
        harness.until("the pod is gone", || (!harness.exists(&pod_path(name))).then_some(()));
    }
    let asked = log(&harness, "target", "side");
    for path in ["http-begins", "http-ends", "exec-begins", "exec-ends"] {
        assert!(asked.contains(&format!("asked for /echo/{path}\n")), "{path}: {asked}");
    }

    let mut failing = server("failing");
    let missing = json!({ "exec": { "command": ["/testkit-pod", "fail", "3"] } });
    failing["spec"]["containers"][0]["lifecycle"] = json!({ "postStart": missing });
    harness.create("pods", &failing);
    harness.until("the failed hook restarts the container", || {
        let pod = harness.get(&pod_path("failing"));
        (pod["status"]["containerStatuses"][0]["restartCount"].as_i64()? > 0).then_some(())
    });
    let events = harness.get(&collection("events"));
    let reasons = events["items"].as_array().unwrap().iter().map(|event| &event["reason"]);
    assert!(reasons.clone().any(|reason| reason == "FailedPostStartHook"));
}

/// \[sig-node\] InitContainer should invoke init containers on a RestartNever pod, on a
/// RestartAlways pod; should not start app containers if init containers fail on either
#[test]
fn init_containers_come_first_and_can_fail() {
    let harness = Harness::start();
    let with = |mut pod: Value, inits: Value| {
        pod["spec"]["initContainers"] = inits;
        pod
    };
    let both = json!([container("one", &["print", "1"]), container("two", &["print", "2"])]);
    harness.create("pods", &with(once("never", &["print", "app"]), both.clone()));
    harness.create("pods", &with(server("always"), both));
    let failing = json!([container("one", &["fail", "1"]), container("two", &["print", "2"])]);
    harness.create("pods", &with(once("failed", &["print", "app"]), failing.clone()));
    harness.create("pods", &with(server("again"), failing));
    let condition = |pod: &Value, kind: &str| -> Value {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|c| c["type"] == kind).unwrap().clone()
    };
    for pod in [ended(&harness, "never"), harness.ready_pod("always")] {
        assert_eq!(condition(&pod, "Initialized")["status"], "True");
        for status in pod["status"]["initContainerStatuses"].as_array().unwrap() {
            assert_eq!(status["state"]["terminated"]["exitCode"], 0);
            assert_eq!(status["ready"], true);
        }
    }
    let failed = ended(&harness, "failed");
    assert_eq!(failed["status"]["phase"], "Failed");
    assert_eq!(state(&failed, 0, "waiting")["reason"], "PodInitializing");
    let statuses = &failed["status"]["initContainerStatuses"];
    assert_eq!(statuses[0]["state"]["terminated"]["reason"], "Error");
    assert_eq!(statuses[1]["state"]["waiting"]["reason"], "PodInitializing");
    let again = harness.until("the init container failed three times", || {
        let pod = harness.get(&pod_path("again"));
        let count = pod["status"]["initContainerStatuses"][0]["restartCount"].as_i64()?;
        (count >= 2).then_some(pod)
    });
    assert_eq!(again["status"]["phase"], "Pending");
    let initialized = condition(&again, "Initialized");
    assert_eq!(initialized["reason"], "ContainersNotInitialized");
    assert_eq!(initialized["message"], "containers with incomplete status: [one two]");
    assert_eq!(condition(&again, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(state(&again, 0, "waiting")["reason"], "PodInitializing");
}

/// \[sig-node\] Ephemeral Containers will start an ephemeral container in an existing pod; should
/// update the ephemeral containers in an existing pod
#[test]
fn an_ephemeral_container_joins_a_pod() {
    let harness = Harness::start();
    harness.create("pods", &server("p"));
    harness.ready_pod("p");
    let path = format!("{}/ephemeralcontainers", pod_path("p"));
    let debugger = json!({ "name": "debugger", "image": POD_IMAGE, "args": ["serve", "8081"],
        "stdin": true, "tty": true, "targetContainerName": "c" });
    let patched = harness.patch(&path, &json!({ "spec": { "ephemeralContainers": [debugger] } }));
    assert_eq!(patched["metadata"]["generation"], 2);
    let running = |name: &str| {
        harness.until(&format!("{name} runs"), || {
            let pod = harness.get(&pod_path("p"));
            let statuses = pod["status"]["ephemeralContainerStatuses"].as_array()?;
            let status = statuses.iter().find(|status| status["name"] == name)?;
            status["state"]["running"].is_object().then_some(pod.clone())
        })
    };
    running("debugger");
    assert_eq!(run(&harness, "p", "debugger", &["/testkit-pod", "print", "marco"]), "marco\n");
    assert_eq!(log(&harness, "p", "debugger"), "serving on port 8081\r\n", "a terminal's lines");
    let target = run(&harness, "p", "debugger", &["/testkit-pod", "cat", "/proc/1/cmdline"]);
    assert!(target.contains("8080"), "it sees the target's processes: {target:?}");
    let mut whole = harness.get(&path);
    let list = whole["spec"]["ephemeralContainers"].as_array_mut().unwrap();
    list.push(container("second", &["serve", "8082"]));
    harness.request(Method::PUT, &path, Some(&whole)).unwrap();
    let pod = running("second");
    assert_eq!(pod["metadata"]["generation"], 3);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

/// Containers are asked to end with the signal that they want, and a hook may only let time pass.
#[test]
fn a_container_is_ended_with_its_own_signal_after_a_pause() {
    let mut options = Options::new(IRONCLAD);
    options.args.push("--feature-gates=ContainerStopSignals=true".to_owned());
    let harness = Harness::with(options);
    let mut signalled = server("p");
    // The program gets the signals of a process that is not the first one.
    signalled["spec"]["shareProcessNamespace"] = json!(true);
    signalled["spec"]["terminationGracePeriodSeconds"] = json!(30);
    signalled["spec"]["os"] = json!({ "name": "linux" });
    signalled["metadata"]["finalizers"] = json!(["example.com/kept"]);
    signalled["spec"]["containers"][0]["lifecycle"] =
        json!({ "stopSignal": "SIGUSR1", "preStop": { "sleep": { "seconds": 2 } } });
    harness.create("pods", &signalled);
    let pod = harness.ready_pod("p");
    assert_eq!(pod["status"]["containerStatuses"][0]["stopSignal"], "SIGUSR1");
    let clock = clock::SystemClock;
    let began = clock.monotonic();
    harness.delete(&pod_path("p"));
    let pod = ended(&harness, "p");
    let took = clock.monotonic() - began;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let terminated = state(&pod, 0, "terminated");
    // 128 and the number of the signal.
    assert_eq!(terminated["exitCode"], 138, "{terminated}");
    let free = json!({ "metadata": { "finalizers": null } });
    harness.patch(&pod_path("p"), &free);
    harness.until("it is gone", || (!harness.exists(&pod_path("p"))).then_some(()));
}

/// What a container said before it was started again.
#[test]
fn the_log_of_the_container_before_is_kept() {
    let harness = Harness::start();
    harness.create("pods", &server("phoenix"));
    let address = harness.ready_pod("phoenix")["status"]["podIP"].as_str().unwrap().to_owned();
    harness.fetch(&address, 8080, "/echo/first").unwrap();
    harness.fetch(&address, 8080, "/exit?1").ok();
    harness.until("it is started again", || {
        let pod = harness.get(&pod_path("phoenix"));
        let status = pod["status"]["containerStatuses"][0].clone();
        (status["restartCount"] == 1 && status["ready"] == true).then_some(())
    });
    let log = |query: &str| harness.text(&format!("{}/log?{query}", pod_path("phoenix")));
    assert!(log("previous=true").contains("asked for /echo/first"));
    assert!(!log("").contains("/echo/first"));
}

/// \[sig-node\] Variable Expansion: in environment, command, arguments and subPathExpr; should fail
/// substituting values in a volume subpath with absolute path and with backticks; should verify
/// that a failing subpath expansion can be modified during the lifecycle of a container
#[test]
fn variables_are_expanded_wherever_they_may_be() {
    let harness = Harness::start();
    let env = json!([{ "name": "FOO", "value": "foo" },
                     { "name": "BOTH", "value": "$(FOO);;$(NONE)" }]);
    let mut pod = once("expanding", &[]);
    pod["spec"]["containers"][0] = json!({
        "name": "c", "image": POD_IMAGE, "command": ["/testkit-pod", "print", "$(FOO)-command"],
        "args": ["$(BOTH)", "$$(FOO)"], "env": env,
    });
    harness.create("pods", &pod);
    ended(&harness, "expanding");
    assert_eq!(log(&harness, "expanding", "c"), "foo-command foo;;$(NONE) $(FOO)\n");

    let mut failing = server("failing");
    failing["metadata"]["annotations"] = json!({ "notmysubpath": "x" });
    failing["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
    let container = &mut failing["spec"]["containers"][0];
    container["env"] = json!([{ "name": "ANNOTATION", "valueFrom": { "fieldRef": {
        "fieldPath": "metadata.annotations['mysubpath']" } } }]);
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/sub",
                                         "subPathExpr": "$(ANNOTATION)/$(HOSTNAME)x" }]);
    container["env"].as_array_mut().unwrap().push(json!({ "name": "HOSTNAME", "value": "own" }));
    harness.create("pods", &failing);
    let waits = |name: &str| {
        harness.until("the container waits", || {
            let pod = harness.get(&pod_path(name));
            (state(&pod, 0, "waiting")["reason"] == "CreateContainerConfigError").then_some(pod)
        })
    };
    waits("failing");
    for (name, value) in [("absolute", "/tmp"), ("parent", ".."), ("ticks", "`whoami`/..")] {
        let mut wrong = failing.clone();
        wrong["metadata"] = json!({ "name": name });
        let container = &mut wrong["spec"]["containers"][0];
        container["env"] = json!([{ "name": "PART", "value": value }]);
        container["volumeMounts"][0]["subPathExpr"] = json!("$(PART)");
        harness.create("pods", &wrong);
        waits(name);
    }
    let annotation = json!({ "metadata": { "annotations": { "mysubpath": "mypath" } } });
    harness.patch(&pod_path("failing"), &annotation);
    harness.ready_pod("failing");
}

/// \[sig-node\] Container Runtime blackbox test on terminated container should report termination
/// message: as empty, if set as non-root and at a non-default path, from log output if
/// FallbackToLogsOnError is set; when starting a container that exits should run with the expected
/// status; \[sig-node\] Kubelet when scheduling a busybox command that always fails in a pod should
/// have an terminated reason; should be possible to delete
#[test]
fn containers_that_end_leave_their_last_words() {
    let harness = Harness::start();
    let mut own = once("own", &["write", "/dev/own-log", "DONE"]);
    own["spec"]["containers"][0]["terminationMessagePath"] = json!("/dev/own-log");
    own["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 1000 });
    let fallback = |name: &str, args: &[&str]| {
        let mut pod = once(name, args);
        pod["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        pod
    };
    harness.create("pods", &own);
    harness.create("pods", &fallback("empty", &["print", "not told"]));
    harness.create("pods", &fallback("logged", &["cat-and-fail"]));
    for (name, reason, message) in
        [("own", "Completed", "DONE"), ("empty", "Completed", ""), ("logged", "Error", "usage: ")]
    {
        let end = state(&ended(&harness, name), 0, "terminated");
        assert_eq!(end["reason"], reason, "{name}");
        let told = end["message"].as_str().unwrap_or_default();
        assert!(
            told.starts_with(message) && (told.is_empty() == message.is_empty()),
            "{name}: {told}"
        );
    }
    for (policy, phase, restarts) in
        [("Never", "Failed", 0), ("OnFailure", "Running", 1), ("Always", "Running", 1)]
    {
        let name = format!("exits-{}", policy.to_lowercase());
        let mut exits = pod(&name, &["fail", "1"]);
        exits["spec"]["restartPolicy"] = json!(policy);
        harness.create("pods", &exits);
        harness.until(&format!("{name} has its status"), || {
            let pod = harness.get(&pod_path(&name));
            let count = pod["status"]["containerStatuses"][0]["restartCount"].as_i64()?;
            (pod["status"]["phase"] == phase && count >= restarts).then_some(())
        });
        harness.delete(&pod_path(&name));
        harness.until("it is gone", || (!harness.exists(&pod_path(&name))).then_some(()));
    }
}

/// \[sig-node\] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to
/// /etc/hosts; \[sig-node\] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file;
/// \[sig-node\] Kubelet when scheduling a read only busybox container should not write to root
/// filesystem; \[sig-network\] DNS should provide DNS for pods for Hostname and Subdomain (the files)
#[test]
fn the_hosts_file_is_the_kubelets_unless_the_pod_has_its_own() {
    let harness = Harness::start();
    let mut aliased = server("aliased");
    aliased["spec"]["hostAliases"] = json!([{ "ip": "123.45.67.89", "hostnames": ["foo", "bar"] }]);
    aliased["spec"]["hostname"] = json!("named");
    aliased["spec"]["subdomain"] = json!("below");
    let mut own = container("own", &["serve", "8081"]);
    own["volumeMounts"] = json!([{ "name": "v", "mountPath": "/etc/hosts", "subPath": "hosts" }]);
    let mut writing = container("writing", &["write", "/v/hosts", "of the pod"]);
    writing["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    aliased["spec"]["containers"].as_array_mut().unwrap().push(own);
    aliased["spec"]["initContainers"] = json!([writing]);
    aliased["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
    harness.create("pods", &aliased);
    let address = harness.ready_pod("aliased")["status"]["podIP"].as_str().unwrap().to_owned();
    let hosts = harness.fetch(&address, 8080, "/file?/etc/hosts").unwrap();
    assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n"), "{hosts}");
    assert!(hosts.contains("\n123.45.67.89\tfoo\tbar\n"), "{hosts}");
    let full = format!("\n{address}\tnamed.below.default.svc.cluster.local\tnamed\n");
    assert!(hosts.contains(&full), "{hosts}");
    assert_eq!(harness.fetch(&address, 8081, "/file?/etc/hosts").unwrap(), "of the pod");
    assert_eq!(harness.fetch(&address, 8080, "/hostname").unwrap(), "named");

    let mut node = once("node", &["cat", "/etc/hosts"]);
    node["spec"]["hostNetwork"] = json!(true);
    harness.create("pods", &node);
    ended(&harness, "node");
    assert!(!log(&harness, "node", "c").starts_with("# Kubernetes-managed hosts file.\n"));

    let mut only = once("only", &["write", "/file", "x"]);
    only["spec"]["containers"][0]["securityContext"] = json!({ "readOnlyRootFilesystem": true });
    harness.create("pods", &only);
    ended(&harness, "only");
    assert!(log(&harness, "only", "c").contains("Read-only file system"));
}
