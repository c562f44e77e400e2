//! Archives of images: tar, manifests and configurations of OCI and docker.

use std::cell::OnceCell;

use image::{ImportOptions, Limits, Store};
use tempfile::TempDir;

use super::Target;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "index.json",
        "oci-layout",
        "manifest.json",
        "blobs/sha256/",
        "\"schemaVersion\":2",
        "\"manifests\":[",
        "\"layers\":[",
        "\"config\":",
        "\"digest\":\"sha256:",
        "\"size\":",
        "../",
        "/etc/passwd",
        "ustar\u{0}00",
        ".wh.",
        ".wh..wh..opq",
        "application/vnd.oci.image.manifest.v1+json",
        "\"RepoTags\":[\"a:b\"]",
        "\"Layers\":[\"l\"]",
    ],
    // Nothing is larger than the blocks of the archive, but decompressors have windows.
    memory_per_byte: 1024,
    memory_base: 16 << 20,
    nanos_per_byte: 100_000,
    time_base: std::time::Duration::from_millis(100),
    ..Target::new("archive", seeds, run)
};

thread_local! {
    static STORE: OnceCell<(TempDir, Store)> = const { OnceCell::new() };
}

fn seeds() -> Vec<Vec<u8>> {
    let docker = [
        ("manifest.json", r#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l.tar"]}]"#),
        (
            "c.json",
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
        ),
    ];
    let oci = [
        ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        (
            "index.json",
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:00","size":2}]}"#,
        ),
    ];
    vec![tar_of(&docker), tar_of(&oci)]
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(0));
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, text.as_bytes()).expect("a file in memory");
    }
    builder.into_inner().expect("an archive in memory")
}

fn run(input: &[u8]) {
    STORE.with(|slot| {
        let (_, store) = slot.get_or_init(|| {
            let directory = TempDir::new().expect("a directory");
            let store = Store::open(directory.path().join("images")).expect("a store");
            (directory, store)
        });
        let limits = Limits { bytes: 1 << 20, entries: 100 };
        drop(store.import(input, &ImportOptions { name: Some("x:y".to_owned()), limits }));
    });
}
