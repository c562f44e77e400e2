//! Registries that lie: each pull ends with an error, and leaves nothing.

use image::{Digest, Reference};
use nix::mount::{MsFlags, mount};
use registry::PullError;

use crate::fake_registry::{
    Body, DOCKER_MANIFEST, FakeRegistry, Node, OCI_INDEX, Reply, Request, chain, config,
    descriptor, gzip, layer, manifest, noise,
};

/// Pulls, and expects an error with this text.
async fn fails(registry: &FakeRegistry, expected: &str) {
    let node = Node::new();
    let error = node.pull(&registry.reference("1")).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains(expected), "{text}");
    assert_eq!(node.leftovers(), Vec::<String>::new(), "after {text}");
}

/// A registry with an image, and the blob of its layer.
async fn with_image() -> (FakeRegistry, Vec<u8>) {
    let registry = FakeRegistry::start().await;
    let layer = layer("a", &noise(200_000));
    registry.put_image("1", std::slice::from_ref(&layer));
    (registry, gzip(&layer))
}

/// Answers requests for a blob, otherwise.
fn for_blob(
    registry: &FakeRegistry,
    blob: &[u8],
    reply: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) {
    let digest = Digest::of(blob).to_string();
    registry.rule(move |request| request.target.contains(&digest).then(|| reply(request)));
}

#[tokio::test]
async fn a_layer_with_another_digest_is_refused() {
    let (registry, blob) = with_image().await;
    let mut forged = blob.clone();
    *forged.last_mut().unwrap() ^= 1;
    for_blob(&registry, &blob, move |_| Reply::new(200, forged.clone()));
    fails(&registry, "unexpected content of blob sha256:").await;
}

