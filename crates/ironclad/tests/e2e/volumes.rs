//! Volumes, as pods use them on a real node.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod, pod_path, server};

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

/// Makes a claim and a volume of this kind that belong together.
fn bind(harness: &Harness, claim: &str, source: Value) {
    bind_as(harness, claim, source, "Filesystem");
}

fn bind_as(harness: &Harness, claim: &str, source: Value, mode: &str) {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"], "volumeMode": mode, "volumeName": format!("pv-{claim}"),
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

/// A device of the node under another name, which the container may open and nothing else.
#[test]
fn a_claim_of_a_block_device_is_a_device_of_the_container() {
    let harness = Harness::start();
    let device = harness.cluster.scratch().join("device");
    // Of a number that no driver has: to be allowed to open it leads to another error than not.
    let number = rustix::fs::makedev(240, 7);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::BlockDevice;
    rustix::fs::mknodat(rustix::fs::CWD, &device, kind, mode, number).unwrap();
    let node = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"] }] }] } });
    let source =
        json!({ "local": { "path": device }, "nodeAffinity": node, "volumeMode": "Block" });
    bind_as(&harness, "b", source, "Block");
    let mut user = pod("user", &["cat", "/dev/data"]);
    user["spec"]["initContainers"] = json!([]);
    user["spec"]["restartPolicy"] = json!("Never");
    user["spec"]["volumes"] =
        json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "b" } }]);
    user["spec"]["containers"][0]["volumeDevices"] =
        json!([{ "name": "v", "devicePath": "/dev/data" }]);
    let told = run(&harness, &user);
    assert!(told[0].contains("No such device or address"), "{told:?}");
}

/// A volume source of every kind that holds `path/file`, and what it is called.
fn sources(objects: &Value) -> Vec<(&'static str, Value)> {
    let items = json!([{ "key": "file", "path": "path/file", "mode": 0o400 }]);
    let down = json!([{ "path": "path/file", "mode": 0o400,
                        "fieldRef": { "fieldPath": "metadata.annotations['content']" } }]);
    let name = objects["name"].clone();
    vec![
        ("configmap", json!({ "configMap": { "name": name, "items": items } })),
        ("secret", json!({ "secret": { "secretName": name, "items": items } })),
        ("downward", json!({ "downwardAPI": { "items": down } })),
        (
            "projected-map",
            json!({ "projected": { "sources": [
            { "configMap": { "name": name, "items": items } }] } }),
        ),
        (
            "projected-secret",
            json!({ "projected": { "sources": [
            { "secret": { "name": name, "items": items } }] } }),
        ),
        (
            "projected-down",
            json!({ "projected": { "sources": [
            { "downwardAPI": { "items": down } }] } }),
        ),
    ]
}

fn objects(harness: &Harness) -> Value {
    let name = json!({ "name": "objects" });
    let data = json!({ "file": "content", "other": "more" });
    harness.create("configmaps", &json!({ "metadata": name, "data": data }));
    harness.create("secrets", &json!({ "metadata": name, "stringData": data }));
    name
}

