//! Lists in chunks.

use serde_json::{Value, json};

use super::read;
use crate::fixture::Fixture;

const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
const COUNT: usize = 400;

/// `[sig-api-machinery] Servers with support for API chunking should return chunks of results for
/// list calls`.
#[tokio::test]
async fn chunks_are_of_one_version_in_order_and_count_what_remains() {
    let server = Fixture::start().await;
    futures::future::join_all((0..COUNT).map(|index| {
        let server = &server;
        async move {
            let template = json!({"metadata": {"name": format!("template-{index:04}")},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
            server.create(TEMPLATES, &template).await;
        }
    }))
    .await;
    for limit in [1, 17, 133] {
        follow(&server, limit).await;
    }
    let all = read(&server, TEMPLATES).await;
    assert_eq!(all["items"].as_array().unwrap().len(), COUNT);
    assert_eq!(all["metadata"].get("continue"), None);
    assert_eq!(all["metadata"].get("remainingItemCount"), None);
}

/// All pages of a size.
async fn follow(server: &Fixture, limit: usize) {
    let (mut token, mut found, mut version) = (String::new(), 0, Value::Null);
    loop {
        let list = read(server, &format!("{TEMPLATES}?limit={limit}&continue={token}")).await;
        if version.is_null() {
            version = list["metadata"]["resourceVersion"].clone();
        }
        assert_eq!(list["metadata"]["resourceVersion"], version);
        let items = list["items"].as_array().expect("a list has items");
        assert!(items.len() <= limit);
        for item in items {
            assert_eq!(item["metadata"]["name"], format!("template-{found:04}"));
            found += 1;
        }
        token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            assert_eq!(list["metadata"].get("remainingItemCount"), None);
            assert_eq!(found, COUNT);
            return;
        }
        assert_eq!(list["metadata"]["remainingItemCount"], COUNT - found);
    }
}
