//! Static pods of an address.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubelet::ManifestUrl;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{World, one};

/// A server with one page, and what it was asked for.
#[derive(Clone, Default)]
struct Page {
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Page {
    fn set(&self, code: u16, text: impl ToString) {
        *self.answer.lock().unwrap() = (code, text.to_string());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked twice more: then the first answer has been looked at.
    async fn is_read(&self) {
        let before = self.asked().len();
        while self.asked().len() < before + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn serve(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let page = self.clone();
        drop(stdx::task::spawn("page", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                page.asked.lock().unwrap().push(String::from_utf8(asked).unwrap());
                let (code, text) = page.answer.lock().unwrap().clone();
                let length = text.len();
                let answer = format!("HTTP/1.1 {code} -\r\nContent-Length: {length}\r\n\r\n{text}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }));
        port
    }
}

fn manifest(name: &str, container: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "n" },
            "spec": one(json!({ "name": container })) })
}

#[tokio::test]
async fn pods_of_an_address_come_and_go_with_what_it_says() {
    let page = Page::default();
    page.set(200, manifest("web", "c"));
    let port = page.serve().await;
    let world = World::with_manifest_url(ManifestUrl {
        url: format!("http://127.0.0.1:{port}/pods?of=node"),
        headers: vec![("X-Own".to_owned(), "a word".to_owned())],
        check_frequency: Duration::from_millis(50),
    })
    .await;
    world.until_ready("web-node").await;
    let pod = world.pod("web-node").unwrap();
    assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/config.source"], "http");
    let asked = page.asked()[0].to_lowercase();
    assert!(asked.starts_with("get /pods?of=node http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nx-own: a word\r\n"), "{asked}");

    // What is no manifest changes nothing.
    for (code, text) in [(500, "{}"), (200, "no pod"), (200, "{\"apiVersion\":\"v1\"}")] {
        page.set(code, text);
        page.is_read().await;
    }
    assert_eq!(world.runtime.calls().len(), 3, "{:?}", world.runtime.calls());

    let list = json!({ "apiVersion": "v1", "kind": "PodList",
                       "items": [manifest("web", "c"), manifest("other", "o")] });
    page.set(200, list);
    world.until_ready("other-node").await;
    let starts = |name: &str| {
        let start = format!("start {name}");
        world.runtime.calls().iter().filter(|call| **call == start).count()
    };
    assert_eq!(starts("c"), 1, "it stayed the same");
    page.set(200, "");
    world.until("both go", || world.api.below("/api/v1/namespaces/n/pods/").is_empty()).await;
}

#[tokio::test]
async fn a_file_comes_before_an_address() {
    let page = Page::default();
    let mut own = manifest("web", "of-address");
    own["metadata"]["uid"] = "same".into();
    page.set(200, &own);
    let port = page.serve().await;
    let world = World::with_manifest_url(ManifestUrl {
        url: format!("http://127.0.0.1:{port}/"),
        headers: Vec::new(),
        check_frequency: Duration::from_millis(50),
    })
    .await;
    world.until_ready("web-node").await;
    std::fs::create_dir_all(world.manifest("")).unwrap();
    world.write_manifest("web.yaml", &manifest("web", "of-file"));
    let runs = |name: &str| world.runtime.calls().contains(&format!("start {name}"));
    world.until("that of the file runs", || runs("of-file")).await;
    assert!(runs("of-address"), "before");
}
