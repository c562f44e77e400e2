//! The informer against a scripted transport.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream;
use meta::{GroupVersionResource, Reason, Status};

use super::*;
use crate::{ObjectList, Transport, WatchStream};

/// Answers lists and watches in the order of the script.
#[derive(Default)]
struct Script {
    lists: Mutex<VecDeque<ObjectList>>,
    watches: Mutex<VecDeque<Vec<Result<WatchEvent, ClientError>>>>,
    asked: Mutex<Vec<String>>,
}

impl Transport for Script {
    fn call(
        &self,
        _request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, ClientError>> {
        async { Err(ClientError::transport("not scripted")) }.boxed()
    }

    fn list<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
        self.asked.lock().unwrap().push(format!("list {url}"));
        let next = self.lists.lock().unwrap().pop_front();
        async move { next.ok_or_else(|| ClientError::transport("end of script")) }.boxed()
    }

    fn watch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
        self.asked.lock().unwrap().push(format!("watch {url}"));
        let next = self.watches.lock().unwrap().pop_front();
        async move {
            match next {
                Some(events) => Ok(stream::iter(events).boxed()),
                None => Ok(stream::pending().boxed()),
            }
        }
        .boxed()
    }
}

fn object(name: &str, version: u64) -> Arc<Object> {
    object_with_uid(name, version, "u")
}

fn object_with_uid(name: &str, version: u64, uid: &str) -> Arc<Object> {
    let metadata = serde_json::json!({ "name": name, "namespace": "n", "uid": uid,
        "resourceVersion": version.to_string() });
    let json = serde_json::json!({ "metadata": metadata }).to_string();
    Arc::new(Object::from_json(json.into()).unwrap())
}

fn list(version: u64, items: Vec<Arc<Object>>) -> ObjectList {
    ObjectList { resource_version: ResourceVersion(version), continue_token: String::new(), items }
}

/// Runs the script to its end and gives the changes that a handler saw, and what was asked for.
async fn changes(script: Script) -> (Vec<String>, Vec<String>) {
    let (changes, asked, _) = run(script).await;
    (changes, asked)
}

