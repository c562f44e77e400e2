//! Decides which key is handled when: client-go's rate-limiting work queue, and its workers.
//!
//! Invariants: a key is in `dirty` when it waits to be handled, in `processing` while it is
//! handled; a key added while it is handled is handled once more afterwards; it is never handled
//! twice at once. The queue is bounded by the number of different keys.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clock::SharedClock;
use futures::future::BoxFuture;
use stdx::shutdown::Shutdown;
use tokio::sync::Notify;

/// Waits as long as this, or longer, end with a full second of the queue's time: nobody counts on
/// less, and thousands of keys that were delayed one after the other share a wake-up then.
const LONG: Duration = Duration::from_secs(60);

type Failure = Box<dyn Display + Send + Sync>;
type Reconcile<K> = Arc<dyn Fn(K) -> BoxFuture<'static, Result<Outcome, Failure>> + Send + Sync>;

/// How a queue works off its keys.
#[derive(Clone, Copy, Debug)]
pub struct WorkQueueConfig {
    /// For logs.
    pub name: &'static str,
    /// Keys handled at once.
    pub workers: usize,
    /// Delay after the first failure; doubles with each one more.
    pub retry_first: Duration,
    /// The longest such delay.
    pub retry_max: Duration,
}

impl WorkQueueConfig {
    /// client-go's default controller rate limiter: 5 ms to 1,000 s.
    pub fn new(name: &'static str, workers: usize) -> Self {
        Self {
            name,
            workers,
            retry_first: Duration::from_millis(5),
            retry_max: Duration::from_secs(1000),
        }
    }
}

/// What a reconciler says when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// Handle the key again after this time.
    RequeueAfter(Duration),
    /// Handle the key again soon, with back-off, without calling it a failure.
    Requeue,
}

/// Is told what a queue does: for metrics.
pub trait QueueObserver: Send + Sync {
    /// A key was added that did not wait yet.
    fn added(&self);
    /// So many keys are ready.
    fn depth(&self, depth: usize);
    /// A key waited that long.
    fn waited(&self, wait: Duration);
    /// A key was handled in that time.
    fn worked(&self, work: Duration);
    /// A key is to be handled again after a failure.
    fn retried(&self);
}

/// What the workers of a queue are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtWork {
    /// How long the oldest key has been handled.
    pub longest: Duration,
    /// How long all of them have, together.
    pub total: Duration,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Since when they wait.
    dirty: HashMap<K, Instant>,
    /// Since when they are handled.
    processing: HashMap<K, Instant>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, K>,
    /// For each key, the delayed entry that counts: the earliest one.
    due: HashMap<K, (Instant, u64)>,
    next_id: u64,
    failures: HashMap<K, u32>,
}

