//! The store, crashed at every place.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::api::Expect;
use crate::log::SEGMENT_MAGIC;

fn clock() -> SharedClock {
    Arc::new(clock::SystemClock)
}

fn open(directory: &Path) -> Result<LogStore, OpenError> {
    LogStore::open(directory, &Options::default(), clock(), &prometheus::Registry::new())
}

fn reopen(store: LogStore, directory: &Path) -> LogStore {
    drop(store);
    open(directory).unwrap()
}

async fn put(store: &LogStore, key: &str, value: &str, expect: Expect) -> Outcome {
    let write = Write::new(key.to_owned().into(), Some(value.to_owned().into()), expect);
    store.write(write).await.unwrap()
}

async fn delete(store: &LogStore, key: &str, expect: Expect) -> Outcome {
    store.write(Write::new(key.to_owned().into(), None, expect)).await.unwrap()
}

fn committed(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Committed(committed) => committed.revision,
        Outcome::Conflict(found) => panic!("conflict with {found:?}"),
    }
}

async fn contents(store: &LogStore, revision: Option<Revision>) -> BTreeMap<String, String> {
    let range = Range { revision, ..Range::default() };
    let items = store.range(range).await.unwrap().items;
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    items.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

#[tokio::test]
async fn conditions_are_checked_against_the_newest_value() {
    let store = LogStore::volatile(&Options::default(), clock()).unwrap();
    let first = committed(put(&store, "a", "1", Expect::Absent).await);
    assert_eq!(first, Revision(2));
    assert!(matches!(put(&store, "a", "2", Expect::Absent).await, Outcome::Conflict(Some(_))));
    let second = committed(put(&store, "a", "2", Expect::ModRevision(first)).await);
    let stale = put(&store, "a", "3", Expect::ModRevision(first)).await;
    assert!(matches!(stale, Outcome::Conflict(Some(kv)) if kv.mod_revision == second));
    assert!(matches!(delete(&store, "b", Expect::Any).await, Outcome::Conflict(None)));
    let kv = store.get(b"a").await.unwrap().unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (first, second, 2));
    committed(delete(&store, "a", Expect::ModRevision(second)).await);
    assert_eq!(store.get(b"a").await.unwrap(), None);
}

#[tokio::test]
async fn ranges_are_cut_by_prefix_start_and_limit() {
    let store = LogStore::volatile(&Options::default(), clock()).unwrap();
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        put(&store, key, "x", Expect::Any).await;
    }
    let range = Range { prefix: "a/".into(), limit: 2, ..Range::default() };
    let found = store.range(range.clone()).await.unwrap();
    assert_eq!(found.items.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"a/1", b"a/2"]);
    assert!(found.more);
    let rest = store.range(Range { from: Some("a/3".into()), ..range }).await.unwrap();
    assert_eq!((rest.items.len(), rest.more), (1, false));
}

#[tokio::test]
async fn the_past_can_be_read_until_it_is_compacted() {
    let store = LogStore::volatile(&Options::default(), clock()).unwrap();
    let first = committed(put(&store, "a", "1", Expect::Any).await);
    put(&store, "a", "2", Expect::Any).await;
    let last = committed(delete(&store, "a", Expect::Any).await);
    assert_eq!(contents(&store, Some(first)).await["a"], "1");
    assert!(contents(&store, None).await.is_empty());
    store.compact(last).await.unwrap();
    let range = Range { revision: Some(first), ..Range::default() };
    assert!(matches!(store.range(range).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.watch("".into(), first).await, Err(StoreError::Compacted { .. })));
    let range = Range { revision: Some(Revision(99)), ..Range::default() };
    assert!(matches!(store.range(range).await, Err(StoreError::Future { .. })));
}

#[tokio::test]
async fn a_watch_replays_and_follows_with_previous_values() {
    let store = LogStore::volatile(&Options::default(), clock()).unwrap();
    let first = committed(put(&store, "a/1", "1", Expect::Any).await);
    put(&store, "b/1", "1", Expect::Any).await;
    put(&store, "a/1", "2", Expect::Any).await;
    let mut watch = store.watch("a/".into(), first).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (Revision(4), 1));
    assert_eq!(batch.events[0].previous.as_ref().unwrap().value, "1");
    committed(delete(&store, "a/1", Expect::Any).await);
    let batch = watch.next().await.unwrap().unwrap();
    assert!(batch.events[0].current.is_none());
    assert_eq!(batch.events[0].key(), "a/1");
}