/// \[sig-storage\] ConfigMap, Secrets, Downward API volume, Projected …: should be consumable from
/// pods in volume with mappings and Item mode set; with defaultMode set; as non-root with
/// defaultMode and fsGroup set; in the same directory
#[test]
fn files_of_objects_have_their_paths_modes_and_owners() {
    let harness = Harness::start();
    let name = objects(&harness);
    let none = json!({});
    let look: [&[&str]; 2] = [&["stat", "/v/path/file"], &["cat", "/v/path/file"]];
    let annotated = |mut pod: Value| {
        pod["metadata"]["annotations"] = json!({ "content": "content" });
        pod
    };
    for (kind, source) in sources(&name) {
        let told =
            run(&harness, &annotated(steps(&format!("{kind}-a"), source.clone(), &none, &look)));
        assert!(told[0].starts_with("400 0:0 "), "{kind}: {told:?}");
        assert_eq!(told[1], "content\n", "{kind}");
        let mut grouped = annotated(steps(&format!("{kind}-b"), source, &none, &look));
        grouped["spec"]["securityContext"] = json!({ "runAsUser": 1000, "fsGroup": 1001 });
        let told = run(&harness, &grouped);
        assert!(told[0].starts_with("440 0:1001 "), "{kind}: {told:?}");
        assert_eq!(told[1], "content\n", "{kind}: the group reads it");
    }
    let every = json!({ "configMap": { "name": "objects", "defaultMode": 0o440 } });
    let told = run(
        &harness,
        &steps("modes", every, &none, &[&["stat", "/v/file"], &["stat", "/v/other"]]),
    );
    assert!(told.iter().all(|line| line.starts_with("440 0:0 ")), "{told:?}");
    let together = json!({ "projected": { "defaultMode": 0o444, "sources": [
        { "configMap": { "name": "objects", "items": [{ "key": "file", "path": "all/map" }] } },
        { "secret": { "name": "objects", "items": [{ "key": "other", "path": "all/secret" }] } },
        { "downwardAPI": { "items": [
            { "path": "all/name", "fieldRef": { "fieldPath": "metadata.name" } },
            { "path": "all/cpu", "resourceFieldRef": {
                "containerName": "c", "resource": "limits.cpu", "divisor": "1m" } }] } },
        { "serviceAccountToken": { "path": "all/token", "expirationSeconds": 600 } }] } });
    let mut pod = steps(
        "together",
        together,
        &none,
        &[
            &["cat", "/v/all/map"],
            &["cat", "/v/all/secret"],
            &["cat", "/v/all/name"],
            &["cat", "/v/all/cpu"],
            &["stat", "/v/all/token"],
            &["stat", "/v/all/name"],
        ],
    );
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1250m" } });
    let told = run(&harness, &pod);
    assert_eq!(told[..4], ["content\n", "more\n", "together\n", "1250\n"]);
    assert!(told[4].starts_with("444 0:0 tmpfs"), "{told:?}");
    assert!(told[5].starts_with("444 0:0 tmpfs"), "{told:?}");
}

/// \[sig-storage\] Downward API volume, Projected downwardAPI should provide container's cpu limit, cpu
/// request, memory limit, memory request, node allocatable (cpu, memory) as default limit if the limit
/// is not set
#[test]
fn files_tell_what_a_container_has() {
    let harness = Harness::start();
    let wanted = [
        ("limits.cpu", "1m"),
        ("limits.memory", "1Mi"),
        ("requests.cpu", "1m"),
        ("requests.memory", "1Ki"),
    ];
    let items: Vec<_> = wanted
        .iter()
        .map(|(resource, divisor)| {
            json!({ "path": resource, "resourceFieldRef": {
                "containerName": "c", "resource": resource, "divisor": divisor } })
        })
        .collect();
    let node = harness.get("/api/v1/nodes/node-1")["status"]["allocatable"].clone();
    let cpus: i64 = node["cpu"].as_str().unwrap().parse().unwrap();
    let kibibytes: i64 = node["memory"].as_str().unwrap().trim_end_matches("Ki").parse().unwrap();
    // Amounts are rounded up.
    let all = [(cpus * 1000).to_string(), ((kibibytes + 1023) / 1024).to_string()];
    let limited = json!({ "limits": { "cpu": "1250m", "memory": "64Mi" },
                          "requests": { "cpu": "250m", "memory": "32Mi" } });
    let bare = json!({ "requests": { "cpu": "250m", "memory": "32Mi" } });
    for (name, source) in [
        ("plain", json!({ "downwardAPI": { "items": items } })),
        (
            "projected",
            json!({ "projected": { "sources": [{ "downwardAPI": { "items": items } }] } }),
        ),
    ] {
        for (kind, resources, limits) in [
            ("limited", &limited, ["1250", "64"]),
            ("bare", &bare, [all[0].as_str(), all[1].as_str()]),
        ] {
            let paths = wanted.map(|(resource, _)| format!("/v/{resource}"));
            let looks = paths.each_ref().map(|path| ["cat", path.as_str()]);
            let looks: Vec<&[&str]> = looks.iter().map(|look| &look[..]).collect();
            let mut pod = steps(&format!("{name}-{kind}"), source.clone(), &json!({}), &looks);
            pod["spec"]["containers"][0]["resources"] = resources.clone();
            let told = run(&harness, &pod);
            let told: Vec<_> = told.iter().map(|line| line.trim()).collect();
            assert_eq!(told, [limits[0], limits[1], "250", "32768"], "{name} {kind}");
        }
    }
}

