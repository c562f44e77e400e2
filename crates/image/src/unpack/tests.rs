//! Layers, well-formed and hostile ones.

use std::os::unix::fs::FileTypeExt;

use tar::{Builder, Header};

use super::*;

/// A layer described by `(kind, path, target or contents)`.
pub(super) fn layer(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, text) in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o750 } else { 0o4711 });
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000);
        // The library refuses to write the paths that an attacker would.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        } else {
            header.set_size(text.len() as u64);
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub(super) fn apply(
    root: &Path,
    parents: &[PathBuf],
    entries: &[(EntryType, &str, &str)],
) -> Result<(), ImageError> {
    fs::create_dir_all(root).unwrap();
    unpack(layer(entries).as_slice(), root, parents, Limits::default(), &Space::of(root))
}

#[test]
fn files_keep_their_owner_mode_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a");
    let entries = [(EntryType::Directory, "d", ""), (EntryType::Regular, "d/f", "hello")];
    apply(&root, &[], &entries).unwrap();
    let file = fs::metadata(root.join("d/f")).unwrap();
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()),
        (12, 34, 0o4711, 1000)
    );
    let directory = fs::metadata(root.join("d")).unwrap();
    assert_eq!((directory.mode() & 0o7777, directory.mtime()), (0o750, 1000));
    assert_eq!(fs::read(root.join("d/f")).unwrap(), b"hello");
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a");
    let entries =
        [(EntryType::Regular, "etc/.wh.gone", ""), (EntryType::Regular, "opt/.wh..wh..opq", "")];
    apply(&root, &[], &entries).unwrap();
    let gone = fs::symlink_metadata(root.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0u8; 4];
    let length =
        rustix::fs::lgetxattr(root.join("opt"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(!root.join("opt/.wh..wh..opq").exists());
}

#[test]
fn nothing_is_written_outside_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let outside_text = outside.to_str().unwrap();

    let through_link =
        [(EntryType::Symlink, "out", outside_text), (EntryType::Regular, "out/f", "x")];
    let root = dir.path().join("a");
    apply(&root, &[], &through_link).unwrap();
    let inside = root.join(outside_text.trim_start_matches('/')).join("f");
    assert!(inside.exists(), "an absolute link leads to the layer's own root");

    let through_parents =
        [(EntryType::Symlink, "up", "../../../.."), (EntryType::Regular, "up/outside/f", "x")];
    let root = dir.path().join("b");
    apply(&root, &[], &through_parents).unwrap();
    assert!(root.join("outside/f").exists());

    let file_over_link =
        [(EntryType::Symlink, "f", &*format!("{outside_text}/f")), (EntryType::Regular, "f", "x")];
    apply(&dir.path().join("c"), &[], &file_over_link).unwrap();

    let error = apply(&dir.path().join("d"), &[], &[(EntryType::Regular, "../x", "")]);
    assert_eq!(error.unwrap_err().to_string(), "layer entry \"../x\" leads out of the layer");
    let hard = [(EntryType::Link, "x", "../outside/f")];
    assert!(apply(&dir.path().join("e"), &[], &hard).is_err());
    let endless = [(EntryType::Symlink, "l", "l"), (EntryType::Regular, "l/x", "")];
    assert!(apply(&dir.path().join("f"), &[], &endless).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn directories_that_a_layer_does_not_name_look_as_they_did_below() {
    let dir = tempfile::tempdir().unwrap();
    let (below, above) = (dir.path().join("below"), dir.path().join("above"));
    let entries = [
        (EntryType::Directory, "d", ""),
        (EntryType::Regular, "d/f", "text"),
        (EntryType::Symlink, "link", "d"),
    ];
    apply(&below, &[], &entries).unwrap();
    let entries = [
        (EntryType::Regular, "d/new", ""),
        (EntryType::Regular, "link/other", ""),
        (EntryType::Link, "g", "d/f"),
    ];
    apply(&above, &[below], &entries).unwrap();
    let directory = fs::metadata(above.join("d")).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777), (12, 0o750));
    assert!(above.join("d/other").exists() && !above.join("link").exists());
    assert_eq!(fs::read(above.join("g")).unwrap(), b"text");
    assert_eq!(fs::metadata(above.join("g")).unwrap().nlink(), 2);
}

#[test]
fn a_layer_larger_than_allowed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = layer(&[(EntryType::Regular, "f", "12345")]);
    let limits = Limits { bytes: 4, entries: 10 };
    let error =
        unpack(bytes.as_slice(), dir.path(), &[], limits, &Space::of(dir.path())).unwrap_err();
    assert_eq!(error.to_string(), "size of layer exceeds the limit of 4");
}