#[tokio::test]
async fn a_layer_of_another_length_is_refused() {
    let (registry, blob) = with_image().await;
    let longer = [blob.clone(), vec![0; 10]].concat();
    for_blob(&registry, &blob, move |_| Reply::new(200, longer.clone()));
    fails(&registry, "unexpected content of size of blob").await;
    let (registry, blob) = with_image().await;
    let shorter = blob[..1000].to_vec();
    for_blob(&registry, &blob, move |_| Reply::new(200, shorter.clone()));
    fails(&registry, "unexpected content of size of blob").await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let (registry, blob) = with_image().await;
    for_blob(&registry, &blob, |_| Reply { body: Body::Endless, ..Reply::new(200, "") });
    fails(&registry, "unexpected content of size of blob").await;
    let registry = FakeRegistry::start().await;
    registry.rule(|_| Some(Reply { body: Body::Endless, ..Reply::new(200, "") }));
    fails(&registry, "manifest exceeds the limit of 4194304 bytes").await;
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_given_up() {
    let (registry, blob) = with_image().await;
    let (part, length) = (blob[..1000].to_vec(), blob.len());
    for_blob(&registry, &blob, move |_| Reply {
        body: Body::Stalled(part.clone(), length),
        ..Reply::new(200, "")
    });
    // Five attempts, each until the patience ends.
    fails(&registry, "no progress from").await;
    let registry = FakeRegistry::start().await;
    registry.rule(|_| Some(Reply { body: Body::Stalled(vec![], 10), ..Reply::new(200, "") }));
    fails(&registry, "no progress from").await;
}

#[tokio::test]
async fn a_registry_that_keeps_breaking_off_is_given_up() {
    let (registry, blob) = with_image().await;
    let length = blob.len();
    let digest = Digest::of(&blob).to_string();
    for_blob(&registry, &blob, move |_| Reply {
        body: Body::Broken(Vec::new(), length),
        ..Reply::new(200, "")
    });
    fails(&registry, "failed to copy").await;
    assert_eq!(registry.count(&digest), 5);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let registry = FakeRegistry::start().await;
    registry.rule(|request| Some(Reply::new(302, "").with("location", &request.target)));
    fails(&registry, "it has no end").await;
    assert_eq!(registry.seen().len(), 6);
    for (location, problem) in [
        ("file:///etc/passwd", "it leads"),
        ("ftp://x/y", "it leads away from TLS"),
        ("http://[", "it leads to no address"),
    ] {
        let registry = FakeRegistry::start().await;
        registry.rule(move |_| Some(Reply::new(302, "").with("location", location)));
        fails(&registry, problem).await;
    }
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let large = vec![b' '; 10 << 20];
    for (bytes, expected) in [
        (&b"garbage"[..], "failed to parse manifest"),
        (b"", "failed to parse manifest"),
        (&large, "manifest exceeds the limit"),
        (br#"{"schemaVersion":1,"name":"a"}"#, "unsupported media type"),
        (br#"{"schemaVersion":2,"mediaType":"text/html"}"#, "unsupported media type"),
        (br#"{"schemaVersion":2,"config":{},"layers":[]}"#, "failed to parse manifest"),
    ] {
        let registry = FakeRegistry::start().await;
        registry.put_manifest("1", DOCKER_MANIFEST, bytes);
        fails(&registry, expected).await;
    }
    let deep = "[".repeat(1 << 20);
    let registry = FakeRegistry::start().await;
    registry.put_manifest("1", DOCKER_MANIFEST, deep.as_bytes());
    fails(&registry, "failed to parse manifest").await;
}

#[tokio::test]
async fn a_manifest_that_is_not_what_was_asked_for_is_refused() {
    let registry = FakeRegistry::start().await;
    registry.put_image("1", &[layer("a", b"1")]);
    registry.rule(|_| {
        let other = Digest::of(b"other").to_string();
        Some(Reply::new(200, "{}").with("docker-content-digest", &other))
    });
    fails(&registry, "unexpected content of manifest").await;

    let registry = FakeRegistry::start().await;
    registry.rule(|_| Some(Reply::new(200, "{}")));
    let pinned = format!("{}/a/b@{}", registry.address, Digest::of(b"wanted"));
    let error = Node::new().pull(&Reference::parse(&pinned).unwrap()).await.unwrap_err();
    assert!(matches!(error, PullError::Content { .. }), "{error:?}");
}

#[tokio::test]
async fn an_index_that_leads_to_itself_ends() {
    let registry = FakeRegistry::start().await;
    // A digest cannot be in what it is of, so each index leads to another one.
    let mut inner = b"{}".to_vec();
    for depth in 0..6 {
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{{}}}]}}"#,
            descriptor(OCI_INDEX, &inner)
        );
        registry.put_manifest(if depth == 5 { "1" } else { "x" }, OCI_INDEX, index.as_bytes());
        inner = index.into_bytes();
    }
    fails(&registry, "depth of index exceeds the limit").await;
}

#[tokio::test]
async fn sizes_that_cannot_be_are_refused_before_anything_is_downloaded() {
    let (registry, blob) = with_image().await;
    let plain = layer("a", &noise(200_000));
    let config = config(image::architecture(), &[&plain]);
    let honest = manifest(DOCKER_MANIFEST, &config, std::slice::from_ref(&blob));
    let text = String::from_utf8(honest).unwrap();
    let size = format!("\"size\":{}", blob.len());
    for (lie, expected) in [
        ("\"size\":9223372036854775807", "no space left on device"),
        ("\"size\":-1", "failed to parse manifest"),
    ] {
        registry.put_manifest("1", DOCKER_MANIFEST, text.replace(&size, lie).as_bytes());
        fails(&registry, expected).await;
    }
    assert_eq!(registry.count(&Digest::of(&blob).to_string()), 0);
}