/// \[sig-storage\] Secrets should be able to mount in a volume regardless of a different secret
/// existing with same name in different namespace; ConfigMap, Secrets, Projected … should be
/// consumable in multiple volumes in the same pod; binary data should be reflected in volume; EmptyDir
/// wrapper volumes should not conflict
#[test]
fn objects_are_told_apart_and_mounted_more_than_once() {
    let harness = Harness::start();
    let namespace = json!({ "metadata": { "name": "other" } });
    harness.request(Method::POST, "/api/v1/namespaces", Some(&namespace)).unwrap();
    let secret =
        |text: &str| json!({ "metadata": { "name": "same" }, "stringData": { "file": text } });
    let others = "/api/v1/namespaces/other/secrets";
    harness.request(Method::POST, others, Some(&secret("theirs"))).unwrap();
    harness.create("secrets", &secret("ours"));
    let map = json!({ "metadata": { "name": "same" }, "binaryData": { "bytes": "3srK/rrQ/v8=" },
                      "data": { "file": "of the map" } });
    harness.create("configmaps", &map);
    let sources = [
        json!({ "name": "s1", "secret": { "secretName": "same" } }),
        json!({ "name": "s2", "secret": { "secretName": "same" } }),
        json!({ "name": "m1", "configMap": { "name": "same" } }),
        json!({ "name": "m2", "configMap": { "name": "same" } }),
        json!({ "name": "p1", "projected": { "sources": [{ "secret": { "name": "same" } }] } }),
        json!({ "name": "p2", "projected": { "sources": [{ "configMap": { "name": "same" } }] } }),
    ];
    let mut many = server("many");
    let mounts: Vec<_> = sources
        .iter()
        .map(|source| {
            let name = source["name"].as_str().unwrap();
            json!({ "name": name, "mountPath": format!("/{name}") })
        })
        .collect();
    many["spec"]["volumes"] = json!(sources);
    many["spec"]["containers"][0]["volumeMounts"] = json!(mounts);
    harness.create("pods", &many);
    let address = harness.ready_pod("many")["status"]["podIP"].as_str().unwrap().to_owned();
    for (volume, text) in [
        ("s1", "ours"),
        ("s2", "ours"),
        ("m1", "of the map"),
        ("m2", "of the map"),
        ("p1", "ours"),
        ("p2", "of the map"),
    ] {
        let read = harness.fetch(&address, 8080, &format!("/file?/{volume}/file")).unwrap();
        assert_eq!(read, text, "{volume}");
    }
    let look: [&[&str]; 2] = [&["hex", "/v/bytes"], &["hex", "/v/file"]];
    let source = json!({ "configMap": { "name": "same" } });
    let told = run(&harness, &steps("bytes", source, &json!({}), &look));
    assert_eq!(told[0], "de ca ca fe ba d0 fe ff\n");
}

