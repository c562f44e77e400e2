//! Lists in chunks.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, ManualClock};
use http::{Method, StatusCode};
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

/// `[sig-api-machinery] Servers with support for API chunking should support continue listing from the
/// last key if the original version has been compacted away, though the list is inconsistent`.
#[tokio::test]
async fn an_old_token_is_refused_with_one_that_goes_on_at_the_newest_version() {
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let server = Fixture::start_at(clock.clone()).await;
    for index in 0..5 {
        let template = json!({"metadata": {"name": format!("t{index}")},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        server.create(TEMPLATES, &template).await;
    }
    let first = read(&server, &format!("{TEMPLATES}?limit=2")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let next = format!("{TEMPLATES}?limit=2&continue={token}");
    let refused = loop {
        // Other resources change, which is enough for the version to grow old.
        let map = json!({"metadata": {"generateName": "x-"}});
        server.create("/api/v1/namespaces/default/configmaps", &map).await;
        clock.advance(Duration::from_secs(30));
        tokio::task::yield_now().await;
        let (code, answer) = server.admin(Method::GET, &next, &Value::Null).await;
        if code != StatusCode::OK {
            break answer;
        }
        let age = jiff::Timestamp::UNIX_EPOCH.until(clock.now()).unwrap();
        assert!(age.total(jiff::Unit::Minute).unwrap() < 10.0, "the token never expires");
    };
    assert_eq!((&refused["code"], &refused["reason"]), (&json!(410), &json!("Expired")));
    let token = refused["metadata"]["continue"].as_str().expect("a token to go on with");
    let rest = read(&server, &format!("{TEMPLATES}?continue={token}")).await;
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["t2", "t3", "t4"]);
    assert_ne!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
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
