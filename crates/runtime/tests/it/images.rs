//! Containers of unusual images.

use crate::harness::{Node, append, import};

#[tokio::test]
async fn a_container_of_a_hundred_layers_sees_the_uppermost() {
    let layers: Vec<Vec<u8>> = (0..100)
        .map(|number| {
            let mut layer = tar::Builder::new(Vec::new());
            append(&mut layer, "top", number.to_string().as_bytes());
            append(&mut layer, &format!("layers/{number}"), b"");
            layer.into_inner().unwrap()
        })
        .collect();
    import("fixture-deep:1", &layers);
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let (_, log) = node
        .run(&sandbox, &["cat:/top", "ls:/layers"], |config| {
            config.image = "fixture-deep:1".into();
        })
        .await;
    assert_eq!(log[0], "stdout F 99");
    assert_eq!(log[1].split(' ').skip(2).count(), 100);
}

#[tokio::test]
async fn a_device_that_an_image_brings_cannot_be_used() {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_path("kernel-log").unwrap();
    header.set_entry_type(tar::EntryType::Char);
    header.set_device_major(1).unwrap();
    header.set_device_minor(11).unwrap();
    header.set_mode(0o666);
    header.set_size(0);
    header.set_cksum();
    layer.append(&header, std::io::empty()).unwrap();
    import("fixture-device:1", &[layer.into_inner().unwrap()]);
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let steps = ["cat:/kernel-log"];
    let (_, log) =
        node.run(&sandbox, &steps, |config| config.image = "fixture-device:1".into()).await;
    assert!(log[0].contains("not permitted"), "{log:?}");
}
