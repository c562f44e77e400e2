//! Registries that behave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::Reference;
use registry::Progress;
use tokio::net::TcpListener;

use crate::fake_registry::{
    Body, FakeRegistry, Node, OCI_INDEX, OCI_MANIFEST, Reply, chain, config, descriptor, layer,
    manifest, noise, path_of,
};

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_found_by_tag_and_digest() {
    let (registry, node) = (FakeRegistry::start().await, Node::new());
    let layers = [layer("a", b"1"), layer("b", b"2"), layer("c", b"3"), layer("a", b"4")];
    let digest = registry.put_image("1", &layers);
    let image = node.pull(&registry.reference("1")).await.unwrap();
    assert_eq!(image.repo_tags, [registry.name("1")]);
    assert_eq!(image.repo_digests, [format!("{}/a/b@{digest}", registry.address)]);
    assert_eq!(node.read(&image, "a").unwrap(), b"4");
    assert_eq!(node.read(&image, "b").unwrap(), b"2");
    let pinned = Reference::parse(&image.repo_digests[0]).unwrap();
    assert_eq!(node.store.find(&pinned.to_string()).unwrap().unwrap(), image);
    let told = node.told.lock().unwrap().clone();
    assert!(matches!(&told[0], Progress::Resolved { layers: 4, missing: 4, .. }), "{told:?}");
    assert_eq!(told.iter().filter(|t| matches!(t, Progress::Unpacked { .. })).count(), 4);
    let own = std::fs::read_dir(node.store.dir().join("tmp")).unwrap().count();
    assert_eq!(own, 0, "nothing unfinished is left");
}

#[tokio::test]
async fn what_is_here_and_unchanged_is_asked_for_but_not_downloaded() {
    let (registry, node) = (FakeRegistry::start().await, Node::new());
    registry.put_image("1", &[layer("a", b"1")]);
    let first = node.pull(&registry.reference("1")).await.unwrap();
    let before = registry.seen().len();
    assert_eq!(node.pull(&registry.reference("1")).await.unwrap(), first);
    let seen = registry.seen();
    assert_eq!(seen.len() - before, 1);
    assert_eq!(seen[before].method, "HEAD");

    // The tag moves on; of the new image only the new layer comes.
    registry.put_image("1", &[layer("a", b"1"), layer("b", b"2")]);
    let second = node.pull(&registry.reference("1")).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(registry.count("/blobs/"), 4, "two configurations and two layers");
    assert!(node.store.find(&first.id.to_string()).unwrap().unwrap().repo_tags.is_empty());
}

#[tokio::test]
async fn the_manifest_for_this_machine_is_chosen_and_the_name_keeps_the_index() {
    let (registry, node) = (FakeRegistry::start().await, Node::new());
    let here = image::architecture();
    let mut entries = Vec::new();
    for (architecture, os, text) in
        [("s390x", "linux", "other"), (here, "windows", "no"), (here, "linux", "yes")]
    {
        let layer = layer("which", text.as_bytes());
        let config = config(architecture, &[&layer]);
        registry.put_blob(&config);
        registry.put_blob(&layer);
        let manifest = manifest(OCI_MANIFEST, &config, &[layer]);
        registry.put_manifest(text, OCI_MANIFEST, &manifest);
        let platform = format!(r#""platform":{{"architecture":"{architecture}","os":"{os}"}}"#);
        entries.push(format!("{{{},{platform}}}", descriptor(OCI_MANIFEST, &manifest)));
    }
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
        entries.join(",")
    );
    let digest = registry.put_manifest("multi", OCI_INDEX, index.as_bytes());
    let image = node.pull(&registry.reference("multi")).await.unwrap();
    assert_eq!(node.read(&image, "which").unwrap(), b"yes");
    let pinned = format!("{}/a/b@{digest}", registry.address);
    assert_eq!(image.repo_digests, std::slice::from_ref(&pinned));
    let by_digest = node.pull(&Reference::parse(&pinned).unwrap()).await.unwrap();
    assert_eq!(by_digest.id, image.id);

    let other = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
        entries[..2].join(",")
    );
    registry.put_manifest("none", OCI_INDEX, other.as_bytes());
    let error = node.pull(&registry.reference("none")).await.unwrap_err();
    assert_eq!(chain(&error), format!("no match for platform in manifest: want linux/{here}"));
}

