//! Volumes of pods, as containers get them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::{World, one};

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";

/// A bound claim `c`, and the volume `pv` of this kind that it is bound to.
fn bind(world: &World, source: Value, extra: Value) {
    let mut spec = json!({ "claimRef": { "namespace": "n", "name": "c", "uid": "u-c" } });
    merge(&mut spec, source);
    merge(&mut spec, extra);
    let volume = json!({ "metadata": { "name": "pv" }, "spec": spec });
    world.api.put("/api/v1/persistentvolumes/pv", volume);
    let claim = json!({
        "metadata": { "name": "c", "namespace": "n", "uid": "u-c" },
        "spec": { "volumeName": "pv" },
        "status": { "phase": "Bound" },
    });
    world.api.put(&format!("{CLAIMS}/c"), claim);
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn claiming(mount: Value) -> Value {
    let mut full = json!({ "name": "v", "mountPath": "/v" });
    merge(&mut full, mount);
    let mut spec = one(json!({ "volumeMounts": [full] }));
    spec["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    spec
}

fn mount_of(world: &World, path: &str) -> cri::Mount {
    let mounts = world.runtime.config("c").unwrap().mounts;
    mounts.into_iter().find(|mount| mount.container_path == path).unwrap()
}

fn data(world: &World) -> PathBuf {
    let path = world.dir.path().join("data");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), "kept").unwrap();
    path
}

#[tokio::test]
async fn a_pod_waits_until_its_claim_is_bound() {
    let world = World::new().await;
    let data = data(&world);
    let mut spec = claiming(json!({}));
    spec["volumes"][0]["persistentVolumeClaim"]["readOnly"] = true.into();
    world.create_pod("p", spec);
    let told = |start: &str| world.events().iter().any(|event| event.starts_with(start));
    let start = "FailedMount: Unable to attach or mount volumes: unmounted volumes=[v], unattached \
                 volumes=[], failed to process volumes=[v]: error processing PVC n/c: ";
    let absent = format!("{start}failed to fetch PVC from API server: ");
    world.until("the missing claim is told", || told(&absent)).await;
    let claim = json!({ "metadata": { "name": "c", "namespace": "n", "uid": "u-c" },
                        "spec": {}, "status": { "phase": "Pending" } });
    world.api.put(&format!("{CLAIMS}/c"), claim);
    let unbound = format!(
        "{start}PVC n/c has non-bound phase (\"Pending\") or empty pvc.Spec.VolumeName (\"\")"
    );
    world.until("the unbound claim is told", || told(&unbound)).await;
    assert!(world.runtime.calls().is_empty(), "no sandbox before the volumes");
    bind(&world, json!({ "hostPath": { "path": data } }), json!({}));
    world.until_ready("p").await;
    let mount = mount_of(&world, "/v");
    assert_eq!(Path::new(&mount.host_path), data);
    assert!(mount.readonly, "the pod said so of its volume");
    world.delete_pod("p", 0);
    world.until("the pod is gone", || world.pod("p").is_none()).await;
    assert!(data.join("file").exists());
}

#[tokio::test]
async fn a_local_volume_is_given_to_the_pods_group_and_used_in_part() {
    let world = World::new().await;
    let data = data(&world);
    bind(&world, json!({ "local": { "path": data } }), json!({}));
    let mut spec = claiming(json!({ "subPathExpr": "of-$(WHO)" }));
    spec["containers"][0]["env"] = json!([{ "name": "WHO", "value": "me" }]);
    spec["securityContext"] = json!({ "fsGroup": 1001 });
    world.create_pod("p", spec);
    world.until_ready("p").await;
    assert_eq!(std::fs::metadata(data.join("file")).unwrap().gid(), 1001);
    assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o7777, 0o2775);
    let mount = mount_of(&world, "/v");
    let part = world.dir.path().join("kubelet/pods/u-p/volume-subpaths/v/c/0");
    assert_eq!(Path::new(&mount.host_path), part);
    std::fs::write(part.join("new"), "").unwrap();
    assert!(data.join("of-me/new").exists());
    world.delete_pod("p", 0);
    world.until("the pod is gone", || world.pod("p").is_none()).await;
    assert!(!part.exists());
    assert!(data.join("of-me/new").exists(), "what is mounted is not removed with the pod");
}