#[tokio::test]
async fn a_watch_that_falls_behind_the_history_ends_with_compacted() {
    let options = Options { history_events: 3, ..Options::default() };
    let store = LogStore::volatile(&options, clock()).unwrap();
    let mut watch = store.watch("".into(), Revision(1)).await.unwrap();
    for _ in 0..5 {
        put(&store, "a", "x", Expect::Any).await;
    }
    assert!(matches!(watch.next().await, Some(Err(StoreError::Compacted { .. }))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn acknowledged_writes_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "1", Expect::Any).await;
    put(&store, "b", "1", Expect::Any).await;
    delete(&store, "a", Expect::Any).await;
    let store = reopen(store, dir.path());
    assert_eq!(store.revision().await.unwrap(), Revision(4));
    assert_eq!(contents(&store, None).await.into_keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(committed(put(&store, "c", "1", Expect::Any).await), Revision(5));
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path()).unwrap();
    let text = open(dir.path()).err().unwrap().to_string();
    let expected = format!("is in use by another process (pid {})", std::process::id());
    assert!(text.ends_with(&expected), "{text}");
}

fn only_segment(directory: &Path) -> PathBuf {
    crate::log::numbered(directory, "wal").unwrap().pop().unwrap().1
}

#[tokio::test]
async fn a_log_cut_anywhere_in_its_last_frame_opens_without_that_frame() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "1", Expect::Any).await;
    put(&store, "b", "2", Expect::Any).await;
    let segment = only_segment(dir.path());
    let before = fs::read(&segment).unwrap().len();
    put(&store, "c", "3", Expect::Any).await;
    drop(store);
    let whole = fs::read(&segment).unwrap();
    for cut in before..whole.len() {
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join(segment.file_name().unwrap()), &whole[..cut]).unwrap();
        let store = open(copy.path()).unwrap();
        assert_eq!(contents(&store, None).await.into_keys().collect::<Vec<_>>(), ["a", "b"]);
        put(&store, "d", "4", Expect::Any).await;
        let store = reopen(store, copy.path());
        assert_eq!(store.revision().await.unwrap(), Revision(4), "cut at {cut}");
        assert!(store.get(b"d").await.unwrap().is_some());
    }
}

/// Opens a directory with this as its only segment.
fn open_segment(name: &Path, bytes: &[u8]) -> (tempfile::TempDir, Result<LogStore, OpenError>) {
    let copy = tempfile::tempdir().unwrap();
    fs::write(copy.path().join(name.file_name().unwrap()), bytes).unwrap();
    let store = open(copy.path());
    (copy, store)
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_segment_filled_with_zeros_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "1", Expect::Any).await;
    let segment = only_segment(dir.path());
    let frames = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let before = frames(&fs::read(&segment).unwrap());
    put(&store, "b", "2", Expect::Any).await;
    let crashed = fs::read(&segment).unwrap();
    let whole = frames(&crashed);
    assert!(crashed.len() > whole + 1000, "it is filled ahead");
    // Any part of the last frame may have reached the disk.
    for cut in before..=whole {
        let mut left = crashed.clone();
        left[cut..].fill(0);
        let (copy, store) = open_segment(&segment, &left);
        let store = store.unwrap();
        let expected: &[&str] = if cut == whole { &["a", "b"] } else { &["a"] };
        assert_eq!(contents(&store, None).await.into_keys().collect::<Vec<_>>(), expected);
        put(&store, "c", "3", Expect::Any).await;
        let store = reopen(store, copy.path());
        assert_eq!(store.get(b"c").await.unwrap().unwrap().value, "3", "cut at {cut}");
    }
    // Acknowledged writes are not taken for such a rest.
    let mut bad = crashed.clone();
    bad[before - 1] ^= 0x40;
    let (_copy, refused) = open_segment(&segment, &bad);
    assert!(matches!(refused.err().unwrap(), OpenError::Corrupt { .. }));
    drop(store);
    assert_eq!(fs::read(&segment).unwrap().len(), whole, "who ends in order takes the zeros along");
}

#[tokio::test]
async fn a_segment_filled_with_zeros_may_be_followed_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "1", Expect::Any).await;
    let first = only_segment(dir.path());
    let zeros = fs::read(&first).unwrap();
    drop(store);
    fs::write(&first, zeros).unwrap();
    drop(FileLog::create(dir.path(), Revision(2)).unwrap());
    let store = open(dir.path()).unwrap();
    put(&store, "b", "2", Expect::Any).await;
    let store = reopen(store, dir.path());
    assert_eq!(contents(&store, None).await.into_keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn damage_before_a_valid_frame_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "1", Expect::Any).await;
    put(&store, "b", "2", Expect::Any).await;
    drop(store);
    let segment = only_segment(dir.path());
    let whole = fs::read(&segment).unwrap();
    let first_frame = SEGMENT_MAGIC.len()..SEGMENT_MAGIC.len() + 30;
    for at in first_frame {
        let mut bad = whole.clone();
        bad[at] ^= 0x40;
        fs::write(&segment, &bad).unwrap();
        let error = open(dir.path()).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { .. }), "byte {at}: {error}");
    }
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { snapshot_after_bytes: 1000, ..Options::default() };
    let open =
        || LogStore::open(dir.path(), &options, clock(), &prometheus::Registry::new()).unwrap();
    let store = open();
    let mut expected = BTreeMap::new();
    for i in 0..200 {
        let (key, value) = (format!("k{}", i % 17), format!("v{i}"));
        put(&store, &key, &value, Expect::Any).await;
        expected.insert(key, value);
    }
    // The snapshot is written beside the writer; wait for one to appear.
    for _ in 0..500 {
        if !crate::log::numbered(dir.path(), "snapshot").unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!crate::log::numbered(dir.path(), "snapshot").unwrap().is_empty());
    drop(store);
    let store = open();
    assert_eq!(contents(&store, None).await, expected);
    assert_eq!(store.revision().await.unwrap(), Revision(201));
    assert_eq!(store.get(b"k0").await.unwrap().unwrap().version, 12);
}