/// \[sig-storage\] ConfigMap, Secrets, Projected …: optional updates should be reflected in volume;
/// updates should be reflected in volume; binary data should be reflected in volume; Downward API
/// volume should update labels and annotations on modification
#[test]
fn files_follow_what_becomes_of_their_objects() {
    let harness = Harness::start();
    for name in ["changed", "deleted"] {
        let data = json!({ "data-1": "value-1" });
        harness.create("configmaps", &json!({ "metadata": { "name": name }, "data": data }));
        harness.create("secrets", &json!({ "metadata": { "name": name }, "stringData": data }));
    }
    let binary =
        json!({ "metadata": { "name": "binary" }, "binaryData": { "dump": "YmluYXJ5Cg==" } });
    harness.create("configmaps", &binary);
    let mut watching = server("watching");
    watching["metadata"]["annotations"] = json!({ "builder": "bar" });
    let mut volumes = vec![json!({ "name": "down", "downwardAPI": { "items": [
        { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        { "path": "annotations", "fieldRef": { "fieldPath": "metadata.annotations" } }] } })];
    volumes.push(json!({ "name": "bin", "configMap": { "name": "binary" } }));
    for name in ["changed", "deleted", "created"] {
        volumes.push(json!({ "name": format!("m-{name}"),
                             "configMap": { "name": name, "optional": true } }));
        volumes.push(json!({ "name": format!("s-{name}"),
                             "secret": { "secretName": name, "optional": true } }));
        volumes.push(json!({ "name": format!("p-{name}"), "projected": { "sources": [
            { "configMap": { "name": name, "optional": true,
                             "items": [{ "key": "data-1", "path": "data-1" }] } }] } }));
    }
    let mounts = volumes.iter().map(|volume| {
        let name = volume["name"].as_str().unwrap();
        json!({ "name": name, "mountPath": format!("/{name}") })
    });
    watching["spec"]["containers"][0]["volumeMounts"] = mounts.collect();
    watching["spec"]["volumes"] = volumes.into();
    harness.create("pods", &watching);
    let address = harness.ready_pod("watching")["status"]["podIP"].as_str().unwrap().to_owned();
    let read = |path: &str| harness.fetch(&address, 8080, &format!("/file?{path}")).unwrap();
    let kinds = ["m", "s", "p"];
    for kind in kinds {
        assert_eq!(read(&format!("/{kind}-changed/data-1")), "value-1");
        assert!(read(&format!("/{kind}-created/data-1")).contains("No such file"));
    }
    assert_eq!(read("/bin/dump"), "binary\n");
    let change = json!({ "data": { "data-1": "dmFsdWUtMg==" } });
    harness.patch(&format!("{}/changed", collection("secrets")), &change);
    let change = json!({ "data": { "data-1": "value-2" } });
    harness.patch(&format!("{}/changed", collection("configmaps")), &change);
    for resource in ["configmaps", "secrets"] {
        harness.delete(&format!("{}/deleted", collection(resource)));
    }
    let data = json!({ "data-1": "value-1" });
    harness.create("configmaps", &json!({ "metadata": { "name": "created" }, "data": data }));
    harness.create("secrets", &json!({ "metadata": { "name": "created" }, "stringData": data }));
    let late = json!({ "metadata": { "labels": { "key3": "value3" },
                                     "annotations": { "builder": "foo" } } });
    harness.patch(&pod_path("watching"), &late);
    let becomes = |path: String, text: &str| {
        harness
            .until(&format!("{path} becomes {text}"), || read(&path).contains(text).then_some(()));
    };
    for kind in kinds {
        becomes(format!("/{kind}-changed/data-1"), "value-2");
        becomes(format!("/{kind}-deleted/data-1"), "No such file");
        becomes(format!("/{kind}-created/data-1"), "value-1");
    }
    becomes("/down/labels".to_owned(), "key3=\"value3\"");
    becomes("/down/annotations".to_owned(), "builder=\"foo\"");
}

/// \[sig-storage\] EmptyDir volumes should support (root|non-root,0644|0666|0777,default|tmpfs);
/// volume on tmpfs should have the correct mode; pod should support shared volumes between
/// containers
#[test]
fn empty_directories_are_anybodys() {
    let harness = Harness::start();
    for (medium, system) in [("", ""), ("Memory", "tmpfs")] {
        for (user, owner) in [(0, "0:0"), (1001, "1001:0")] {
            for mode in ["0644", "0666", "0777"] {
                let name = format!("e-{}-{user}-{mode}", medium.to_lowercase());
                let name = name.replace("--", "-");
                let volume = json!({ "emptyDir": { "medium": medium } });
                let mut pod = steps(
                    &name,
                    volume,
                    &json!({}),
                    &[
                        &["stat", "/v"],
                        &["create", "/v/file", mode, "new file"],
                        &["cat", "/v/file"],
                        &["stat", "/v/file"],
                    ],
                );
                pod["spec"]["securityContext"] = json!({ "runAsUser": user });
                let told = run(&harness, &pod);
                assert!(told[0].starts_with("777 0:0 "), "{name}: {told:?}");
                assert_eq!(told[0].contains("tmpfs"), !system.is_empty(), "{name}: {told:?}");
                assert_eq!(told[2], "new file\n", "{name}");
                // What the mask of the process leaves of it.
                let left = u32::from_str_radix(mode, 8).unwrap() & !0o022;
                assert!(told[3].starts_with(&format!("{left:o} {owner} ")), "{name}: {told:?}");
            }
        }
    }
}

/// \[sig-storage\] Subpath Atomic writer volumes should support subpaths with configmap, secret,
/// downward and projected pod; with configmap pod with mountPath of existing file
#[test]
fn parts_of_volumes_are_mounted_over_what_is_there() {
    let harness = Harness::start();
    let name = objects(&harness);
    for (kind, source) in sources(&name) {
        let part = json!({ "subPath": "path/file", "mountPath": "/etc/resolv.conf" });
        let mut pod = steps(
            kind,
            source,
            &part,
            &[&["cat", "/etc/resolv.conf"], &["stat", "/etc/resolv.conf"]],
        );
        pod["metadata"]["annotations"] = json!({ "content": "content" });
        let told = run(&harness, &pod);
        assert_eq!(told[0], "content\n", "{kind}");
        assert!(told[1].starts_with("400 0:0 "), "{kind}: {told:?}");
    }
}

/// \[sig-storage\] EmptyDir wrapper volumes should not cause race condition when used for
/// configmaps; should not conflict
#[test]
fn many_volumes_of_many_pods_do_not_disturb_each_other() {
    const VOLUMES: usize = 50;
    const PODS: usize = 5;
    const ROUNDS: usize = 3;
    let harness = Harness::start();
    let names = || (0..VOLUMES).map(|at| format!("racey-{at}"));
    for name in names() {
        let map = json!({ "metadata": { "name": name }, "data": { "data-1": name } });
        harness.create("configmaps", &map);
    }
    for round in 0..ROUNDS {
        race(&harness, &format!("racing-{round}"), PODS, names);
    }
}

/// Runs so many pods, each with volumes of all these.
fn race<I: Iterator<Item = String>>(
    harness: &Harness,
    app: &str,
    pods: usize,
    names: impl Fn() -> I,
) {
    for at in 0..pods {
        let mut racing = server(&format!("{app}-{at}"));
        racing["metadata"]["labels"] = json!({ "app": app });
        let volume = |name: String| {
            json!({ "name": name, "configMap": { "name": name,
                    "items": [{ "key": "data-1", "path": "data-1" }] } })
        };
        racing["spec"]["volumes"] = names().map(volume).collect();
        let mount = |name: String| json!({ "name": name, "mountPath": format!("/etc/{name}") });
        racing["spec"]["containers"][0]["volumeMounts"] = names().map(mount).collect();
        harness.create("pods", &racing);
    }
    for pod in harness.ready_pods(&format!("app={app}"), pods) {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        let address = pod["status"]["podIP"].as_str().unwrap();
        for name in names().step_by(20) {
            let path = format!("/file?/etc/{name}/data-1");
            assert_eq!(harness.fetch(address, 8080, &path).unwrap(), name);
        }
    }
    let of_round = format!("{}?labelSelector=app={app}", collection("pods"));
    harness.request(Method::DELETE, &of_round, None).unwrap();
    harness.until("the round is over", || {
        harness.get(&of_round)["items"].as_array().unwrap().is_empty().then_some(())
    });
}
