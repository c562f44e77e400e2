//! What pods may use: their cgroups, and how they change while the pods run.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod, pod_path, server};

const V2: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Weight, quota and memory of a cgroup below a directory of version 1 or 2.
fn limits(read: impl Fn(&str) -> Option<String>) -> Option<[String; 3]> {
    let files = if Path::new(V2).exists() {
        ["cpu.weight", "cpu.max", "memory.max"]
    } else {
        ["cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "memory/memory.limit_in_bytes"]
    };
    let [weight, quota, memory] = files.map(|file| read(file).map(|text| text.trim().to_owned()));
    Some([weight?, quota?, memory?])
}

/// What is expected of it: shares, thousandths of a CPU, and bytes.
fn expected(shares: i64, milli: Option<i64>, memory: Option<i64>) -> [String; 3] {
    if Path::new(V2).exists() {
        let weight = 1 + (shares - 2) * 9_999 / 262_142;
        let quota = milli.map_or("max".to_owned(), |milli| (milli * 100).to_string());
        let memory = memory.map_or("max".to_owned(), |memory| memory.to_string());
        return [weight.to_string(), format!("{quota} 100000"), memory];
    }
    let unlimited = 0x7FFF_FFFF_FFFF_F000_i64;
    let quota = milli.map_or(-1, |milli| milli * 100);
    [shares.to_string(), quota.to_string(), memory.unwrap_or(unlimited).to_string()]
}

/// A cgroup of the cluster, as the node sees it.
fn on_node(harness: &Harness, path: &str) -> Option<[String; 3]> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let cgroup = format!("{}/kubepods{path}", harness.cluster.cgroup().trim_start_matches('/'));
    limits(|file| {
        let (controller, file) = file.split_once('/').unwrap_or(("", file));
        std::fs::read_to_string(root.join(controller).join(&cgroup).join(file)).ok()
    })
}

/// The cgroup of a container that serves, as it sees it itself.
fn inside(harness: &Harness, pod: &Value, port: u16) -> Option<[String; 3]> {
    let address = pod["status"]["podIP"].as_str()?;
    limits(|file| harness.fetch(address, port, &format!("/file?/sys/fs/cgroup/{file}")).ok())
}

fn resources(requests: Value, limits: Value) -> Value {
    json!({ "requests": requests, "limits": limits })
}

#[test]
fn pods_have_cgroups_of_their_class_with_their_limits() {
    let harness = Harness::start();
    let mut guaranteed = server("guaranteed");
    let both = json!({ "cpu": "200m", "memory": "64Mi" });
    guaranteed["spec"]["containers"][0]["resources"] = json!({ "limits": both });
    let mut burstable = server("burstable");
    burstable["spec"]["containers"][0]["resources"] =
        resources(json!({ "cpu": "250m" }), json!({ "memory": "64Mi" }));
    let mut whole = server("whole");
    whole["spec"]["resources"] =
        resources(json!({ "cpu": "100m" }), json!({ "cpu": "300m", "memory": "128Mi" }));
    for pod in [&guaranteed, &burstable, &whole, &server("best")] {
        harness.create("pods", pod);
    }
    let ready = |name: &str| harness.ready_pod(name);
    let path = |class: &str, pod: &Value| {
        format!("{class}/pod{}", pod["metadata"]["uid"].as_str().unwrap())
    };
    let (pod, mib) = (ready("guaranteed"), 1 << 20);
    assert_eq!(
        on_node(&harness, &path("", &pod)).unwrap(),
        expected(204, Some(200), Some(64 * mib))
    );
    let pod = ready("burstable");
    assert_eq!(
        on_node(&harness, &path("/burstable", &pod)).unwrap(),
        expected(256, None, Some(64 * mib))
    );
    let pod = ready("whole");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(
        on_node(&harness, &path("/burstable", &pod)).unwrap(),
        expected(102, Some(300), Some(128 * mib))
    );
    let seen = harness.until("the container answers", || inside(&harness, &pod, 8080));
    assert_eq!(
        seen[1..],
        expected(0, Some(300), Some(128 * mib))[1..],
        "a container without limits has the pod's"
    );
    let best = ready("best");
    assert_eq!(on_node(&harness, &path("/besteffort", &best)).unwrap(), expected(2, None, None));
    assert_eq!(on_node(&harness, "/burstable").unwrap()[0], expected(358, None, None)[0]);
    let cgroup = path("/besteffort", &best);
    harness.delete(&pod_path("best"));
    harness.until("the pod is gone", || (!harness.exists(&pod_path("best"))).then_some(()));
    assert_eq!(on_node(&harness, &cgroup), None);
}

