//! Volumes, as pods use them on a real node.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod, pod_path};

/// A pod that runs the tests' program once for each list of arguments, one after the other, with a
/// volume at `/v`.
fn steps(name: &str, volume: Value, mount: &Value, steps: &[&[&str]]) -> Value {
    let mut pod = pod(name, steps[steps.len() - 1]);
    let mut full = json!({ "name": "v", "mountPath": "/v" });
    for (key, value) in mount.as_object().unwrap() {
        full[key] = value.clone();
    }
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = json!([volume]);
    spec["volumes"][0]["name"] = json!("v");
    spec["containers"][0]["volumeMounts"] = json!([full.clone()]);
    let before = &steps[..steps.len() - 1];
    let inits = before.iter().enumerate().map(|(at, args)| {
        json!({ "name": format!("i{at}"), "image": POD_IMAGE, "args": args,
                "volumeMounts": [full.clone()] })
    });
    spec["initContainers"] = inits.collect();
    pod
}

/// Runs it, and gives what each step printed.
fn run(harness: &Harness, pod: &Value) -> Vec<String> {
    let name = pod["metadata"]["name"].as_str().unwrap();
    harness.create("pods", pod);
    harness.until(&format!("{name} has ended"), || {
        let phase = harness.get(&pod_path(name))["status"]["phase"].clone();
        matches!(phase.as_str()?, "Succeeded" | "Failed").then_some(())
    });
    let inits = pod["spec"]["initContainers"].as_array().unwrap();
    let names = inits.iter().chain(pod["spec"]["containers"].as_array().unwrap());
    names
        .map(|container| {
            let container = container["name"].as_str().unwrap();
            harness.text(&format!("{}/log?container={container}", pod_path(name)))
        })
        .collect()
}

/// Binds a claim to a volume of this kind by hand.
fn bind(harness: &Harness, claim: &str, source: Value) {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"], "volumeName": format!("pv-{claim}"),
        "storageClassName": "", "resources": { "requests": { "storage": "1Mi" } },
    });
    let object = json!({ "metadata": { "name": claim }, "spec": spec });
    let made = harness.create("persistentvolumeclaims", &object);
    for gone in ["volumeName", "resources"] {
        spec.as_object_mut().unwrap().remove(gone);
    }
    spec["capacity"] = json!({ "storage": "1Mi" });
    spec["claimRef"] =
        json!({ "namespace": "default", "name": claim, "uid": made["metadata"]["uid"] });
    for (key, value) in source.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let volume = json!({ "metadata": { "name": format!("pv-{claim}") }, "spec": spec });
    harness.request(Method::POST, "/api/v1/persistentvolumes", Some(&volume)).unwrap();
    let path = format!("{}/{claim}/status", collection("persistentvolumeclaims"));
    let bound = json!({ "status": { "phase": "Bound" } });
    harness.request(Method::PATCH, &path, Some(&bound)).unwrap();
}

/// Claims that are bound, to both kinds of volumes that are a path of the node: written by one
/// pod, read by another, in part, by a group.
#[test]
fn a_claim_is_a_volume_of_pods() {
    let harness = Harness::start();
    let (host, local) = (harness.cluster.scratch().join("h"), harness.cluster.scratch().join("l"));
    std::fs::create_dir(&local).unwrap();
    let node = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"] }] }] } });
    bind(&harness, "h", json!({ "hostPath": { "path": host, "type": "DirectoryOrCreate" } }));
    bind(&harness, "l", json!({ "local": { "path": local }, "nodeAffinity": node }));
    let claim = |name: &str| json!({ "persistentVolumeClaim": { "claimName": name } });
    let none = json!({});

    let writing = steps("writing", claim("h"), &none, &[&["create", "/v/file", "0644", "kept"]]);
    run(&harness, &writing);
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "kept");
    let part = json!({ "subPath": "file" });
    let told = run(&harness, &steps("part", claim("h"), &part, &[&["cat", "/v"]]));
    assert_eq!(told, ["kept\n"]);
    let mut only = claim("h");
    only["persistentVolumeClaim"]["readOnly"] = json!(true);
    let told = run(&harness, &steps("only", only, &none, &[&["write", "/v/file", "lost"]]));
    assert!(told[0].contains("Read-only file system"), "{told:?}");

    let expression = json!({ "subPathExpr": "$(NAME)/sub" });
    let mut grouped = steps(
        "grouped",
        claim("l"),
        &expression,
        &[&["create", "/v/mine", "0600", "of the group"], &["stat", "/v"], &["stat", "/v/mine"]],
    );
    grouped["spec"]["securityContext"] =
        json!({ "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1001 });
    let name = json!([{ "name": "NAME", "value": "part" }]);
    grouped["spec"]["initContainers"][0]["env"] = name.clone();
    grouped["spec"]["initContainers"][1]["env"] = name.clone();
    grouped["spec"]["containers"][0]["env"] = name;
    let told = run(&harness, &grouped);
    assert!(told[1].starts_with("2775 0:1001 "), "{told:?}");
    assert!(told[2].starts_with("600 1000:1001 "), "{told:?}");
    assert_eq!(std::fs::read_to_string(local.join("part/sub/mine")).unwrap(), "of the group");

    harness.delete(&pod_path("grouped"));
    harness.until("the pod is gone", || (!harness.exists(&pod_path("grouped"))).then_some(()));
    assert!(local.join("part/sub/mine").exists(), "the volume outlives the pod");
}