/// A queue of keys. Clones share it.
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    config: WorkQueueConfig,
    observer: Option<Arc<dyn QueueObserver>>,
    clock: SharedClock,
    /// Where the queue's time begins.
    made: Instant,
    state: Mutex<State<K>>,
    changed: Notify,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Clone + Eq + Hash + Display + Send + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new(config: WorkQueueConfig, clock: SharedClock) -> Self {
        Self::make(config, clock, None)
    }

    /// The same, with somebody who is told what it does.
    pub fn observed(
        config: WorkQueueConfig,
        clock: SharedClock,
        observer: Arc<dyn QueueObserver>,
    ) -> Self {
        Self::make(config, clock, Some(observer))
    }

    fn make(
        config: WorkQueueConfig,
        clock: SharedClock,
        observer: Option<Arc<dyn QueueObserver>>,
    ) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            next_id: 0,
            failures: HashMap::new(),
        };
        let (changed, made) = (Notify::new(), clock.monotonic());
        let state = Mutex::new(state);
        Self { inner: Arc::new(Inner { config, observer, clock, made, state, changed }) }
    }

    /// Has the key handled as soon as a worker is free.
    pub fn add(&self, key: K) {
        let now = self.inner.clock.monotonic();
        let is_ready = self.lock().add(key, now, self.observer());
        if is_ready {
            self.inner.changed.notify_one();
        }
    }

    /// Has the key handled after a time, or earlier if it is already due earlier. A minute and more
    /// may become up to a second longer.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut due = self.inner.clock.monotonic() + delay;
        if delay >= LONG {
            let age = due.saturating_duration_since(self.inner.made);
            let past_second = Duration::from_nanos(age.subsec_nanos().into());
            if !past_second.is_zero() {
                due += Duration::from_secs(1) - past_second;
            }
        }
        self.lock().delay(key, due);
        self.inner.changed.notify_one();
    }

    /// Has the key handled after a time that grows with its failures.
    pub fn add_rate_limited(&self, key: K) {
        if let Some(observer) = self.observer() {
            observer.retried();
        }
        let delay = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            let WorkQueueConfig { retry_first, retry_max, .. } = self.inner.config;
            retry_first.saturating_mul(1 << (*failures - 1).min(30)).min(retry_max)
        };
        self.add_after(key, delay);
    }

    /// Forgets the key's failures.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The number of keys that are ready to be handled.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    /// What its workers are doing now.
    pub fn at_work(&self) -> AtWork {
        let now = self.inner.clock.monotonic();
        let state = self.lock();
        let times = state.processing.values().map(|since| now.saturating_duration_since(*since));
        times.fold(AtWork::default(), |work, time| AtWork {
            longest: work.longest.max(time),
            total: work.total + time,
        })
    }

    fn observer(&self) -> Option<&dyn QueueObserver> {
        self.inner.observer.as_deref()
    }

    /// Runs the workers until `shutdown`; the ones at work then finish their key.
    ///
    /// A reconciler that fails is called again with back-off, one that panics as well.
    pub async fn run<F, Fut, E>(&self, shutdown: Shutdown, reconcile: F)
    where
        K: Sync,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
        E: Display + Send + Sync + 'static,
    {
        // Boxed once here, so that the loop below is not compiled for every reconciler.
        let reconcile: Reconcile<K> = Arc::new(move |key| {
            let reconciled = reconcile(key);
            Box::pin(async move { reconciled.await.map_err(|e| Box::new(e) as Failure) })
        });
        self.run_boxed(shutdown, reconcile).await;
    }

    async fn run_boxed(&self, shutdown: Shutdown, reconcile: Reconcile<K>)
    where
        K: Sync,
    {
        let workers = (0..self.inner.config.workers.max(1)).map(|_| {
            let (queue, shutdown, reconcile) = (self.clone(), shutdown.clone(), reconcile.clone());
            stdx::task::spawn(self.inner.config.name, async move {
                queue.work(&shutdown, &*reconcile).await;
            })
        });
        futures::future::join_all(workers.collect::<Vec<_>>()).await;
    }

    async fn work(
        &self,
        shutdown: &Shutdown,
        reconcile: &(dyn Fn(K) -> BoxFuture<'static, Result<Outcome, Failure>> + Send + Sync),
    ) {
        use futures::FutureExt;
        loop {
            let key = tokio::select! {
                biased;
                () = shutdown.begun() => return,
                key = self.next() => key,
            };
            let result = std::panic::AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
            match result {
                Ok(Ok(Outcome::Done)) => self.forget(&key),
                Ok(Ok(Outcome::RequeueAfter(delay))) => {
                    self.forget(&key);
                    self.add_after(key.clone(), delay);
                }
                Ok(Ok(Outcome::Requeue)) => self.add_rate_limited(key.clone()),
                Ok(Err(error)) => {
                    let queue = self.inner.config.name;
                    tracing::warn!(queue, %key, %error, "reconcile failed, trying again");
                    self.add_rate_limited(key.clone());
                }
                Err(_panic) => {
                    let queue = self.inner.config.name;
                    tracing::error!(queue, %key, "reconcile panicked, trying again");
                    self.add_rate_limited(key.clone());
                }
            }
            self.done(&key);
        }
    }

    /// Waits for a key and marks it as being handled.
    async fn next(&self) -> K {
        loop {
            let changed = self.inner.changed.notified();
            let wake = {
                let mut state = self.lock();
                let now = self.inner.clock.monotonic();
                state.move_due(now, self.observer());
                if let Some(key) = state.take(now, self.observer()) {
                    if !state.ready.is_empty() {
                        self.inner.changed.notify_one();
                    }
                    return key;
                }
                state.next_due().map(|due| due.saturating_duration_since(now))
            };
            match wake {
                None => changed.await,
                Some(delay) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.inner.clock.sleep(delay) => {}
                    }
                }
            }
        }
    }

    fn done(&self, key: &K) {
        let now = self.inner.clock.monotonic();
        let is_ready = self.lock().done(key, now, self.observer());
        if is_ready {
            self.inner.changed.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K, now: Instant, observer: Observer<'_>) -> bool {
        if self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), now);
        if let Some(observer) = observer {
            observer.added();
        }
        if self.processing.contains_key(&key) {
            return false;
        }
        self.ready.push_back(key);
        self.tell_depth(observer);
        true
    }

    fn tell_depth(&self, observer: Observer<'_>) {
        if let Some(observer) = observer {
            observer.depth(self.ready.len());
        }
    }

    fn delay(&mut self, key: K, due: Instant) {
        if self.due.get(&key).is_some_and(|(at, _)| *at <= due) {
            return;
        }
        self.next_id += 1;
        let id = self.next_id;
        if let Some((_, superseded)) = self.due.insert(key.clone(), (due, id)) {
            self.delayed_keys.remove(&superseded);
        }
        self.delayed_keys.insert(id, key);
        self.delayed.push(Reverse((due, id)));
    }

    fn move_due(&mut self, now: Instant, observer: Observer<'_>) {
        while self.delayed.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((_, id))) = self.delayed.pop() else { return };
            // An entry that an earlier one superseded has no key any more.
            if let Some(key) = self.delayed_keys.remove(&id) {
                self.due.remove(&key);
                self.add(key, now, observer);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((due, _))| *due)
    }

    fn take(&mut self, now: Instant, observer: Observer<'_>) -> Option<K> {
        let key = self.ready.pop_front()?;
        let since = self.dirty.remove(&key);
        self.processing.insert(key.clone(), now);
        if let (Some(observer), Some(since)) = (observer, since) {
            observer.waited(now.saturating_duration_since(since));
        }
        self.tell_depth(observer);
        Some(key)
    }

    fn done(&mut self, key: &K, now: Instant, observer: Observer<'_>) -> bool {
        let since = self.processing.remove(key);
        if let (Some(observer), Some(since)) = (observer, since) {
            observer.worked(now.saturating_duration_since(since));
        }
        let again = self.dirty.contains_key(key);
        if again {
            self.ready.push_back(key.clone());
            self.tell_depth(observer);
        }
        again
    }
}