#[tokio::test]
async fn a_layer_that_unpacks_to_too_much_is_refused() {
    let registry = FakeRegistry::start().await;
    registry.put_image("1", &[layer("bomb", &vec![0; 8 << 20])]);
    let mut node = Node::new();
    node.config.limits = image::Limits { bytes: 1 << 20, entries: 100 };
    let error = node.pull(&registry.reference("1")).await.unwrap_err();
    assert!(chain(&error).contains("size of layer exceeds the limit"), "{error:?}");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_layer_that_leads_out_of_itself_is_refused() {
    let registry = FakeRegistry::start().await;
    let mut bytes = layer("aaaaaaaa", b"1");
    // The library refuses to write the names that an attacker would.
    bytes[..8].copy_from_slice(b"../../xx");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    registry.put_image("1", &[bytes]);
    fails(&registry, "leads out of the layer").await;
}

#[tokio::test]
async fn layers_that_are_encrypted_or_no_file_systems_are_refused() {
    for media_type in
        ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "application/vnd.wasm.content"]
    {
        let registry = FakeRegistry::start().await;
        let plain = layer("a", b"1");
        let config = config(image::architecture(), &[&plain]);
        let bytes = manifest(DOCKER_MANIFEST, &config, &[plain]);
        let text = String::from_utf8(bytes).unwrap();
        let text = text.replace("application/vnd.oci.image.layer.v1.tar", media_type);
        registry.put_manifest("1", DOCKER_MANIFEST, text.as_bytes());
        fails(&registry, "unsupported media type").await;
    }
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let (registry, blob) = with_image().await;
    let (part, length) = (blob[..1000].to_vec(), blob.len());
    for_blob(&registry, &blob, move |_| Reply {
        body: Body::Stalled(part.clone(), length),
        ..Reply::new(200, "")
    });
    let node = Node::new();
    let reference = registry.reference("1");
    let pulling = node.registry();
    let limit = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(limit, pulling.pull(&reference, None, &|_| {})).await.is_err());
    for _ in 0..500 {
        if node.leftovers().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{:?}", node.leftovers());
}

#[tokio::test]
async fn a_pull_that_does_not_fit_on_the_disk_leaves_nothing() {
    // The mount is seen by this thread and by those that it starts.
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    let node = Node::new();
    let (dir, kind) = (node.store.dir(), Some("tmpfs"));
    mount(kind, dir, kind, MsFlags::empty(), Some("size=16m")).unwrap();
    image::Store::open(dir).unwrap();
    let registry = FakeRegistry::start().await;
    let small = layer("small", b"x");
    registry.put_image("fits", std::slice::from_ref(&small));
    node.pull(&registry.reference("fits")).await.unwrap();
    let free = || free_blocks(dir);
    let before = free();
    // Eight megabytes come and fit, but not beside what is unpacked of them; and so much that it
    // is refused before it comes.
    registry.put_image("large", &[small.clone(), layer("noise", &noise(9 << 20))]);
    registry.put_image("huge", &[small, layer("noise", &noise(20 << 20))]);
    for tag in ["large", "huge"] {
        let error = chain(&node.pull(&registry.reference(tag)).await.unwrap_err());
        let full = error.contains("o space left on device");
        assert!(full, "{tag}: {error}");
        assert_eq!(free(), before, "{tag}");
    }
    assert!(node.store.find(&registry.name("fits")).unwrap().is_some());
}

fn free_blocks(dir: &std::path::Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).unwrap().blocks_free()
}

#[tokio::test]
async fn a_mirror_that_lies_about_a_layer_is_passed_over() {
    for lie in [&b"garbage"[..], &gzip(&layer("a", b"evil"))] {
        let (registry, mirror) = (FakeRegistry::start().await, FakeRegistry::start().await);
        let honest = layer("a", b"good");
        registry.put_image("1", std::slice::from_ref(&honest));
        mirror.put_image("1", std::slice::from_ref(&honest));
        let sent = gzip(&honest);
        // As long as the honest one, so that only the digest can tell.
        let mut lie = lie.to_vec();
        lie.resize(sent.len(), 0);
        for_blob(&mirror, &sent, move |_| Reply::new(200, lie.clone()));
        let node = Node::new();
        let text = format!("[host.\"http://{}\"]\n", mirror.address);
        node.configure(&registry.address.to_string(), &text);
        let image = node.pull(&registry.reference("1")).await.unwrap();
        assert_eq!(node.read(&image, "a").unwrap(), b"good");
        assert_eq!(registry.seen().len(), 1, "the layer alone");
    }
}
