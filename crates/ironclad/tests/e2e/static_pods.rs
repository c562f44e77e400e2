//! Pods of files on the node.

use http::Method;
use serde_json::Value;
use testkit::Options;

use crate::harness::{Harness, IRONCLAD, pod_path, server};

#[test]
fn a_file_on_the_node_is_a_pod_for_as_long_as_it_is_there() {
    let manifests = tempfile::tempdir().unwrap();
    let file = manifests.path().join("web.yaml");
    let mut options = Options::new(IRONCLAD);
    let path = manifests.path().display().to_string();
    options.args.extend(["--pod-manifest-path".to_owned(), path]);
    let harness = Harness::with(options);
    let write = |pod: &Value| std::fs::write(&file, pod.to_string()).unwrap();
    write(&server("web"));

    let nodes = harness.get("/api/v1/nodes");
    let node = &nodes["items"][0]["metadata"];
    let name = format!("web-{}", node["name"].as_str().unwrap());
    let pod = harness.ready_pod(&name);
    let annotations = &pod["metadata"]["annotations"];
    let hash = annotations["kubernetes.io/config.hash"].clone();
    assert_eq!(annotations["kubernetes.io/config.mirror"], hash);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], node["uid"]);
    let address = pod["status"]["podIP"].as_str().unwrap();
    assert_eq!(harness.fetch(address, 8080, "/hostname").unwrap(), name);

    // The mirror pod comes again, and what it shows has not ended.
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    harness.delete(&pod_path(&name));
    harness.until("the mirror pod comes again", || {
        let other = harness.request(Method::GET, &pod_path(&name), None).ok()?;
        (other["metadata"]["uid"] != pod["metadata"]["uid"]).then_some(())
    });
    assert_eq!(container(&harness.ready_pod(&name)), container(&pod));

    let mut changed = server("web");
    changed["spec"]["containers"][0]["env"] = serde_json::json!([{ "name": "A", "value": "b" }]);
    write(&changed);
    harness.until("another pod is shown", || {
        let other = harness.ready_pod(&name);
        (other["metadata"]["annotations"]["kubernetes.io/config.mirror"] != hash)
            .then(|| assert_ne!(container(&other), container(&pod)))
    });
    std::fs::remove_file(&file).unwrap();
    harness.until("the pod is gone", || (!harness.exists(&pod_path(&name))).then_some(()));
}
