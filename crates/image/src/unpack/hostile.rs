//! Layers made by an attacker: what comes of each stays in the layer, and has an end.

use std::os::unix::fs::FileTypeExt;

use tar::{Builder, Header};

use super::tests::{apply, layer};
use super::*;

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0u8; 4];
    rustix::fs::lgetxattr(directory, "trusted.overlay.opaque", &mut value[..]).is_ok()
}

fn unpacked(bytes: impl Read, limits: Limits) -> Result<(), ImageError> {
    let dir = tempfile::tempdir().unwrap();
    unpack(bytes, dir.path(), &[], limits, &Space::of(dir.path()))
}

#[test]
fn a_hard_link_does_not_lead_out_through_a_link_below() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("f"), "of the node").unwrap();
    let (lowest, middle, top) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("3"));
    apply(&lowest, &[], &[(EntryType::Symlink, "d", secret.to_str().unwrap())]).unwrap();
    // The directory takes the place of the link, but the link is still there below.
    apply(&middle, std::slice::from_ref(&lowest), &[(EntryType::Directory, "d", "")]).unwrap();
    let error = apply(&top, &[middle, lowest], &[(EntryType::Link, "stolen", "d/f")]).unwrap_err();
    assert!(error.to_string().contains("links to a file that does not exist"), "{error}");
    assert!(!top.join("stolen").exists());
}

#[test]
fn absolute_names_are_names_in_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a");
    let name = "/ironclad-hostile/f";
    let entries = [(EntryType::Regular, name, "x"), (EntryType::Link, "/g", name)];
    apply(&root, &[], &entries).unwrap();
    assert!(root.join("ironclad-hostile/f").exists() && root.join("g").exists());
    assert!(!Path::new(name).exists());
}

#[test]
fn the_last_entry_of_a_name_counts() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a");
    let entries = [
        (EntryType::Regular, "x", "first"),
        (EntryType::Directory, "x", ""),
        (EntryType::Regular, "x/inner", "gone soon"),
        (EntryType::Symlink, "x", "/etc"),
        (EntryType::Fifo, "x", ""),
        (EntryType::Regular, "x", "last"),
        (EntryType::Regular, "y", "shared"),
        (EntryType::Link, "z", "y"),
        (EntryType::Regular, "z", "alone"),
    ];
    apply(&root, &[], &entries).unwrap();
    assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "last");
    assert_eq!(fs::read_to_string(root.join("y")).unwrap(), "shared");
}

#[test]
fn a_whiteout_hides_no_parent() {
    let dir = tempfile::tempdir().unwrap();
    for (number, name) in [".wh.", ".wh..", ".wh...", "d/.wh...", "../.wh.x"].iter().enumerate() {
        let root = dir.path().join(number.to_string());
        assert!(apply(&root, &[], &[(EntryType::Regular, name, "")]).is_err(), "{name}");
    }
}

#[test]
fn a_directory_that_replaces_one_below_shows_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let hidden = (EntryType::Regular, ".wh.d", "");
    let cases: [&[(EntryType, &str, &str)]; 3] = [
        &[hidden, (EntryType::Directory, "d", "")],
        &[hidden, (EntryType::Regular, "d/f", "")],
        &[(EntryType::Directory, "d", ""), hidden],
    ];
    for (number, entries) in cases.iter().enumerate() {
        let root = dir.path().join(number.to_string());
        apply(&root, &[], entries).unwrap();
        assert!(is_opaque(&root.join("d")), "{entries:?}");
    }
}

#[test]
fn headers_without_end_are_refused() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_cksum();
        let bytes = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'a'));
        let error = unpacked(bytes, Limits::default()).unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("headers of an entry exceed the limit"), "{text}");
    }
}

#[test]
fn a_file_that_claims_more_than_allowed_is_refused_before_it_is_read() {
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(1 << 50);
    header.set_cksum();
    let bytes = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(0));
    let error = unpacked(bytes, Limits::default()).unwrap_err();
    assert!(error.to_string().starts_with("size of layer exceeds"), "{error}");
}

/// A file of nothing but a hole.
fn hole(size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path("hole").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().unwrap();
    let octal = format!("{size:011o}\0");
    gnu.sparse[0].offset.copy_from_slice(octal.as_bytes());
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    gnu.realsize.copy_from_slice(octal.as_bytes());
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn holes_take_no_disk_and_count_as_what_they_seem() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = hole(32 << 20);
    unpack(bytes.as_slice(), dir.path(), &[], Limits::default(), &Space::of(dir.path())).unwrap();
    let metadata = fs::metadata(dir.path().join("hole")).unwrap();
    assert_eq!(metadata.len(), 32 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let limits = Limits { bytes: 1 << 20, entries: 10 };
    let error = unpacked(bytes.as_slice(), limits).unwrap_err();
    assert!(error.to_string().starts_with("size of layer exceeds"), "{error}");
}

#[test]
fn more_files_than_allowed_are_refused() {
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let entries: Vec<_> = names.iter().map(|n| (EntryType::Regular, n.as_str(), "")).collect();
    let limits = Limits { bytes: 1 << 20, entries: 10 };
    let error = unpacked(layer(&entries).as_slice(), limits).unwrap_err();
    assert_eq!(error.to_string(), "number of files exceeds the limit of 10");
}

#[test]
fn names_deeper_than_the_kernel_knows_are_refused() {
    let mut builder = Builder::new(Vec::new());
    let path = "d/".repeat(20_000);
    let mut long = Header::new_gnu();
    long.set_entry_type(EntryType::GNULongName);
    long.set_size(path.len() as u64);
    long.set_cksum();
    builder.append(&long, path.as_bytes()).unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, io::empty()).unwrap();
    let bytes = builder.into_inner().unwrap();
    assert!(unpacked(bytes.as_slice(), Limits::default()).is_err());
}

#[test]
fn a_device_is_made_in_the_layer_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a");
    let outside = dir.path().join("dev");
    fs::create_dir(&outside).unwrap();
    let entries = [
        (EntryType::Symlink, "dev", outside.to_str().unwrap()),
        (EntryType::Block, "dev/disk", ""),
        (EntryType::Char, "memory", ""),
    ];
    apply(&root, &[], &entries).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let device = fs::symlink_metadata(root.join("memory")).unwrap();
    assert!(device.file_type().is_char_device());
}

#[test]
fn attributes_that_steer_the_overlay_are_not_an_images_to_set() {
    let mut builder = Builder::new(Vec::new());
    let attribute = b"y".as_slice();
    let names = ["SCHILY.xattr.trusted.overlay.redirect", "SCHILY.xattr.user.overlay.opaque"];
    builder.append_pax_extensions(names.map(|name| (name, attribute))).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("d").unwrap();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, io::empty()).unwrap();
    let bytes = builder.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(bytes.as_slice(), dir.path(), &[], Limits::default(), &Space::of(dir.path())).unwrap();
    let mut list = [0u8; 256];
    let length = rustix::fs::llistxattr(dir.path().join("d"), &mut list[..]).unwrap_or(0);
    assert!(!String::from_utf8_lossy(&list[..length]).contains("overlay"));
}