/// \[sig-node\] Pod InPlace Resize Container: guaranteed pods with multiple containers;
/// burstable pods - extended: limits and requests grow, shrink and are added, by patch and by
/// update, and every container sees its own.
#[test]
fn a_pod_is_resized_in_place() {
    let harness = Harness::start();
    let mut pod = server("p");
    let both = |cpu: &str, memory: &str| json!({ "cpu": cpu, "memory": memory });
    let equal = |cpu: &str, memory: &str| resources(both(cpu, memory), both(cpu, memory));
    let container = |name: &str, port: &str, resources: Value| {
        json!({ "name": name, "image": POD_IMAGE, "args": ["serve", port],
                "resources": resources })
    };
    pod["spec"]["containers"] = json!([
        container("c1", "8081", equal("100m", "64Mi")),
        container("c2", "8082", equal("200m", "96Mi")),
        container("c3", "8083", equal("100m", "64Mi")),
    ]);
    harness.create("pods", &pod);
    let made = harness.ready_pod("p");
    let change = json!({ "spec": { "containers": [
        container("c1", "8081", equal("150m", "64Mi")),
        container("c2", "8082", equal("100m", "128Mi")),
        container("c3", "8083", equal("150m", "96Mi")),
    ] } });
    let resize = format!("{}/resize", pod_path("p"));
    let mut wanted = harness.get(&resize);
    assert_eq!(wanted["metadata"]["uid"], made["metadata"]["uid"]);
    for at in 0..3 {
        wanted["spec"]["containers"][at]["resources"] =
            change["spec"]["containers"][at]["resources"].clone();
    }
    harness.request(Method::PUT, &resize, Some(&wanted)).unwrap();
    let resized = harness.until("the pod is resized", || {
        let pod = harness.get(&pod_path("p"));
        let conditions = pod["status"]["conditions"].as_array()?;
        let busy = conditions.iter().any(|c| c["type"].as_str().unwrap().contains("Resize"));
        let seen = pod["status"]["observedGeneration"] == 2;
        let told = (0..3).all(|at| {
            let wanted = &wanted["spec"]["containers"][at]["resources"];
            pod["status"]["containerStatuses"][at]["resources"] == *wanted
        });
        (seen && told && !busy).then_some(pod)
    });
    let mib = 1 << 20;
    for (at, (milli, memory)) in [(150, 64), (100, 128), (150, 96)].into_iter().enumerate() {
        let status = &resized["status"]["containerStatuses"][at];
        assert_eq!(status["restartCount"], 0);
        let port = 8081 + u16::try_from(at).unwrap();
        assert_eq!(
            harness.until("the container answers", || inside(&harness, &resized, port)),
            expected(milli * 1024 / 1000, Some(milli), Some(memory * mib)),
            "c{}",
            at + 1
        );
    }
    let uid = resized["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        on_node(&harness, &format!("/pod{uid}")).unwrap(),
        expected(409, Some(400), Some(288 * mib)),
        "the pod's own cgroup follows"
    );
    assert_eq!(resized["status"]["qosClass"], "Guaranteed");
}

