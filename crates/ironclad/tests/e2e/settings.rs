//! What containers are given: users and rights, environment, kernel parameters.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod, pod_path, server};

/// Runs a pod once and gives what it printed.
fn run(harness: &Harness, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> String {
    let mut once = pod(name, args);
    once["spec"]["restartPolicy"] = json!("Never");
    change(&mut once);
    harness.create("pods", &once);
    harness.until(&format!("{name} has ended"), || {
        let phase = harness.get(&pod_path(name))["status"]["phase"].clone();
        matches!(phase.as_str()?, "Succeeded" | "Failed").then_some(())
    });
    harness.text(&format!("{}/log", pod_path(name)))
}

/// A line of `/proc/self/status`, its numbers only.
fn line(status: &str, name: &str) -> Vec<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// \[sig-node\] Security Context when creating a container with runAsUser should run with uid
/// 65534; should support pod.Spec.SecurityContext.RunAsUser And RunAsGroup, the container's too;
/// when creating a pod with privileged should run the container as unprivileged when false; when
/// creating containers with AllowPrivilegeEscalation should not allow privilege escalation when
/// false; when creating a pod with readOnlyRootFilesystem should run with writable rootfs when false
#[test]
fn processes_run_as_whom_and_with_what_they_are_told() {
    let harness = Harness::start();
    let status = |name: &str, of_pod: Value, of_container: Value| {
        run(&harness, name, &["cat", "/proc/self/status"], |pod| {
            pod["spec"]["securityContext"] = of_pod;
            pod["spec"]["containers"][0]["securityContext"] = of_container;
        })
    };
    let nobody = status("nobody", json!({}), json!({ "runAsUser": 65534 }));
    assert_eq!(line(&nobody, "Uid"), ["65534"; 4]);
    let groups = json!({ "runAsUser": 1001, "runAsGroup": 2002, "supplementalGroups": [3003],
                         "fsGroup": 4004 });
    let grouped = status("grouped", groups.clone(), json!({}));
    assert_eq!(
        (line(&grouped, "Uid"), line(&grouped, "Gid")),
        (vec!["1001".to_owned(); 4], vec!["2002".to_owned(); 4])
    );
    let all = line(&grouped, "Groups");
    assert!(all.contains(&"3003".to_owned()) && all.contains(&"4004".to_owned()), "{all:?}");
    let overruled = status("overruled", groups, json!({ "runAsUser": 5005, "runAsGroup": 6006 }));
    assert_eq!(line(&overruled, "Uid")[0], "5005");
    assert_eq!(line(&overruled, "Gid")[0], "6006");

    let capabilities = |text: &str| u64::from_str_radix(&line(text, "CapBnd")[0], 16).unwrap();
    let net_admin = 1 << 12;
    let plain = status("plain", json!({}), json!({ "privileged": false }));
    assert_eq!(capabilities(&plain) & net_admin, 0);
    let privileged = status("privileged", json!({}), json!({ "privileged": true }));
    assert_ne!(capabilities(&privileged) & net_admin, 0);
    let chosen = json!({ "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] } });
    assert_eq!(capabilities(&status("chosen", json!({}), chosen)), net_admin);
    assert_eq!(line(&plain, "NoNewPrivs"), ["0"]);
    let kept = json!({ "allowPrivilegeEscalation": false, "runAsUser": 1000 });
    assert_eq!(line(&status("kept", json!({}), kept), "NoNewPrivs"), ["1"]);
    let writable = run(&harness, "writable", &["create", "/file", "0644", "x"], |pod| {
        pod["spec"]["containers"][0]["securityContext"] =
            json!({ "readOnlyRootFilesystem": false });
    });
    assert_eq!(writable, "");
}

/// Groups that the image has the user in are its process's too, unless the pod says otherwise.
#[test]
fn groups_of_the_image_are_left_out_when_a_pod_wants_that() {
    let harness = Harness::start();
    let groups = |name: &str, policy: Option<&str>| {
        let status = run(&harness, name, &["cat", "/proc/self/status"], |pod| {
            pod["spec"]["securityContext"] = json!({ "runAsUser": 1500,
                "supplementalGroups": [60000], "supplementalGroupsPolicy": policy });
        });
        let container = &harness.get(&pod_path(name))["status"]["containerStatuses"][0];
        (line(&status, "Groups"), container["user"]["linux"]["supplementalGroups"].clone())
    };
    let merged = ["1500", "50000", "60000"].map(str::to_owned).to_vec();
    assert_eq!(groups("usual", None), (merged.clone(), json!([1500, 50000, 60000])));
    assert_eq!(groups("merged", Some("Merge")).0, merged);
    let strict = ["1500", "60000"].map(str::to_owned).to_vec();
    assert_eq!(groups("strict", Some("Strict")), (strict, json!([1500, 60000])));
}

/// \[sig-node\] Security Context when creating containers with AllowPrivilegeEscalation should not
/// allow privilege escalation when false: a program that runs as root for everybody does not there
#[test]
fn a_program_of_root_runs_as_its_caller_without_escalation() {
    let harness = Harness::start();
    let user = |name: &str, allowed: Option<bool>| {
        let status = run(&harness, name, &["cat", "/proc/self/status"], |pod| {
            let spec = &mut pod["spec"];
            spec["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
            let mounts = json!([{ "name": "v", "mountPath": "/v" }]);
            spec["initContainers"] = json!([{ "name": "i", "image": POD_IMAGE,
                "args": ["copy", "/v/program", "4755"], "volumeMounts": mounts }]);
            let container = &mut spec["containers"][0];
            container["command"] = json!(["/v/program"]);
            container["volumeMounts"] = mounts;
            container["securityContext"] = json!({ "runAsUser": 1000 });
            if let Some(allowed) = allowed {
                container["securityContext"]["allowPrivilegeEscalation"] = json!(allowed);
            }
        });
        line(&status, "Uid")
    };
    assert_eq!(user("kept", Some(false)), ["1000"; 4]);
    assert_eq!(user("raised", Some(true)), ["1000", "0", "0", "0"]);
    assert_eq!(user("usual", None), ["1000", "0", "0", "0"]);
}

/// Nothing limits them beyond what limits the node's own programs, as with other runtimes.
#[test]
fn a_container_has_the_limits_of_the_node() {
    let harness = Harness::start();
    let limits = run(&harness, "limits", &["cat", "/proc/self/limits"], |_| {});
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    for name in ["Max open files", "Max core file size", "Max stack size"] {
        let of = |text: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(&limits), of(&own), "{name}");
    }
}

/// \[sig-node\] Sysctls should support sysctls; those that other pods would feel are refused by the
/// node
#[test]
fn kernel_parameters_are_the_pods_own() {
    let harness = Harness::start();
    let path = "/proc/sys/kernel/shm_rmid_forced";
    let set = run(&harness, "set", &["cat", path], |pod| {
        pod["spec"]["securityContext"] =
            json!({ "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] });
    });
    assert_eq!(set.trim(), "1");
    assert_eq!(run(&harness, "other", &["cat", path], |_| {}).trim(), "0");
    let mut unsafe_one = server("unsafe");
    unsafe_one["spec"]["securityContext"] =
        json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "65536" }] });
    harness.create("pods", &unsafe_one);
    let refused = harness.until("it is refused", || {
        let pod = harness.get(&pod_path("unsafe"));
        (pod["status"]["phase"] == "Failed").then_some(pod)
    });
    assert_eq!(refused["status"]["reason"], "SysctlForbidden");
    assert_eq!(
        refused["status"]["message"],
        "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
    );
}

/// \[sig-node\] RuntimeClass should reject a Pod requesting a RuntimeClass with an unconfigured
/// handler; should schedule a Pod requesting a RuntimeClass and initialize its Overhead
#[test]
fn a_runtime_class_names_a_handler_of_the_node_and_costs_its_overhead() {
    let harness = Harness::start();
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let class = |name: &str, handler: &str| {
        let class = json!({ "metadata": { "name": name }, "handler": handler,
            "overhead": { "podFixed": { "cpu": "10m", "memory": "1Mi" } } });
        harness.request(Method::POST, classes, Some(&class)).unwrap();
    };
    class("known", "ironclad");
    class("unknown", "no-such-handler");
    let pod = |name: &str, class: &str| {
        let mut pod = server(name);
        pod["spec"]["runtimeClassName"] = json!(class);
        pod
    };
    harness.create("pods", &pod("good", "known"));
    harness.create("pods", &pod("bad", "unknown"));
    let good = harness.ready_pod("good");
    assert_eq!(good["spec"]["overhead"], json!({ "cpu": "10m", "memory": "1Mi" }));
    let text = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get \
                sandbox runtime: no runtime for \"no-such-handler\" is configured";
    harness.until("the unknown handler is told", || {
        let events = harness.get(&collection("events"));
        let all = events["items"].as_array()?;
        all.iter()
            .any(|e| e["reason"] == "FailedCreatePodSandBox" && e["message"] == text)
            .then_some(())
    });
    let handlers = harness.get("/api/v1/nodes/node-1")["status"]["runtimeHandlers"].clone();
    let names: Vec<_> = handlers.as_array().unwrap().iter().map(|h| h["name"].clone()).collect();
    assert_eq!(names, ["", "ironclad"]);
}

/// \[sig-node\] ConfigMap, Secrets: consumable via environment variable and via the environment;
/// \[sig-node\] Downward API: name, namespace and uid, host and pod address, limits and requests,
/// defaults from the node
#[test]
fn the_environment_comes_from_objects_and_from_the_pod_itself() {
    let harness = Harness::start();
    let map = json!({ "metadata": { "name": "map" },
                      "data": { "data-1": "value-1", "data.2": "value-2", "3data": "value-3" } });
    let secret = json!({ "metadata": { "name": "secret" }, "stringData": { "data-1": "hidden" } });
    harness.create("configmaps", &map);
    harness.create("secrets", &secret);
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let amount = |resource: &str, divisor: &str| json!({ "resourceFieldRef": { "resource": resource, "divisor": divisor } });
    let mut told = server("told");
    let container = &mut told["spec"]["containers"][0];
    container["envFrom"] = json!([{ "configMapRef": { "name": "map" } },
                                  { "prefix": "p-", "configMapRef": { "name": "map" } },
                                  { "prefix": "s-", "secretRef": { "name": "secret" } },
                                  { "secretRef": { "name": "none", "optional": true } }]);
    container["resources"] = json!({ "requests": { "cpu": "250m", "memory": "32Mi" } });
    container["env"] = json!([
        { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "data-1" } } },
        { "name": "NONE", "valueFrom": { "configMapKeyRef": {
            "name": "map", "key": "none", "optional": true } } },
        { "name": "NAME", "valueFrom": field("metadata.name") },
        { "name": "NAMESPACE", "valueFrom": field("metadata.namespace") },
        { "name": "UID", "valueFrom": field("metadata.uid") },
        { "name": "POD_IP", "valueFrom": field("status.podIP") },
        { "name": "POD_IPS", "valueFrom": field("status.podIPs") },
        { "name": "HOST_IP", "valueFrom": field("status.hostIP") },
        { "name": "HOST_IPS", "valueFrom": field("status.hostIPs") },
        { "name": "CPU", "valueFrom": amount("requests.cpu", "1m") },
        { "name": "MEMORY", "valueFrom": amount("requests.memory", "1Mi") },
        { "name": "CPUS", "valueFrom": amount("limits.cpu", "1") },
        { "name": "ALL", "valueFrom": amount("limits.memory", "1Ki") },
    ]);
    harness.create("pods", &told);
    let pod = harness.ready_pod("told");
    let address = pod["status"]["podIP"].as_str().unwrap();
    let node = harness.get("/api/v1/nodes/node-1")["status"]["allocatable"].clone();
    let memory = node["memory"].as_str().unwrap().trim_end_matches("Ki").to_owned();
    for (name, value) in [
        ("data-1", "value-1"),
        ("data.2", "value-2"),
        ("3data", "value-3"),
        ("p-data-1", "value-1"),
        ("s-data-1", "hidden"),
        ("KEY", "hidden"),
        ("NAME", "told"),
        ("NAMESPACE", "default"),
        ("UID", pod["metadata"]["uid"].as_str().unwrap()),
        ("POD_IP", address),
        ("POD_IPS", address),
        ("HOST_IP", "192.168.77.2"),
        ("HOST_IPS", "192.168.77.2"),
        ("CPU", "250"),
        ("MEMORY", "32"),
        ("CPUS", node["cpu"].as_str().unwrap()),
        ("ALL", &memory),
    ] {
        let seen = harness.fetch(address, 8080, &format!("/env?{name}")).unwrap();
        assert_eq!(seen, value, "{name}");
    }
    let missing = harness.fetch(address, 8080, "/env?NONE").unwrap();
    assert!(missing.contains("not found"), "{missing}");
}

