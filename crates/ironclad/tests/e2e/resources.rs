//! What pods may use: their cgroups, and how they change while the pods run.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, pod_path, server};

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
