//! What registries answer: indexes, manifests and configurations.

use image::Document;

use super::{Target, halves};

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "\"schemaVersion\":2",
        "\"mediaType\":\"application/vnd.oci.image.index.v1+json\"",
        "\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\"",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "\"manifests\":[",
        "\"layers\":[",
        "\"config\":{",
        "\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
        "\"size\":18446744073709551615",
        "\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"}",
        "\"variant\":\"v8\"",
        "\"rootfs\":{\"diff_ids\":[",
        "null",
    ],
    // Digests are kept as text.
    memory_per_byte: 256,
    ..Target::new("image-document", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    let empty =
        "\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"";
    let layer = format!("{{\"mediaType\":\"x.tar\",{empty},\"size\":1}}");
    let config = format!(
        "{{\"architecture\":\"\",\"rootfs\":{{\"diff_ids\":[{}]}}}}",
        empty.trim_start_matches("\"digest\":")
    );
    vec![
        format!("{{\"schemaVersion\":2,\"config\":{layer},\"layers\":[{layer}]}}\0{config}")
            .into_bytes(),
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\
             \"manifests\":[{layer}]}}"
        )
        .into_bytes(),
    ]
}

fn run(input: &[u8]) {
    let (document, config) = halves(input);
    match Document::parse(document, "application/vnd.oci.image.manifest.v1+json") {
        Ok(Document::Index(index)) => drop(index.candidates()),
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.size() >= manifest.config.size);
            if let Ok(layers) = manifest.layers_by(config) {
                assert_eq!(layers.len(), manifest.layers.len());
            }
        }
        Err(_) => {}
    }
}