/// The same, with the newest version that was in at each change, and at the end.
async fn run(script: Script) -> (Vec<String>, Vec<String>, Vec<u64>) {
    let script = Arc::new(script);
    let config = InformerConfig {
        path: ResourcePath::new(GroupVersionResource::new("", "v1", "pods")),
        namespace: String::new(),
        options: ListOptions::all(),
    };
    let transport: Arc<dyn Transport> = script.clone();
    let (informer, lister) = Informer::new(
        Client::new(transport),
        Arc::new(clock::SystemClock),
        config,
        |object: &Object| Ok(object.header().resource_version.0),
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let versions = Arc::new(Mutex::new(Vec::new()));
    let (log, newest) = (Arc::clone(&seen), Arc::clone(&versions));
    let reader = lister.clone();
    lister.on_change(move |key, change| {
        newest.lock().unwrap().push(reader.seen().0);
        log.lock().unwrap().push(match change {
            Change::Added(new) => format!("+{key}@{new}"),
            Change::Updated { old, new } => format!("~{key}@{old}->{new}"),
            Change::Deleted(old) => format!("-{key}@{old}"),
        });
    });
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let (_, ()) = tokio::join!(informer.run(shutdown), async move {
        // Time is paused: this passes as soon as the informer has nothing left to do.
        tokio::time::sleep(Duration::from_secs(100)).await;
        stop.begin();
    });
    let without_time = |url: &String| url.split("&timeoutSeconds").next().unwrap().to_owned();
    let asked = script.asked.lock().unwrap().iter().map(without_time).collect();
    let mut versions = Vec::clone(&versions.lock().unwrap());
    versions.push(lister.seen().0);
    (Vec::clone(&seen.lock().unwrap()), asked, versions)
}

#[tokio::test(start_paused = true)]
async fn handlers_know_up_to_which_version_all_changes_are_in() {
    let expired = Status::failure(Reason::Expired, "too old resource version: 8 (20)");
    let bookmark = |version| WatchEvent::Bookmark {
        resource_version: ResourceVersion(version),
        initial_events_end: false,
    };
    let script = Script {
        lists: Mutex::new(
            [
                list(5, vec![object("a", 3), object("b", 4)]),
                // Until all of a list is in, it says no more than was known before.
                list(20, vec![object("a", 15), object("c", 12)]),
            ]
            .into(),
        ),
        watches: Mutex::new(
            [
                vec![
                    Ok(WatchEvent::Modified(object("a", 6))),
                    Ok(WatchEvent::Deleted(object("b", 7))),
                    Ok(bookmark(8)),
                    Err(ClientError::from(expired)),
                ],
                vec![Ok(WatchEvent::Added(object("d", 21))), Ok(bookmark(30))],
            ]
            .into(),
        ),
        ..Script::default()
    };
    let (changes, _, versions) = run(script).await;
    assert_eq!(
        changes,
        ["+n/a@3", "+n/b@4", "~n/a@3->6", "-n/b@4", "~n/a@6->15", "+n/c@12", "+n/d@21"]
    );
    assert_eq!(versions, [0, 0, 6, 7, 8, 8, 21, 30]);
}

#[tokio::test(start_paused = true)]
async fn changes_are_delivered_in_order_and_the_watch_goes_on_from_the_last_version() {
    let script = Script {
        lists: Mutex::new([list(5, vec![object("a", 3)])].into()),
        watches: Mutex::new(
            [
                vec![
                    Ok(WatchEvent::Added(object("b", 6))),
                    Ok(WatchEvent::Modified(object("a", 7))),
                    Ok(WatchEvent::Bookmark {
                        resource_version: ResourceVersion(9),
                        initial_events_end: false,
                    }),
                ],
                vec![Ok(WatchEvent::Deleted(object("b", 12)))],
            ]
            .into(),
        ),
        ..Script::default()
    };
    let (seen, asked) = changes(script).await;
    assert_eq!(seen, ["+n/a@3", "+n/b@6", "~n/a@3->7", "-n/b@6"]);
    assert_eq!(
        asked,
        [
            "list /api/v1/pods?limit=500",
            "watch /api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=5",
            "watch /api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=9",
            "watch /api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=12",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn after_expiry_the_difference_is_delivered() {
    let expired = Status::failure(Reason::Expired, "too old resource version: 5 (9)");
    let script = Script {
        lists: Mutex::new(
            [
                list(5, vec![object("a", 1), object("b", 2), object("c", 3)]),
                list(9, vec![object("b", 2), object("c", 8), object("d", 9)]),
            ]
            .into(),
        ),
        watches: Mutex::new([vec![Err(expired.into())]].into()),
        ..Script::default()
    };
    let (seen, _) = changes(script).await;
    assert_eq!(
        seen,
        ["+n/a@1", "+n/b@2", "+n/c@3", "-n/a@1", "~n/c@3->8", "+n/d@9"],
        "b did not change, so nothing is said of it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_handler_sees_what_is_cached() {
    let script =
        Script { lists: Mutex::new([list(5, vec![object("a", 3)])].into()), ..Script::default() };
    let config = InformerConfig {
        path: ResourcePath::new(GroupVersionResource::new("", "v1", "pods")),
        namespace: String::new(),
        options: ListOptions::all(),
    };
    let client = Client::new(Arc::new(script));
    let shutdown = Shutdown::new();
    let clock: SharedClock = Arc::new(clock::SystemClock);
    let lister = Informer::spawn(&client, &clock, config, &shutdown, |object: &Object| {
        Ok(object.header().name.clone())
    });
    lister.synced().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    lister.on_change(move |key, _| log.lock().unwrap().push(key.to_string()));
    assert_eq!(*seen.lock().unwrap(), ["n/a"]);
    assert_eq!(lister.list_namespace("n").len(), 1);
    assert!(lister.list_namespace("m").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_another_of_its_name_has_replaced_is_gone() {
    let script = Script {
        lists: Mutex::new([list(5, vec![object("a", 3)])].into()),
        watches: Mutex::new(
            [vec![
                Ok(WatchEvent::Modified(object("a", 6))),
                Ok(WatchEvent::Added(object_with_uid("a", 9, "another"))),
            ]]
            .into(),
        ),
        ..Script::default()
    };
    let (changes, _) = changes(script).await;
    assert_eq!(changes, ["+n/a@3", "~n/a@3->6", "-n/a@6", "+n/a@9"]);
}