/// \[sig-node\] Pod InPlace Resize Container: burstable pods - extended: limits and requests are
/// added to containers that had none.
#[test]
fn limits_are_added_to_a_pod_that_runs() {
    let harness = Harness::start();
    let mut pod = server("p");
    pod["spec"]["containers"][0]["resources"] = resources(json!({ "cpu": "100m" }), json!({}));
    harness.create("pods", &pod);
    let made = harness.ready_pod("p");
    let before = harness.until("the container answers", || inside(&harness, &made, 8080));
    assert_eq!(before, expected(102, None, None));
    let added = resources(
        json!({ "cpu": "150m", "memory": "32Mi" }),
        json!({ "cpu": "300m", "memory": "64Mi" }),
    );
    let change = json!([{ "op": "replace", "path": "/spec/containers/0/resources",
                          "value": added }]);
    let resize = format!("{}/resize", pod_path("p"));
    harness.send(Method::PATCH, &resize, "application/json-patch+json", Some(&change)).unwrap();
    let resized = expected(153, Some(300), Some(64 << 20));
    harness.until("the limits are there", || {
        let pod = harness.get(&pod_path("p"));
        let status = &pod["status"]["containerStatuses"][0];
        (inside(&harness, &pod, 8080)? == resized && status["resources"] == added).then_some(())
    });
    let status = harness.get(&pod_path("p"))["status"]["containerStatuses"][0].clone();
    assert_eq!(status["restartCount"], 0);
    assert_eq!(status["allocatedResources"], added["requests"]);
}

/// Resizes the pod `p` by patch.
fn resize(harness: &Harness, change: &Value) {
    let (path, strategic) =
        (format!("{}/resize", pod_path("p")), "application/strategic-merge-patch+json");
    harness.send(Method::PATCH, &path, strategic, Some(change)).unwrap();
}

fn of_containers(change: &[(&str, Value)]) -> Value {
    let list: Vec<_> =
        change.iter().map(|(name, new)| json!({ "name": name, "resources": new })).collect();
    json!({ "spec": { "containers": list } })
}

fn condition(pod: &Value, kind: &str) -> Option<Value> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind).cloned()
}

fn until_resized(harness: &Harness, generation: i64) -> Value {
    harness.until("the pod is resized", || {
        let pod = harness.get(&pod_path("p"));
        let busy = ["PodResizePending", "PodResizeInProgress"];
        let done = busy.iter().all(|kind| condition(&pod, kind).is_none());
        (done && pod["status"]["observedGeneration"] == generation).then_some(pod)
    })
}

/// The container's cgroup, as the node sees it.
fn of_container(harness: &Harness, pod: &Value, list: &str, at: usize) -> Option<[String; 3]> {
    let class = match pod["status"]["qosClass"].as_str()? {
        "Burstable" => "/burstable",
        _ => "",
    };
    let id = pod["status"][list][at]["containerID"].as_str()?.rsplit_once('/')?.1;
    on_node(harness, &format!("{class}/pod{}/{id}", pod["metadata"]["uid"].as_str()?))
}