#[tokio::test]
async fn two_pulls_download_a_shared_layer_once() {
    let (registry, node) = (FakeRegistry::start().await, Node::new());
    let base = layer("base", &noise(300_000));
    registry.put_image("1", &[base.clone(), layer("a", b"1")]);
    registry.put_image("2", &[base, layer("b", b"2")]);
    let pulls = node.registry();
    let (one, two) = (registry.reference("1"), registry.reference("2"));
    let (a, b) = tokio::join!(pulls.pull(&one, None, &|_| {}), pulls.pull(&two, None, &|_| {}));
    assert_eq!((a.unwrap().repo_tags.len(), b.unwrap().repo_tags.len()), (1, 1));
    assert_eq!(registry.count("/blobs/"), 5, "two configurations and three layers");
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let (registry, node) = (FakeRegistry::start().await, Node::new());
    let contents = noise(400_000);
    registry.put_image("1", &[layer("a", &contents)]);
    let sent = registry.seen().len();
    assert_eq!(sent, 0);
    let breaks = Arc::new(AtomicUsize::new(0));
    let (counted, bytes) =
        (Arc::clone(&breaks), crate::fake_registry::gzip(&layer("a", &contents)));
    registry.rule(move |request| {
        let is_layer = request.target.ends_with(&image::Digest::of(&bytes).to_string());
        if !is_layer || counted.fetch_add(1, Ordering::SeqCst) > 2 {
            return None;
        }
        let range = request.header("range");
        let from: usize = match range.strip_prefix("bytes=") {
            None => 0,
            Some(range) => range.trim_end_matches('-').parse().unwrap(),
        };
        let part = bytes[from..from + 100_000].to_vec();
        let body = Body::Broken(part, bytes.len() - from);
        let status = if from == 0 { 200 } else { 206 };
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        let headers = vec![("content-range".to_owned(), range)];
        Some(Reply { status, headers, body })
    });
    let image = node.pull(&registry.reference("1")).await.unwrap();
    assert_eq!(node.read(&image, "a").unwrap(), contents);
    let ranges: Vec<_> = registry.seen().iter().map(|r| r.header("range").to_owned()).collect();
    assert!(ranges.contains(&"bytes=300000-".to_owned()), "{ranges:?}");
    let told = node.told.lock().unwrap();
    assert_eq!(told.iter().filter(|t| matches!(t, Progress::Retrying { .. })).count(), 3);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_everything_again() {
    let (registry, node) = (FakeRegistry::start().await, Node::new());
    let contents = noise(400_000);
    registry.put_image("1", &[layer("a", &contents)]);
    let bytes = crate::fake_registry::gzip(&layer("a", &contents));
    let calls = AtomicUsize::new(0);
    registry.rule(move |request| {
        let is_layer = request.target.ends_with(&image::Digest::of(&bytes).to_string());
        let call = is_layer.then(|| calls.fetch_add(1, Ordering::SeqCst))?;
        let body = match call {
            0 => Body::Broken(bytes[..100_000].to_vec(), bytes.len()),
            _ => Body::Whole(bytes.clone()),
        };
        Some(Reply { status: 200, headers: Vec::new(), body })
    });
    let image = node.pull(&registry.reference("1")).await.unwrap();
    assert_eq!(node.read(&image, "a").unwrap(), contents);
}

#[tokio::test]
async fn blobs_may_be_elsewhere_and_secrets_do_not_follow() {
    let (registry, elsewhere) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let node = Node::new();
    registry.put_image("1", &[layer("a", b"1")]);
    elsewhere.put_image("1", &[layer("a", b"1")]);
    let to = elsewhere.address;
    registry.rule(move |request| {
        if request.header("authorization") != "Basic dTpw" {
            return Some(Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""));
        }
        let blob = request.target.split("/blobs/").nth(1)?;
        let location = format!("http://{to}/signed/blobs/{blob}?signature=secret");
        Some(Reply::new(307, "").with("location", &location))
    });
    let domain = registry.address.to_string();
    node.configure(&domain, "header = { x-secret = \"1\" }");
    let credentials = registry::Credentials {
        username: "u".into(),
        password: "p".into(),
        ..registry::Credentials::default()
    };
    let image = node.pull_as(&registry.reference("1"), Some(&credentials)).await.unwrap();
    assert_eq!(node.read(&image, "a").unwrap(), b"1");
    assert!(registry.seen().iter().all(|request| request.header("x-secret") == "1"));
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!((request.header("authorization"), request.header("x-secret")), ("", ""));
    }
}