/// \[sig-node\] ImageVolume should succeed with pod and multiple volumes, with subPath
#[test]
fn an_image_is_a_volume() {
    let harness = Harness::start();
    let mut using = server("using");
    using["spec"]["volumes"] =
        json!([{ "name": "i", "image": { "reference": POD_IMAGE, "pullPolicy": "IfNotPresent" } }]);
    using["spec"]["containers"][0]["volumeMounts"] = json!([
        { "name": "i", "mountPath": "/image" },
        { "name": "i", "mountPath": "/passwd", "subPath": "etc" },
    ]);
    harness.create("pods", &using);
    let address = harness.ready_pod("using")["status"]["podIP"].as_str().unwrap().to_owned();
    for path in ["/image/etc/passwd", "/passwd/passwd"] {
        let text = harness.fetch(&address, 8080, &format!("/file?{path}")).unwrap();
        assert!(text.starts_with("root:x:0:0::/root:/\n"), "{path}: {text}");
    }
    let mut never = server("never");
    never["spec"]["volumes"] =
        json!([{ "name": "i", "image": { "reference": "none:1", "pullPolicy": "Never" } }]);
    never["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "i", "mountPath": "/i" }]);
    harness.create("pods", &never);
    harness.until("the missing image is told", || {
        let pod = harness.get(&pod_path("never"));
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == "ErrImageNeverPull").then_some(())
    });
}