/// \[sig-node\] Pod InPlace Resize Container: burstable pods - extended 6 containers - various
/// operations performed (including adding limits and requests); resize with equivalents
#[test]
fn six_containers_are_resized_in_one_patch() {
    let harness = Harness::start();
    let cpu = |amount: &str| json!({ "cpu": amount });
    let memory = |amount: &str| json!({ "memory": amount });
    let before = [
        json!({}),
        resources(cpu("20m"), json!({})),
        resources(memory("16Mi"), json!({})),
        resources(cpu("20m"), cpu("40m")),
        resources(memory("16Mi"), memory("32Mi")),
        resources(cpu("2m"), cpu("10m")),
    ];
    let after = [
        resources(
            json!({ "cpu": "10m", "memory": "8Mi" }),
            json!({ "cpu": "30m", "memory": "24Mi" }),
        ),
        resources(cpu("40m"), cpu("60m")),
        resources(memory("24Mi"), memory("48Mi")),
        resources(cpu("10m"), cpu("20m")),
        resources(json!({ "memory": "20Mi", "cpu": "15m" }), memory("24Mi")),
        // What the kernel is told stays the same.
        resources(cpu("1m"), cpu("5m")),
    ];
    let mib = 1 << 20;
    let told = [
        (10, Some(30), Some(24 * mib)),
        (40, Some(60), None),
        (2, None, Some(48 * mib)),
        (10, Some(20), None),
        (15, None, Some(24 * mib)),
        (2, Some(10), None),
    ];
    let names = ["c1", "c2", "c3", "c4", "c5", "c6"];
    let mut many = server("p");
    many["spec"]["containers"] = names
        .iter()
        .zip(&before)
        .map(|(name, own)| {
            json!({ "name": name, "image": POD_IMAGE, "args": ["wait"], "resources": own })
        })
        .collect();
    harness.create("pods", &many);
    harness.ready_pod("p");
    let change: Vec<_> = names.into_iter().zip(after.iter().cloned()).collect();
    resize(&harness, &of_containers(&change));
    let resized = until_resized(&harness, 2);
    assert_eq!(resized["status"]["qosClass"], "Burstable");
    for (at, (milli, quota, memory)) in told.into_iter().enumerate() {
        let status = &resized["status"]["containerStatuses"][at];
        assert_eq!(status["resources"], after[at], "c{}", at + 1);
        assert_eq!(status["allocatedResources"], after[at]["requests"]);
        assert_eq!(status["restartCount"], 0);
        let shares = (milli * 1024 / 1000).max(2);
        assert_eq!(
            of_container(&harness, &resized, "containerStatuses", at).unwrap(),
            expected(shares, quota, memory),
            "c{}",
            at + 1
        );
    }
}

/// The pod's own resources, and those of a container that runs beside the others; what ended before
/// they began is not run again.
#[test]
fn a_whole_pod_and_its_sidecar_are_resized() {
    let harness = Harness::start();
    let mut whole = server("p");
    let own = |cpu: &str, memory: &str| {
        let least = json!({ "cpu": "100m", "memory": "16Mi" });
        resources(least, json!({ "cpu": cpu, "memory": memory }))
    };
    whole["spec"]["resources"] = own("300m", "128Mi");
    let first = json!({ "name": "first", "image": POD_IMAGE, "args": ["print", "first"],
        "resources": { "requests": { "cpu": "10m" } } });
    let sidecar = json!({ "name": "side", "image": POD_IMAGE, "args": ["wait"],
        "restartPolicy": "Always", "resources": own("150m", "64Mi") });
    whole["spec"]["initContainers"] = json!([first, sidecar]);
    harness.create("pods", &whole);
    let made = harness.ready_pod("p");
    assert_eq!(made["status"]["resources"], own("300m", "128Mi"));
    resize(
        &harness,
        &json!({ "spec": {
            "resources": own("400m", "160Mi"),
            "initContainers": [
                { "name": "first", "resources": { "requests": { "cpu": "20m" } } },
                { "name": "side", "resources": own("250m", "96Mi") },
            ],
        } }),
    );
    let resized = until_resized(&harness, 2);
    let status = &resized["status"];
    assert_eq!(status["resources"], own("400m", "160Mi"));
    assert_eq!(status["allocatedResources"], json!({ "cpu": "100m", "memory": "16Mi" }));
    assert_eq!(status["initContainerStatuses"][1]["resources"], own("250m", "96Mi"));
    let mib = 1 << 20;
    let pod = format!("/burstable/pod{}", resized["metadata"]["uid"].as_str().unwrap());
    assert_eq!(on_node(&harness, &pod).unwrap(), expected(102, Some(400), Some(160 * mib)));
    let side = of_container(&harness, &resized, "initContainerStatuses", 1).unwrap();
    assert_eq!(side, expected(102, Some(250), Some(96 * mib)));
    for (list, at) in
        [("initContainerStatuses", 0), ("initContainerStatuses", 1), ("containerStatuses", 0)]
    {
        let id = |pod: &Value| pod["status"][list][at]["containerID"].clone();
        assert_eq!(id(&resized), id(&made), "{list} {at}");
        assert_eq!(status[list][at]["restartCount"], 0);
    }
    let change = json!({ "spec": { "resources": { "requests": { "cpu": "400m",
        "memory": "160Mi" } } } });
    let path = format!("{}/resize", pod_path("p"));
    let strategic = "application/strategic-merge-patch+json";
    let error = harness.send(Method::PATCH, &path, strategic, Some(&change)).unwrap_err();
    let text = "Pod QOS Class may not change as a result of resizing";
    assert!(error.to_string().contains(text), "{error}");
}

