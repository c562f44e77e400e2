//! The cache, told of changes and asked for lists and watches.

use bytes::Bytes;
use meta::{FieldSelector, LabelSelector};

use super::*;

fn object(name: &str, label: &str, revision: u64) -> Arc<Object> {
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"n","resourceVersion":"{revision}","labels":{{"l":"{label}"}}}}}}"#
    );
    Arc::new(Object::from_json(Bytes::from(json)).unwrap())
}

fn now() -> Instant {
    clock::Clock::monotonic(&clock::SystemClock)
}

/// Writes an object, or deletes it when the label is `None`.
fn put(cache: &Cache, revision: u64, name: &str, label: Option<&str>) {
    let key: Arc<str> = format!("n/{name}").into();
    let before = cache.get(&key);
    let after = label.map(|label| object(name, label, revision));
    cache.apply(vec![Change { revision, key, before, after }], now());
}

fn labelled(text: &str) -> Selection {
    Selection { labels: LabelSelector::parse(text).unwrap(), ..Selection::all("") }
}

fn seen(cursor: &mut Cursor) -> Vec<String> {
    let (batch, _) = cursor.poll().unwrap();
    let show = |s: &Selected| {
        let header = s.object().header();
        format!("{} {} {}", s.word(), header.name, header.resource_version)
    };
    batch.changes.iter().map(show).collect()
}

#[test]
fn a_snapshot_at_a_past_revision_is_what_was_there() {
    let cache = Cache::default();
    put(&cache, 2, "a", Some("1"));
    put(&cache, 3, "b", Some("1"));
    put(&cache, 5, "a", None);
    let names = |revision| {
        let snapshot = cache.snapshot_at(revision).unwrap();
        snapshot.map.keys().map(|key| key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(2), ["n/a"]);
    assert_eq!(names(4), ["n/a", "n/b"]);
    assert_eq!(names(5), ["n/b"]);
    assert_eq!(cache.snapshot(9).revision, 9);
    assert_eq!(cache.snapshot(1).revision, 5);
}

#[test]
fn objects_enter_and_leave_a_selector() {
    let cache = Arc::new(Cache::default());
    let mut cursor = Cursor::new(cache.clone(), labelled("l=x"), 0, true, Pace::Crowd).unwrap();
    put(&cache, 2, "a", Some("y"));
    put(&cache, 3, "a", Some("x"));
    put(&cache, 4, "a", Some("x"));
    put(&cache, 5, "a", Some("y"));
    put(&cache, 6, "a", None);
    assert_eq!(seen(&mut cursor), ["ADDED a 3", "MODIFIED a 4", "DELETED a 5"]);
    put(&cache, 7, "b", Some("x"));
    put(&cache, 8, "b", None);
    assert_eq!(seen(&mut cursor), ["ADDED b 7", "DELETED b 8"]);
}

#[test]
fn who_sees_the_same_shares_it() {
    let cache = Arc::new(Cache::default());
    let open = |selection, pace| Cursor::new(cache.clone(), selection, 0, true, pace).unwrap();
    let mut crowd = [0, 1, 2].map(|_| open(labelled("l=x"), Pace::Crowd));
    let mut other = open(labelled("l=y"), Pace::Crowd);
    let _more: Vec<_> = (0..interests::FEW).map(|_| open(labelled("l=y"), Pace::Crowd)).collect();
    let mut alone = open(labelled("l=x"), Pace::AtOnce);
    put(&cache, 2, "a", Some("x"));
    put(&cache, 3, "b", Some("y"));
    // One of them has moved over revisions of other resources.
    crowd[1].skip_to(1);
    let [first, second, third] = crowd.each_mut().map(|cursor| cursor.poll().unwrap().0);
    assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &third));
    assert!(!Arc::ptr_eq(&first, &alone.poll().unwrap().0));
    assert_eq!(seen(&mut other), ["ADDED b 3"]);
    put(&cache, 4, "a", None);
    assert!(crowd.iter_mut().all(|cursor| seen(cursor) == ["DELETED a 4"]));
    assert!(crowd.iter_mut().all(|cursor| seen(cursor).is_empty()));
}