type Observer<'a> = Option<&'a dyn QueueObserver>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use clock::{Clock, ManualClock};

    use super::*;

    fn queue(clock: &Arc<ManualClock>) -> WorkQueue<&'static str> {
        let clock: Arc<dyn Clock> = clock.clone();
        WorkQueue::new(WorkQueueConfig::new("test", 1), clock)
    }

    fn manual() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_key_added_while_it_is_handled_is_handled_once_more() {
        let queue = queue(&manual());
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.depth(), 0, "it must not be handled twice at once");
        queue.done(&"a");
        assert_eq!(queue.depth(), 1);
    }

    #[tokio::test]
    async fn delayed_keys_come_when_they_are_due_and_only_once() {
        let clock = manual();
        let queue = queue(&clock);
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        clock.advance(Duration::from_secs(2));
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        clock.advance(Duration::from_secs(10));
        assert!(futures::FutureExt::now_or_never(queue.next()).is_none());
    }

    #[tokio::test]
    async fn keys_that_wait_for_long_share_a_wake_up() {
        let clock = manual();
        let queue = queue(&clock);
        clock.advance(Duration::from_millis(200));
        queue.add_after("a", Duration::from_secs(60));
        clock.advance(Duration::from_millis(500));
        queue.add_after("b", Duration::from_secs(60));
        queue.add_after("short", Duration::from_secs(59));
        clock.advance(Duration::from_secs(59));
        assert_eq!(queue.next().await, "short");
        clock.advance(Duration::from_millis(1299));
        assert!(futures::FutureExt::now_or_never(queue.next()).is_none());
        clock.advance(Duration::from_millis(1));
        assert_eq!((queue.next().await, queue.next().await), ("a", "b"));
    }

    #[tokio::test]
    async fn a_key_that_comes_again_and_again_lets_the_others_have_their_turn() {
        let queue = queue(&manual());
        queue.add("busy");
        let mut turns = Vec::new();
        for waiting in ["a", "b", "c"] {
            let key = queue.next().await;
            turns.push(key);
            // It changes all the time, while it is handled too.
            queue.add("busy");
            queue.add(waiting);
            queue.done(&key);
        }
        while queue.depth() > 1 {
            let key = queue.next().await;
            turns.push(key);
            queue.add("busy");
            queue.done(&key);
        }
        let mut others: Vec<_> = turns.iter().copied().filter(|key| *key != "busy").collect();
        others.dedup();
        assert_eq!(others, ["a", "b", "c"], "{turns:?}");
        let longest = turns.split(|key| *key != "busy").map(<[_]>::len).max();
        assert_eq!(longest, Some(1), "nobody is handled twice before the others: {turns:?}");
    }

    #[tokio::test]
    async fn failures_slow_a_key_down_and_success_makes_it_quick_again() {
        let clock = manual();
        let queue = queue(&clock);
        let mut waits = Vec::new();
        for _ in 0..20 {
            queue.add_rate_limited("a");
            let mut waited = Duration::ZERO;
            while futures::FutureExt::now_or_never(queue.next()).is_none() {
                clock.advance(Duration::from_millis(5).max(waited));
                waited += Duration::from_millis(5).max(waited);
            }
            waits.push(waited);
            queue.done(&"a");
        }
        assert_eq!(waits[..4], [5, 10, 20, 40].map(Duration::from_millis));
        assert!(waits[19] <= Duration::from_secs(2 * 1000), "{waits:?}");
        queue.forget(&"a");
        queue.add_rate_limited("a");
        clock.advance(Duration::from_millis(5));
        assert_eq!(queue.next().await, "a");
    }

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn tell(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }
    }

    impl QueueObserver for Told {
        fn added(&self) {
            self.tell("added".to_owned());
        }
        fn depth(&self, depth: usize) {
            self.tell(format!("depth {depth}"));
        }
        fn waited(&self, wait: Duration) {
            self.tell(format!("waited {}", wait.as_secs()));
        }
        fn worked(&self, work: Duration) {
            self.tell(format!("worked {}", work.as_secs()));
        }
        fn retried(&self) {
            self.tell("retried".to_owned());
        }
    }

    #[tokio::test]
    async fn an_observer_is_told_how_long_keys_wait_and_are_handled() {
        let clock = manual();
        let told = Arc::new(Told::default());
        let shared: Arc<dyn Clock> = clock.clone();
        let config = WorkQueueConfig::new("test", 1);
        let queue = WorkQueue::observed(config, shared, told.clone());
        queue.add("a");
        queue.add("a");
        clock.advance(Duration::from_secs(2));
        assert_eq!(queue.next().await, "a");
        clock.advance(Duration::from_secs(3));
        let three = Duration::from_secs(3);
        assert_eq!(queue.at_work(), AtWork { longest: three, total: three });
        queue.add_rate_limited("a");
        queue.done(&"a");
        assert_eq!(queue.at_work(), AtWork::default());
        let all = told.0.lock().unwrap().clone();
        assert_eq!(all, ["added", "depth 1", "waited 2", "depth 0", "retried", "worked 3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_retried() {
        let queue = WorkQueue::new(WorkQueueConfig::new("test", 2), Arc::new(clock::SystemClock));
        let calls = Arc::new(AtomicUsize::new(0));
        let shutdown = Shutdown::new();
        queue.add("a");
        let (count, stop) = (Arc::clone(&calls), shutdown.clone());
        queue
            .run(shutdown, move |_key| {
                let call = count.fetch_add(1, Ordering::SeqCst);
                let stop = stop.clone();
                async move {
                    match call {
                        0 => Err("failure"),
                        1 => panic!("as expected"),
                        _ => {
                            stop.begin();
                            Ok(Outcome::Done)
                        }
                    }
                }
            })
            .await;
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }
}