/// A limit below what is used is not set; the pod says so, and goes on.
#[test]
fn memory_that_is_in_use_is_not_taken_away() {
    let harness = Harness::start();
    let mut full = pod("p", &["fill", "/m/file", "40", "wait"]);
    full["spec"]["volumes"] = json!([{ "name": "m", "emptyDir": { "medium": "Memory" } }]);
    let container = &mut full["spec"]["containers"][0];
    container["volumeMounts"] = json!([{ "name": "m", "mountPath": "/m" }]);
    let limited =
        |memory: &str| resources(json!({ "memory": "16Mi" }), json!({ "memory": memory }));
    container["resources"] = limited("96Mi");
    container["readinessProbe"] =
        json!({ "exec": { "command": ["/testkit-pod", "check", "/m/file"] }, "periodSeconds": 1 });
    harness.create("pods", &full);
    harness.ready_pod("p");
    let uses = |mib: i64| {
        harness.until("it has filled its memory", || {
            let stats = harness.get("/api/v1/nodes/node-1/proxy/stats/summary");
            let pods = stats["pods"].as_array()?.clone();
            let of = pods.iter().find(|pod| pod["podRef"]["name"] == "p")?;
            (of["containers"][0]["memory"]["usageBytes"].as_i64()? >= mib << 20).then_some(())
        });
    };
    uses(40);
    resize(&harness, &of_containers(&[("c", limited("20Mi"))]));
    let told = harness.until("it is told", || {
        let pod = harness.get(&pod_path("p"));
        condition(&pod, "PodResizeInProgress").filter(|told| told["reason"] == "Error")
    });
    assert_eq!(told["observedGeneration"], 2);
    let message = told["message"].as_str().unwrap();
    let limit = 20 << 20;
    let start = format!(
        "cannot decrease memory limits: [attempting to set pod memory limit ({limit}) below current \
         usage ("
    );
    assert!(message.starts_with(&start), "{message}");
    let container =
        format!("attempting to set container \"c\" memory limit ({limit}) below current usage (");
    assert!(message.contains(&container), "{message}");
    let pod = harness.get(&pod_path("p"));
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["resources"], limited("96Mi"), "it keeps what it has");
    let has = of_container(&harness, &pod, "containerStatuses", 0).unwrap();
    assert_eq!(has[2], expected(2, None, Some(96 << 20))[2]);
    harness.until("the event is there", || {
        let events = harness.get(&collection("events"));
        events["items"].as_array()?.iter().any(|e| e["reason"] == "ResizeError").then_some(())
    });
    resize(&harness, &of_containers(&[("c", limited("80Mi"))]));
    let resized = until_resized(&harness, 3);
    let status = &resized["status"]["containerStatuses"][0];
    assert_eq!((&status["resources"], &status["restartCount"]), (&limited("80Mi"), &json!(0)));
    let has = of_container(&harness, &resized, "containerStatuses", 0).unwrap();
    assert_eq!(has[2], expected(2, None, Some(80 << 20))[2]);
}