/// A disk with so many bytes of space, that counts its syncs.
struct SmallDisk {
    space: Arc<AtomicU64>,
    syncs: Arc<AtomicUsize>,
    length: u64,
    sync_fails: bool,
}

impl Log for SmallDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let space = self.space.load(Ordering::SeqCst);
        let fits = (bytes.len() as u64).min(space);
        self.space.fetch_sub(fits, Ordering::SeqCst);
        self.length += fits;
        if fits < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        if self.sync_fails { Err(io::Error::other("bad sector")) } else { Ok(()) }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.space.fetch_add(self.length - length, Ordering::SeqCst);
        self.length = length;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn rotate(&mut self, _after: Revision) -> io::Result<()> {
        Ok(())
    }
}

fn on_disk(space: &Arc<AtomicU64>, syncs: &Arc<AtomicUsize>, sync_fails: bool) -> LogStore {
    let log = SmallDisk { space: space.clone(), syncs: syncs.clone(), length: 0, sync_fails };
    LogStore::start(Index::new(), Box::new(log), None, &Options::default(), clock()).unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let space = Arc::new(AtomicU64::new(60));
    let store = on_disk(&space, &Arc::default(), false);
    committed(put(&store, "a", "1", Expect::Any).await);
    let large = Write::new("b".into(), Some(vec![0; 100].into()), Expect::Any);
    assert!(matches!(store.write(large.clone()).await, Err(StoreError::NoSpace)));
    assert!(store.get(b"a").await.unwrap().is_some());
    assert_eq!(store.revision().await.unwrap(), Revision(2));
    space.fetch_add(1000, Ordering::SeqCst);
    assert_eq!(committed(store.write(large).await.unwrap()), Revision(3));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let store = on_disk(&Arc::new(AtomicU64::new(1000)), &Arc::default(), true);
    let write = Write::new("a".into(), Some("1".into()), Expect::Any);
    for _ in 0..2 {
        assert!(matches!(store.write(write.clone()).await, Err(StoreError::Failed(_))));
    }
    assert_eq!(store.get(b"a").await.unwrap(), None);
}

#[tokio::test]
async fn concurrent_writes_share_syncs() {
    let syncs = Arc::new(AtomicUsize::new(0));
    let store = on_disk(&Arc::new(AtomicU64::new(1 << 30)), &syncs, false);
    let keys: Vec<_> = (0..500).map(|i| format!("k{i}")).collect();
    let writes = keys.iter().map(|key| put(&store, key, "x", Expect::Absent));
    let outcomes = futures::future::join_all(writes).await;
    let mut revisions: Vec<_> = outcomes.into_iter().map(|o| committed(o).0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..502).collect::<Vec<_>>());
    assert!(syncs.load(Ordering::SeqCst) < 250, "{syncs:?} syncs for 500 writes");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8_u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0..8_u8).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_agrees_with_a_map_at_every_revision(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { snapshot_after_bytes: 300, ..Options::default() };
            let registry = prometheus::Registry::new();
            let open = || LogStore::open(dir.path(), &options, clock(), &registry).unwrap();
            let mut store = open();
            let mut model = BTreeMap::new();
            let mut past = vec![(Revision(1), model.clone())];
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        let (key, value) = (key.to_string(), value.to_string());
                        let revision = committed(put(&store, &key, &value, Expect::Any).await);
                        model.insert(key, value);
                        past.push((revision, model.clone()));
                    }
                    Step::Delete(key) => {
                        let key = key.to_string();
                        let had = model.remove(&key).is_some();
                        match delete(&store, &key, Expect::Any).await {
                            Outcome::Committed(c) => past.push((c.revision, model.clone())),
                            Outcome::Conflict(found) => assert!(!had && found.is_none()),
                        }
                    }
                    Step::Reopen => {
                        drop(store);
                        store = open();
                        past.drain(..past.len() - 1);
                    }
                }
                assert_eq!(contents(&store, None).await, model);
            }
            for (revision, expected) in past {
                assert_eq!(contents(&store, Some(revision)).await, expected);
            }
        });
    }
}

#[tokio::test]
async fn a_value_is_kept_with_its_revision_where_the_writer_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let write = Write::new("a".into(), Some("<>".into()), Expect::Any);
    store.write(Write { revision_at: Some(1), ..write.clone() }).await.unwrap();
    store.write(Write { revision_at: Some(1), ..write }).await.unwrap();
    let kept = reopen(store, dir.path()).get(b"a").await.unwrap().unwrap();
    assert_eq!(kept.value, format!("<{}>", kept.mod_revision.0));
}