#[tokio::test]
async fn mirrors_are_asked_first_and_get_no_credentials() {
    let (registry, mirror) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let node = Node::new();
    let domain = registry.address.to_string();
    node.configure(
        &domain,
        &format!(
            "server = \"http://{domain}\"\n[host.\"http://{}/cache\"]\ncapabilities = [\"pull\", \
             \"resolve\"]\n",
            mirror.address
        ),
    );
    for registry in [&registry, &mirror] {
        registry.put_image("both", &[layer("a", b"1")]);
    }
    registry.put_image("here", &[layer("a", b"2")]);
    let credentials = registry::Credentials {
        registry_token: "secret".into(),
        ..registry::Credentials::default()
    };
    node.pull_as(&registry.reference("both"), Some(&credentials)).await.unwrap();
    assert_eq!(registry.seen().len(), 0);
    let seen = mirror.seen();
    let ns = domain.replace(':', "%3A");
    assert_eq!(seen[0].target, format!("/cache/v2/a/b/manifests/both?ns={ns}"));
    assert!(seen.iter().all(|request| request.header("authorization").is_empty()));

    node.pull_as(&registry.reference("here"), Some(&credentials)).await.unwrap();
    let seen = registry.seen();
    assert!(seen.iter().all(|request| request.header("authorization") == "Bearer secret"));

    let error = node.pull(&registry.reference("nowhere")).await.unwrap_err();
    assert_eq!(chain(&error), format!("{}: not found", registry.name("nowhere")));
}

#[tokio::test]
async fn a_mirror_that_is_down_or_lacks_a_layer_is_passed_over() {
    let (registry, mirror) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let node = Node::new();
    let domain = registry.address.to_string();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    node.configure(
        &domain,
        &format!("[host.\"http://{dead}\"]\n[host.\"http://{}\"]\n", mirror.address),
    );
    registry.put_image("1", &[layer("a", b"1")]);
    // The mirror knows the manifest alone.
    let registry_copy = registry.clone();
    let from = registry.reference("1");
    let first = node.pull(&from).await.unwrap();
    let manifest =
        std::fs::read(node.store.dir().join("blobs/sha256").join(first.manifest.hex())).unwrap();
    node.store.remove(&first.id.to_string()).unwrap();
    mirror.put_manifest("1", crate::fake_registry::DOCKER_MANIFEST, &manifest);
    let before = registry_copy.count("/manifests/");
    let image = node.pull(&from).await.unwrap();
    assert_eq!(node.read(&image, "a").unwrap(), b"1");
    assert_eq!(registry_copy.count("/manifests/"), before);
}

#[tokio::test]
async fn tls_is_verified_as_configured() {
    let registry = FakeRegistry::start().await;
    registry.put_image("1", &[layer("a", b"1")]);
    let (address, certificate) = registry.start_tls("localhost").await;
    let port = address.port();
    let reference = Reference::parse(&format!("localhost:{port}/a/b:1")).unwrap();
    let (node, domain) = (Node::new(), format!("localhost_{port}_"));
    let server = format!("server = \"https://localhost:{port}\"\n");
    node.configure(&domain, &server);
    let error = chain(&node.pull(&reference).await.unwrap_err());
    assert!(error.contains("certificate"), "{error}");
    std::fs::write(path_of(&node, "ca.pem"), certificate).unwrap();
    let ca = path_of(&node, "ca.pem");
    node.configure(&domain, &format!("{server}ca = {ca:?}\n"));
    node.pull(&reference).await.unwrap();
    node.store.remove(&reference.to_string()).unwrap();
    node.configure(&domain, &format!("{server}skip_verify = true\n"));
    node.pull(&reference).await.unwrap();
}