#[tokio::test]
async fn a_volume_must_be_on_this_node_and_be_there() {
    let world = World::new().await;
    let missing = world.dir.path().join("missing");
    let elsewhere = json!({ "nodeAffinity": { "required": { "nodeSelectorTerms": [
        { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In",
                                 "values": ["other"] }] }] } } });
    bind(&world, json!({ "local": { "path": missing } }), elsewhere);
    world.create_pod("p", claiming(json!({})));
    let told = |text: &str| world.events().iter().any(|event| event == text);
    world
        .until("the other node is told", || {
            told(
                "FailedMount: MountVolume.NodeAffinity check failed for volume \"pv\" : no \
                 matching NodeSelectorTerms",
            )
        })
        .await;
    bind(&world, json!({ "local": { "path": missing } }), json!({}));
    let text = format!(
        "FailedMount: MountVolume.NewMounter initialization failed for volume \"pv\" : path \
         {missing:?} does not exist"
    );
    world.until("the missing path is told", || told(&text)).await;
    std::fs::create_dir(&missing).unwrap();
    world.until_ready("p").await;
}

#[tokio::test]
async fn a_block_volume_is_a_device_of_the_container() {
    let world = World::new().await;
    let device = world.dir.path().join("device");
    let kind = nix::sys::stat::SFlag::S_IFBLK;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::sys::stat::mknod(&device, kind, mode, nix::sys::stat::makedev(7, 0)).unwrap();
    bind(&world, json!({ "local": { "path": device } }), json!({ "volumeMode": "Block" }));
    let mut spec = one(json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/data" }] }));
    spec["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    world.create_pod("p", spec);
    world.until_ready("p").await;
    let devices = world.runtime.config("c").unwrap().devices;
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].container_path, "/dev/data");
    assert_eq!(Path::new(&devices[0].host_path), device.canonicalize().unwrap());
    assert_eq!(devices[0].permissions, "mrw");
    world.create_pod("q", claiming(json!({})));
    world
        .until("the wrong use is told", || {
            let text = "volume v has volumeMode Block, but is specified in volumeMounts";
            world.events().iter().any(|event| event.ends_with(text))
        })
        .await;
}

#[tokio::test]
async fn an_ephemeral_claim_must_be_the_pods_own() {
    let world = World::new().await;
    let data = data(&world);
    bind(&world, json!({ "hostPath": { "path": data } }), json!({}));
    let mut claim = world.api.get(&format!("{CLAIMS}/c")).unwrap();
    claim["metadata"]["name"] = "p-v".into();
    world.api.put(&format!("{CLAIMS}/p-v"), claim.clone());
    let mut spec = claiming(json!({}));
    spec["volumes"] =
        json!([{ "name": "v", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } }]);
    world.create_pod("p", spec);
    let refused = "PVC n/p-v was not created for pod n/p (pod is not owner)";
    world
        .until("the foreign claim is told", || {
            world.events().iter().any(|event| event.ends_with(refused))
        })
        .await;
    claim["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Pod",
        "name": "p", "uid": "u-p", "controller": true }]);
    world.api.put(&format!("{CLAIMS}/p-v"), claim);
    world.until_ready("p").await;
    assert_eq!(Path::new(&mount_of(&world, "/v").host_path), data);
}

#[tokio::test]
async fn a_volume_for_one_pod_is_refused_to_the_second() {
    let world = World::new().await;
    let data = data(&world);
    let alone = json!({ "accessModes": ["ReadWriteOncePod"] });
    bind(&world, json!({ "hostPath": { "path": data } }), alone);
    world.create_pod("p", claiming(json!({})));
    world.until_ready("p").await;
    world.create_pod("q", claiming(json!({})));
    let text = "FailedMount: MountVolume.SetUp failed for volume \"pv\" : volume uses the \
                ReadWriteOncePod access mode and is already in use by another pod";
    world
        .until("the second user is told", || world.events().iter().any(|event| event == text))
        .await;
    world.delete_pod("p", 0);
    world.until_ready("q").await;
}

