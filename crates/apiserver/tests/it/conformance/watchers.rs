//! Watches with selectors.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use meta::{Status, WatchEvent};
use serde_json::json;

use super::{MERGE, delete, names, patch};
use crate::fixture::{Fixture, admin};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Watch = BoxStream<'static, Result<WatchEvent, Status>>;

/// Sort of event, name and resource version.
type Seen = (&'static str, String, u64);

async fn open(server: &Fixture, selector: &str) -> Watch {
    let path = format!("{CONFIG_MAPS}?watch=true&labelSelector={selector}&resourceVersion=0");
    server.handle.watch(&admin(), &path).await.expect("the watch opens")
}

async fn next(watch: &mut Watch) -> Seen {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    let event = event.expect("in time").expect("not ended").expect("no error");
    let (sort, object) = match &event {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark { .. } => panic!("a bookmark nobody asked for"),
    };
    (sort, object.header().name.clone(), object.header().resource_version.0)
}

async fn is_silent(watch: &mut Watch) -> bool {
    tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err()
}

/// `[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on
/// configmaps`.
#[tokio::test]
async fn watchers_see_what_their_selector_selects_and_nothing_else() {
    let server = Fixture::start().await;
    let label = "watch-this-configmap";
    let mut of_a = open(&server, &format!("{label}%3Da")).await;
    let mut of_b = open(&server, &format!("{label}%3Db")).await;
    let mut of_both = open(&server, &format!("{label}%20in%20(a,b)")).await;
    let map = |name: &str| json!({"metadata": {"name": name, "labels": {label: name}}});
    server.create(CONFIG_MAPS, &map("a")).await;
    let added = next(&mut of_a).await;
    assert_eq!((added.0, &*added.1), ("ADDED", "a"));
    assert_eq!(next(&mut of_both).await, added);
    let mut newest = added.2;
    for mutation in ["1", "2"] {
        let change = json!({"data": {"mutation": mutation}});
        patch(&server, &format!("{CONFIG_MAPS}/a"), MERGE, &change).await;
        let modified = next(&mut of_a).await;
        assert_eq!((modified.0, &*modified.1), ("MODIFIED", "a"));
        assert_eq!(next(&mut of_both).await, modified);
        assert!(modified.2 > newest);
        newest = modified.2;
    }
    delete(&server, &format!("{CONFIG_MAPS}/a")).await;
    let deleted = next(&mut of_a).await;
    assert_eq!((deleted.0, &*deleted.1), ("DELETED", "a"));
    assert!(deleted.2 > newest, "a deletion has a version of its own");
    assert_eq!(next(&mut of_both).await, deleted);
    assert!(is_silent(&mut of_b).await);
    server.create(CONFIG_MAPS, &map("b")).await;
    assert_eq!(next(&mut of_b).await, next(&mut of_both).await);
    assert!(is_silent(&mut of_a).await);
}

/// `[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the
/// requirements of the selector`.
#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_and_added_when_it_returns() {
    let server = Fixture::start().await;
    let mut watch = open(&server, "l%3Dwanted").await;
    let map = json!({"metadata": {"name": "m", "labels": {"l": "wanted"}}});
    server.create(CONFIG_MAPS, &map).await;
    assert_eq!(next(&mut watch).await.0, "ADDED");
    let label = |value: &str| json!({"metadata": {"labels": {"l": value}}});
    let path = format!("{CONFIG_MAPS}/m");
    patch(&server, &path, MERGE, &label("other")).await;
    assert_eq!(next(&mut watch).await.0, "DELETED");
    patch(&server, &path, MERGE, &json!({"data": {"a": "1"}})).await;
    assert!(is_silent(&mut watch).await);
    patch(&server, &path, MERGE, &label("wanted")).await;
    assert_eq!(next(&mut watch).await.0, "ADDED");
    delete(&server, &path).await;
    assert_eq!(next(&mut watch).await.0, "DELETED");
}

/// `[sig-api-machinery] Watchers should receive events on concurrent watches in same order`.
#[tokio::test]
async fn watches_opened_at_old_versions_replay_the_same_order() {
    let server = Fixture::start().await;
    let mut first = open(&server, "").await;
    let mut seen: Vec<Seen> = Vec::new();
    for index in 0..20 {
        let name = format!("m{}", index % 5);
        if names(&server, CONFIG_MAPS).await.contains(&name) {
            delete(&server, &format!("{CONFIG_MAPS}/{name}")).await;
        } else {
            server.create(CONFIG_MAPS, &json!({"metadata": {"name": name}})).await;
        }
        seen.push(next(&mut first).await);
    }
    for (at, (.., version)) in seen.iter().enumerate() {
        let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}");
        let mut later = server.handle.watch(&admin(), &path).await.unwrap();
        for expected in &seen[at + 1..] {
            assert_eq!(&next(&mut later).await, expected);
        }
    }
}

/// `[sig-api-machinery] Watchers should be able to start watching from a specific resource version`
/// and `should be able to restart watching from the last resource version observed by the previous
/// watch`.
#[tokio::test]
async fn a_watch_goes_on_where_another_ended() {
    let server = Fixture::start().await;
    let map = json!({"metadata": {"name": "m"}});
    let made = server.create(CONFIG_MAPS, &map).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{CONFIG_MAPS}/m");
    for mutation in ["1", "2"] {
        patch(&server, &path, MERGE, &json!({"data": {"mutation": mutation}})).await;
    }
    let from = async |version: &str| {
        let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}");
        server.handle.watch(&admin(), &path).await.unwrap()
    };
    let mut watch = from(&version).await;
    let first = next(&mut watch).await;
    let second = next(&mut watch).await;
    assert_eq!((first.0, second.0), ("MODIFIED", "MODIFIED"));
    drop(watch);
    delete(&server, &path).await;
    let mut again = from(&first.2.to_string()).await;
    assert_eq!(next(&mut again).await, second);
    let deleted = next(&mut again).await;
    assert_eq!(deleted.0, "DELETED");
    assert!(deleted.2 > second.2);
}

/// `[sig-api-machinery] Watchers should receive events on concurrent watches in same order`, with as
/// many watches as the suite opens, while objects keep changing.
#[tokio::test]
async fn a_hundred_watches_tell_the_same_order() {
    const WATCHES: usize = 100;
    let server = Fixture::start().await;
    let mut first = open(&server, "").await;
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "m"}})).await;
    let mut version = next(&mut first).await.2;
    let mut watches = Vec::new();
    for at in 0..WATCHES {
        let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}");
        watches.push(server.handle.watch(&admin(), &path).await.unwrap());
        let change = json!({"data": {"at": at.to_string()}});
        patch(&server, &format!("{CONFIG_MAPS}/m"), MERGE, &change).await;
        let expected = next(&mut first).await;
        for watch in &mut watches {
            assert_eq!(next(watch).await, expected);
        }
        version = expected.2;
    }
}
