//! The store in directories of its own.

use std::io::Write;

use tar::{Builder, Header};

use super::*;

pub(super) struct Files(pub(super) Vec<(String, Vec<u8>)>);

impl Files {
    pub(super) fn tar(&self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, bytes) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }
}

fn layer(text: &str) -> Vec<u8> {
    Files(vec![("etc/text".into(), text.into())]).tar()
}

pub(super) fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": config_architecture(), "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": null, "Entrypoint": ["/bin/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

fn config_architecture() -> &'static str {
    crate::config::architecture()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI archive whose second layer is gzip and whose third is zstd.
pub(super) fn oci(name: &str, text: &str) -> Files {
    let plain = [layer("base"), layer(text), layer("top")];
    let stored =
        [plain[0].clone(), gzip(&plain[1]), zstd::stream::encode_all(&plain[2][..], 1).unwrap()];
    let config = config(&[&plain[0], &plain[1], &plain[2]]);
    let descriptor = |bytes: &[u8], media_type: &str| {
        serde_json::json!({
            "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len(),
        })
    };
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor(&config, crate::config::MEDIA_TYPE_CONFIG),
        "layers": stored.iter().map(|l| descriptor(l, crate::config::MEDIA_TYPE_LAYER)).collect::<Vec<_>>(),
    }))
    .unwrap();
    let mut entry = descriptor(&manifest, crate::config::MEDIA_TYPE_MANIFEST);
    entry["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    let mut files = vec![("index.json".to_owned(), serde_json::to_vec(&index).unwrap())];
    for blob in stored.iter().chain([&config, &manifest]) {
        files.push((format!("blobs/sha256/{}", Digest::of(blob).hex()), blob.clone()));
    }
    Files(files)
}

pub(super) fn import(store: &Store, files: &Files) -> Result<Vec<Image>, ImageError> {
    store.import(files.tar().as_slice(), &ImportOptions::default())
}

pub(super) fn count(store: &Store, sub: &str) -> usize {
    fs::read_dir(store.dir().join(sub)).unwrap().count()
}

#[test]
fn an_oci_archive_is_found_by_every_name_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = import(&store, &oci("app:1", "x")).unwrap().remove(0);
    assert_eq!(image.repo_tags, ["docker.io/library/app:1"]);
    let pinned = format!("docker.io/library/app@{}", image.manifest);
    assert_eq!(image.repo_digests, std::slice::from_ref(&pinned));
    for name in ["app:1", "docker.io/library/app:1", &pinned, &image.id.to_string()] {
        assert_eq!(store.find(name).unwrap().as_ref(), Some(&image), "{name}");
    }
    assert_eq!(store.find("app").unwrap(), None);
    assert_eq!(store.find(&format!("other@{}", image.manifest)).unwrap(), None);
    let config = store.config(&image).unwrap();
    assert_eq!(config.config.entrypoint, ["/bin/x"]);
    assert!(config.config.cmd.is_empty());
    let layers = store.lease("c1", std::slice::from_ref(&image)).unwrap().remove(0);
    let texts: Vec<_> =
        layers.iter().map(|l| fs::read_to_string(l.join("etc/text")).unwrap()).collect();
    assert_eq!(texts, ["top", "x", "base"]);
}

#[test]
fn a_docker_archive_gets_a_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layer = layer("docker");
    let manifest = serde_json::json!([
        {"Config": "c.json", "RepoTags": ["a:1", "b:2"], "Layers": ["l/layer.tar"]},
    ]);
    let files = Files(vec![
        ("l/layer.tar".into(), layer.clone()),
        ("c.json".into(), config(&[&layer])),
        ("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()),
    ]);
    let archive = gzip(&files.tar());
    let images = store.import(archive.as_slice(), &ImportOptions::default()).unwrap();
    assert_eq!(images[0].repo_tags, ["docker.io/library/a:1", "docker.io/library/b:2"]);
    store.untag("a:1").unwrap();
    assert!(store.find("b:2").unwrap().is_some());
    store.untag("b:2").unwrap();
    assert_eq!((count(&store, "blobs/sha256"), count(&store, "layers")), (0, 0));
}

#[test]
fn shared_layers_stay_until_the_last_image_and_lease_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = import(&store, &oci("a", "1")).unwrap().remove(0);
    import(&store, &oci("b", "2")).unwrap();
    assert_eq!(count(&store, "layers"), 5, "the base layer is shared");
    store.lease("c1", &[first]).unwrap();
    assert!(store.remove("a").unwrap());
    assert!(!store.remove("a").unwrap());
    assert_eq!(count(&store, "layers"), 5, "a container still uses them");
    store.release("c1").unwrap();
    store.gc().unwrap();
    assert_eq!(count(&store, "layers"), 3);
    store.remove("b").unwrap();
    assert_eq!((count(&store, "layers"), count(&store, "tmp")), (0, 0));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_lease_does_not_wait_for_an_import() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = import(&store, &oci("a", "1")).unwrap().remove(0);
    let import = Lock::acquire(dir.path(), lock::CHANGE).unwrap();
    store.lease("c1", &[image]).unwrap();
    store.release("c1").unwrap();
    drop(import);
    assert!(store.leases().unwrap().is_empty());
}

#[test]
fn another_opening_of_the_same_store_sees_the_import() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Store::open(dir.path()).unwrap();
    let threads: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let writer = Store::open(dir.path()).unwrap();
            std::thread::spawn(move || import(&writer, &oci(name, "same")).map(|_| ()))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    let images = reader.list().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].repo_tags.len(), 3);
}

#[test]
fn damaged_archives_leave_no_name_and_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let error = store.import(bytes, &ImportOptions::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(store.list().unwrap().is_empty());
    };
    check(b"this is not an archive at all", "failed to read image archive");
    check(&Files(vec![("x".into(), vec![])]).tar(), "unrecognized image format");
    let whole = oci("a", "1").tar();
    check(&whole[..whole.len() / 2 + 100], "failed to read image archive");

    let mut unnamed = oci("a", "1");
    let index = String::from_utf8(unnamed.0[0].1.clone()).unwrap();
    unnamed.0[0].1 = index.replace("io.containerd.image.name", "x").into_bytes();
    check(&unnamed.tar(), "the archive does not name its image");

    let mut missing = oci("a", "1");
    missing.0.remove(1);
    check(&missing.tar(), "is missing in the archive");

    let mut forged = oci("a", "1");
    let last = forged.0.len() - 1;
    forged.0[last].1.push(b' ');
    check(&forged.tar(), "unexpected digest");

    let mut wrong_layer = oci("a", "1");
    wrong_layer.0[1].1 = layer("evil");
    check(&wrong_layer.tar(), "is missing in the archive");
}
