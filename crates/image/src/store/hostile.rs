//! Images made by an attacker, and a disk that is too small.

use std::os::unix::fs::PermissionsExt;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::tests::{Files, config, count, gzip, import, oci};
use super::*;
use crate::{LAYERS_MAX, Limits, Session};

/// A docker archive of these layers.
fn docker(layers: &[Vec<u8>]) -> Files {
    let plain: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    named(config(&plain), layers)
}

fn named(config: Vec<u8>, layers: &[Vec<u8>]) -> Files {
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": names}]);
    let mut files = vec![
        ("c.json".to_owned(), config),
        ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
    ];
    files.extend(names.into_iter().zip(layers.iter().cloned()));
    Files(files)
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    Files(vec![(name.to_owned(), bytes.to_vec())]).tar()
}

fn leftovers(store: &Store) -> [usize; 4] {
    store.gc().unwrap();
    ["blobs/sha256", "layers", "tmp", "names"].map(|sub| count(store, sub))
}

#[test]
fn an_image_of_a_hundred_layers_is_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layers: Vec<_> = (0..100).map(|n| file(&format!("f{n}"), b"x")).collect();
    let image = import(&store, &docker(&layers)).unwrap().remove(0);
    assert_eq!(store.lease("c", &[image]).unwrap()[0].len(), 100);
}

#[test]
fn an_image_of_more_layers_than_can_be_mounted_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let one = file("f", b"x");
    let error = import(&store, &docker(&vec![one; LAYERS_MAX + 1])).unwrap_err();
    assert_eq!(error.to_string(), format!("number of layers exceeds the limit of {LAYERS_MAX}"));
    assert_eq!(leftovers(&store), [0; 4]);
}

#[test]
fn a_bomb_ends_at_the_limit_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let limits = Limits { bytes: 1 << 20, entries: 1000 };
    let options = ImportOptions { name: None, limits };
    // Large in a file of the layer, behind the end of the layer, and as the archive itself.
    let zeros = vec![0u8; 8 << 20];
    let trailing = [file("f", b"x"), zeros.clone()].concat();
    for (bomb, expected) in
        [(file("f", &zeros), "size of layer exceeds the limit"), (trailing, "unexpected digest")]
    {
        let archive = named(config(&[&bomb]), &[gzip(&bomb)]).tar();
        let error = store.import(archive.as_slice(), &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(leftovers(&store), [0; 4]);
    }
    let archive = gzip(&file("f", &zeros));
    let error = store.import(archive.as_slice(), &options).unwrap_err().to_string();
    assert!(error.contains("size of archive exceeds the limit"), "{error}");
    assert_eq!(leftovers(&store), [0; 4]);
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let archive = named(config(&[&file("f", b"good")]), &[file("f", b"evil")]);
    let error = import(&store, &archive).unwrap_err().to_string();
    assert!(error.contains("unexpected digest of layer"), "{error}");
    assert_eq!(leftovers(&store), [0; 4]);
}

#[test]
fn nobody_else_of_the_machine_reaches_the_files_of_images() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for sub in ["layers", "tmp"] {
        let mode = fs::metadata(store.dir().join(sub)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{sub}");
    }
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_and_leaves_nothing() {
    // A thread of its own, because the mount is to be seen by nobody else.
    let test = std::thread::spawn(|| {
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let kind = Some("tmpfs");
        mount(kind, dir.path(), kind, MsFlags::empty(), Some("size=12m")).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let noise: Vec<u8> =
            (0..6u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        import(&store, &oci("small", "x")).unwrap();
        let free = rustix::fs::statvfs(dir.path()).unwrap().f_bfree;
        // The archive fits, but not beside what is unpacked of it.
        let error = import(&store, &docker(&[file("f", &noise)])).unwrap_err();
        let text = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(text.contains("no space left on device") || text.contains("StorageFull"), "{text}");
        store.gc().unwrap();
        assert_eq!(rustix::fs::statvfs(dir.path()).unwrap().f_bfree, free);
        assert!(store.find("small").unwrap().is_some());
    });
    test.join().unwrap();
}

#[test]
fn the_collector_leaves_living_sessions_alone_and_removes_dead_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let session = Session::begin(&store).unwrap();
    fs::write(session.directory().join("part"), "x").unwrap();
    let blob = session.add_blob(b"document").unwrap();
    session.keep(std::slice::from_ref(&blob), &[]).unwrap();
    let dead = store.dir().join("tmp/dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("owner"), "").unwrap();
    store.gc().unwrap();
    assert!(session.directory().join("part").exists() && store.blob_path(&blob).exists());
    assert!(!dead.exists());
    drop(session);
    assert_eq!(leftovers(&store), [0; 4]);
}

#[test]
fn layers_without_an_image_are_not_trusted_after_a_restart_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layer = store.dir().join("layers").join(Digest::of(b"half").hex());
    fs::create_dir(&layer).unwrap();
    Store::open(dir.path()).unwrap();
    assert!(layer.exists());
    fs::write(store.dir().join("boot"), "another").unwrap();
    Store::open(dir.path()).unwrap();
    assert!(!layer.exists());
}