#[tokio::test]
async fn a_path_that_leaves_its_volume_is_refused() {
    let world = World::new().await;
    let data = data(&world);
    bind(&world, json!({ "hostPath": { "path": data } }), json!({}));
    std::os::unix::fs::symlink("/etc", data.join("out")).unwrap();
    world.create_pod("p", claiming(json!({ "subPath": "out/ssl" })));
    let waiting =
        || world.pod("p").unwrap()["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    world.until("it waits", || waiting()["reason"] == "CreateContainerConfigError").await;
    assert_eq!(
        waiting()["message"],
        "failed to prepare subPath for volumeMount \"v\" of container \"c\""
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fills_the_disk_is_evicted() {
    let world = World::new().await;
    let mut spec = one(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
    spec["volumes"] = json!([{ "name": "v", "emptyDir": { "sizeLimit": "64Ki" } }]);
    world.create_pod("p", spec);
    world.until_ready("p").await;
    let path = PathBuf::from(mount_of(&world, "/v").host_path);
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert_eq!(world.condition("p", "Ready"), "True");
    std::fs::write(path.join("large"), vec![1; 128 << 10]).unwrap();
    let status = || world.pod("p").unwrap()["status"].clone();
    world.until("it is evicted", || status()["phase"] == "Failed").await;
    let text = "Usage of EmptyDir volume \"v\" exceeds the limit \"64Ki\". ";
    assert_eq!(
        (status()["reason"].clone(), status()["message"].clone()),
        (json!("Evicted"), json!(text))
    );
    assert_eq!(world.condition("p", "DisruptionTarget"), "True");
    assert!(world.runtime.calls().contains(&"stop c 1s".to_owned()));
    let told = || world.events().contains(&format!("Evicted: {text}"));
    world.until("it is told", told).await;
}

/// Variables that an init container leaves in a file for the others.
#[tokio::test]
async fn variables_come_from_a_file_of_a_volume() {
    let world = World::new().await;
    let from = |key: &str, optional: bool| {
        json!({ "fileKeyRef": { "volumeName": "v", "path": "own/env", "key": key,
                                "optional": optional } })
    };
    let env = json!([{ "name": "A", "valueFrom": from("KEY", false) },
                     { "name": "B", "valueFrom": from("NONE", true) }]);
    let mut spec = one(json!({ "env": env }));
    spec["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
    world.create_pod("p", spec);
    let waiting =
        || world.pod("p").unwrap()["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    world.until("it waits", || waiting()["reason"] == "CreateContainerConfigError").await;
    assert_eq!(waiting()["message"], "file \"own/env\" not found");
    let volume = world.dir.path().join("kubelet/pods/u-p/volumes/kubernetes.io~empty-dir/v");
    std::fs::create_dir(volume.join("own")).unwrap();
    std::fs::write(volume.join("own/env"), "# left\nKEY='a value'\n").unwrap();
    world.api.change(&crate::world::path("p"), |pod| {
        pod["metadata"]["annotations"] = json!({ "look": "again" });
    });
    world.until_ready("p").await;
    let envs = world.runtime.config("c").unwrap().envs;
    assert!(envs.iter().any(|e| e.key == "A" && e.value == "a value"), "{envs:?}");
    assert!(!envs.iter().any(|e| e.key == "B"));
}

#[tokio::test]
async fn trust_bundles_are_files_that_follow_them() {
    let world = World::new().await;
    let bundles = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
    let pem =
        |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let bundle = |name: &str, signer: &str, text: &str| {
        let labels = json!({ "for": "pods" });
        json!({ "metadata": { "name": name, "labels": labels },
                "spec": { "signerName": signer, "trustBundle": pem(text) } })
    };
    world.api.put(&format!("{bundles}/one"), bundle("one", "example.com/s", "AAAA"));
    world.api.put(&format!("{bundles}/two"), bundle("two", "example.com/s", "BBBB"));
    world.api.put(&format!("{bundles}/other"), bundle("other", "example.com/o", "CCCC"));
    let selector = json!({ "matchLabels": { "for": "pods" } });
    let mut spec = one(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
    spec["volumes"] = json!([{ "name": "v", "projected": { "sources": [
        { "clusterTrustBundle": { "name": "one", "path": "by-name" } },
        { "clusterTrustBundle": { "signerName": "example.com/s", "labelSelector": selector,
                                  "path": "by-signer" } },
        { "clusterTrustBundle": { "name": "none", "optional": true, "path": "none" } }] } }]);
    world.create_pod("p", spec.clone());
    world.until_ready("p").await;
    let path = PathBuf::from(mount_of(&world, "/v").host_path);
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    assert_eq!(read("by-name"), pem("AAAA"));
    assert_eq!(read("by-signer"), pem("AAAA") + &pem("BBBB"));
    assert_eq!(read("none"), "");
    world.api.put(&format!("{bundles}/two"), bundle("two", "example.com/s", "DDDD"));
    world.until("the file follows", || read("by-signer").contains("DDDD")).await;
    spec["volumes"][0]["projected"]["sources"][2]["clusterTrustBundle"]["optional"] = false.into();
    world.create_pod("q", spec);
    let text = "FailedMount: MountVolume.SetUp failed for volume \"v\" : while getting \
                ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"none\" not found";
    world.until("the missing one is told", || world.events().iter().any(|e| e == text)).await;
}

#[tokio::test]
async fn a_pod_gets_a_certificate_for_a_key_of_its_own() {
    let world = World::new().await;
    let account = json!({ "metadata": { "name": "default", "namespace": "n", "uid": "u-a" } });
    world.api.put("/api/v1/namespaces/n/serviceaccounts/default", account);
    let mut spec = one(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
    spec["volumes"] = json!([{ "name": "v", "projected": { "sources": [{ "podCertificate": {
        "signerName": "example.com/s", "keyType": "ED25519", "credentialBundlePath": "both",
        "userAnnotations": { "example.com/own": "1" } } }] } }]);
    world.create_pod("p", spec);
    let requests = "/apis/certificates.k8s.io/v1beta1/namespaces/n/podcertificaterequests/";
    let asked = || world.api.below(requests);
    world.until("it is asked for", || asked().len() == 1).await;
    let request = asked().remove(0);
    let told = &request["spec"];
    assert_eq!(
        (told["podUID"].clone(), told["serviceAccountUID"].clone()),
        (json!("u-p"), json!("u-a"))
    );
    assert_eq!(
        (told["nodeName"].clone(), told["maxExpirationSeconds"].clone()),
        (json!("node"), json!(86_400))
    );
    assert_eq!(told["unverifiedUserAnnotations"], json!({ "example.com/own": "1" }));
    assert!(world.runtime.calls().is_empty(), "it waits for its certificate");
    let issue = |request: &Value, chain: &str, refresh: &str| {
        let path = format!("{requests}{}", request["metadata"]["name"].as_str().unwrap());
        world.api.change(&path, |request| {
            request["status"] = json!({ "certificateChain": chain, "beginRefreshAt": refresh });
        });
    };
    issue(&request, "first", "2026-01-01T00:00:00Z");
    world.until("another one is asked for, as the signer wants", || asked().len() == 2).await;
    let path = || PathBuf::from(mount_of(&world, "/v").host_path).join("both");
    world.until_ready("p").await;
    let first = std::fs::read_to_string(path()).unwrap();
    assert!(
        first.starts_with("-----BEGIN PRIVATE KEY-----") && first.ends_with("first"),
        "{first}"
    );
    let second = asked().into_iter().find(|r| r["status"].is_null()).unwrap();
    issue(&second, "second", "2099-01-01T00:00:00Z");
    let read = || std::fs::read_to_string(path()).unwrap();
    world.until("the file follows", || read().ends_with("second")).await;
    let key = |text: &str| text.split("-----END").next().unwrap().to_owned();
    assert_ne!(key(&read()), key(&first), "every certificate has a key of its own");
}

/// Whether the node has the helper or not, there is no such server.
#[tokio::test]
async fn a_file_server_that_cannot_be_mounted_is_told() {
    let world = World::new().await;
    let mut spec = one(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
    spec["volumes"] = json!([{ "name": "v", "nfs": { "server": "a.invalid", "path": "/x" } }]);
    world.create_pod("p", spec);
    let head = "FailedMount: MountVolume.SetUp failed for volume \"v\" : mount failed: exit status";
    let told = || world.events().into_iter().find(|event| event.starts_with(head));
    world.until("it is told", || told().is_some()).await;
    let text = told().unwrap();
    assert!(text.contains("\nMounting arguments: -t nfs a.invalid:/x "), "{text}");
    assert_eq!(world.runtime.calls(), Vec::<String>::new());
}