#[test]
fn few_watchers_share_nothing() {
    let cache = Arc::new(Cache::default());
    let open = || Cursor::new(cache.clone(), labelled("l=x"), 0, true, Pace::Crowd).unwrap();
    let (mut one, mut other) = (open(), open());
    put(&cache, 2, "a", Some("x"));
    let [first, second] = [&mut one, &mut other].map(|cursor| cursor.poll().unwrap().0);
    assert!(!Arc::ptr_eq(&first, &second));
    drop((one, other));
    assert_eq!(cache.watchers.load(Ordering::Relaxed), 0);
}

#[test]
fn bytes_are_made_once_for_each_form() {
    let batch = Batch::new(vec![Selected::Added(object("a", "x", 2))]);
    let kind = |name: &str| meta::GroupVersionKind::new("", "v1", name);
    let form = 1;
    let first = batch.written((form, &kind("A")), || Bytes::from_static(b"first"));
    let again = batch.written((form, &kind("A")), || unreachable!("they are there"));
    assert_eq!(first, again);
    let other = batch.written((form, &kind("B")), || Bytes::from_static(b"other"));
    assert_eq!(other, "other");
}

#[tokio::test]
async fn only_the_interested_are_woken() {
    let cache = Arc::new(Cache::default());
    let named = |name: &str| Selection {
        fields: FieldSelector::parse(&format!("metadata.name={name}")).unwrap(),
        ..Selection::all("n")
    };
    let a = Cursor::new(cache.clone(), named("a"), 0, true, Pace::Crowd).unwrap();
    let b = Cursor::new(cache.clone(), named("b"), 0, true, Pace::Crowd).unwrap();
    put(&cache, 2, "a", Some("1"));
    a.changed().await;
    let wait = tokio::time::timeout(Duration::from_millis(5), b.changed());
    assert!(wait.await.is_err());
}

#[tokio::test]
async fn who_is_behind_a_new_beginning_hears_of_it() {
    let cache = Arc::new(Cache::default());
    put(&cache, 2, "a", Some("1"));
    let mut cursor = Cursor::new(cache.clone(), Selection::all(""), 2, true, Pace::Crowd).unwrap();
    let snapshot = cache.snapshot(0);
    cache.load(snapshot.map, 9);
    tokio::time::timeout(Duration::from_secs(5), cursor.changed()).await.unwrap();
    assert!(cursor.poll().is_err());
}

#[test]
fn a_cursor_behind_the_ring_expires() {
    let cache = Arc::new(Cache::default());
    put(&cache, 2, "a", Some("1"));
    put(&cache, 3, "a", Some("2"));
    let mut slow = Cursor::new(cache.clone(), Selection::all(""), 0, true, Pace::Crowd).unwrap();
    cache.expire(now(), 3);
    assert!(slow.poll().is_err());
    assert!(Cursor::new(cache.clone(), Selection::all(""), 2, true, Pace::Crowd).is_err());
    assert!(Cursor::new(cache, Selection::all(""), 3, true, Pace::Crowd).is_ok());
}

#[test]
fn objects_are_found_by_the_node_they_name() {
    let cache = Cache::default();
    let on = |revision, name: &str, node: Option<&str>| {
        let key: Arc<str> = format!("n/{name}").into();
        let before = cache.get(&key);
        let after = node.map(|node| {
            let plain = object(name, "1", revision);
            let mut header = plain.header().clone();
            header.fields = [("spec.nodeName", node.into())].into();
            Arc::new(Object::new(header, plain.json().clone()))
        });
        cache.apply(vec![Change { revision, key, before, after }], now());
    };
    let names = |node| {
        let found = cache.on_node(node);
        found.iter().map(|object| object.header().name.clone()).collect::<Vec<_>>()
    };
    on(2, "b", Some("x"));
    on(3, "a", Some("x"));
    on(4, "c", Some(""));
    assert_eq!(names("x"), ["a", "b"]);
    assert!(names("").is_empty());
    on(5, "c", Some("y"));
    on(6, "a", Some("y"));
    on(7, "b", None);
    assert!(names("x").is_empty());
    assert_eq!(names("y"), ["a", "c"]);
    let snapshot = cache.snapshot(0);
    cache.load(snapshot.map, 8);
    assert_eq!(names("y"), ["a", "c"]);
    assert_eq!(cache.snapshot_of_node(0, "y").revision, 8);
}
