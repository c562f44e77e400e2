//! Two lanes: connections whose requests use more than their part of the processors are served
//! aside, by threads of lower priority.
//!
//! A crowd's bytes always come first, and what is ready is worked on in the order in which it came.
//! So whoever asks now and then would wait behind all of the crowd, if the kernel did not prefer the
//! threads that serve him. Aside there is as much room as nobody else wants, and never none.
//!
//! ```text
//!   connection ──▶ usual lane ◀──── within its part ──── aside
//!                       └────── beyond its part ──────────▲
//! ```
//!
//! Invariant: a connection changes lanes only between two of its turns, and is driven by one task at
//! any time.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use clock::SharedClock;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};

/// How much lower the priority of the threads aside is: they get a tenth of what others get who
/// want the processor as well, so that whatever they hold is let go before long.
const NICE: i32 = 10;
const TASK: &str = "apiserver connection";

thread_local! {
    /// Whether this thread is one of those aside.
    static IS_ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Lets other threads run that want this processor, if this one is aside. A priority alone does not
/// do: the kernel lets who runs go on for a slice, often until the next tick.
fn give_way() {
    if IS_ASIDE.get() {
        std::thread::yield_now();
    }
}

/// Spawns what the connections served here do beside each other.
#[derive(Clone)]
pub(super) struct Considerate;

impl<F> hyper::rt::Executor<F> for Considerate
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        let mut work = Box::pin(work);
        let polled = std::future::poll_fn(move |ctx| {
            let polled = work.as_mut().poll(ctx);
            give_way();
            polled
        });
        drop(stdx::task::spawn(TASK, polled));
    }
}

/// Which lane a connection is in; clones are the same one's.
#[derive(Clone, Debug, Default)]
pub struct Lane(Arc<Traits>);

#[derive(Debug, Default)]
struct Traits {
    /// Where it is to be served, and where it is.
    wants_aside: AtomicBool,
    is_aside: AtomicBool,
    /// Nanoseconds.
    used: AtomicU64,
}

impl Lane {
    /// Has the connection served aside, or as usual, from its next turn on.
    pub fn serve_aside(&self, aside: bool) {
        self.0.wants_aside.store(aside, Ordering::Relaxed);
    }

    /// Time that reading and writing the connection has taken since this was asked before.
    pub fn take_used(&self) -> Duration {
        Duration::from_nanos(self.0.used.swap(0, Ordering::Relaxed))
    }

    /// Whether the connection is served aside, as of the last time that it changed.
    pub fn is_aside(&self) -> bool {
        self.0.is_aside.load(Ordering::Relaxed)
    }

    fn is_wanted_aside(&self) -> bool {
        self.0.wants_aside.load(Ordering::Relaxed)
    }

    fn add_used(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.used.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The lanes of a server. Threads for the second are started when they are first needed.
#[derive(Default)]
pub struct Lanes(OnceLock<Option<Runtime>>);

impl Lanes {
    fn aside(&self) -> Option<&Handle> {
        self.0.get_or_init(start).as_ref().map(Runtime::handle)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // The last connection may end within a runtime, where nothing may block.
        if let Some(runtime) = self.0.take().flatten() {
            runtime.shutdown_background();
        }
    }
}

fn start() -> Option<Runtime> {
    let lower = || {
        IS_ASIDE.set(true);
        let here = None;
        if let Err(error) = rustix::process::setpriority_process(here, NICE) {
            tracing::warn!(%error, "threads for connections aside keep their priority");
        }
    };
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("aside")
        .on_thread_start(lower)
        .build();
    if let Err(error) = &runtime {
        tracing::warn!(%error, "no threads for connections aside; all are served as usual");
    }
    runtime.ok()
}

/// Where one connection is served; clones are the same one's.
#[derive(Clone)]
pub(super) struct Place {
    lane: Lane,
    lanes: Arc<Lanes>,
    usual: Handle,
}

impl Place {
    /// The usual lane is the runtime of who calls this.
    pub(super) fn new(lane: Lane, lanes: Arc<Lanes>) -> Self {
        Self { lane, lanes, usual: Handle::current() }
    }

    pub(super) fn is_aside(&self) -> bool {
        self.lane.is_aside()
    }

    /// The runtime of a lane; none when there are no threads for it.
    pub(super) fn runtime(&self, aside: bool) -> Option<&Handle> {
        if aside { self.lanes.aside() } else { Some(&self.usual) }
    }
}

/// Serves a connection in the lane it is to be in.
pub(super) fn serve(
    connection: BoxFuture<'static, ()>,
    place: Place,
    clock: SharedClock,
) -> impl Future<Output = ()> {
    Served { connection: Some(connection), place, clock }
}

struct Served {
    /// `None` when it has gone to the other lane.
    connection: Option<BoxFuture<'static, ()>>,
    place: Place,
    clock: SharedClock,
}

impl Served {
    /// Goes to the other lane, where its first turn looks at all that happened meanwhile.
    fn change(&mut self, aside: bool) -> Poll<()> {
        let Some(target) = self.place.runtime(aside) else { return Poll::Pending };
        self.place.lane.0.is_aside.store(aside, Ordering::Relaxed);
        let there = Self {
            connection: self.connection.take(),
            place: self.place.clone(),
            clock: self.clock.clone(),
        };
        drop(stdx::task::spawn_on(target, TASK, there));
        Poll::Ready(())
    }
}

impl Future for Served {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<()> {
        let begun = self.clock.monotonic();
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        if connection.as_mut().poll(ctx).is_ready() {
            return Poll::Ready(());
        }
        give_way();
        let lane = &self.place.lane;
        lane.add_used(self.clock.monotonic().saturating_duration_since(begun));
        let aside = lane.is_wanted_aside();
        if aside == self.place.is_aside() { Poll::Pending } else { self.change(aside) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clock::SystemClock;

    use super::*;

    /// Tells on which threads it runs, each time it is asked.
    async fn threads(asked: Arc<tokio::sync::Notify>, seen: Arc<Mutex<Vec<(bool, i32)>>>) {
        loop {
            asked.notified().await;
            let is_aside = std::thread::current().name() == Some("aside");
            let nice = rustix::process::getpriority_process(None).unwrap();
            seen.lock().unwrap().push((is_aside, nice));
            if seen.lock().unwrap().len() == 4 {
                return;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_connection_changes_lanes_and_returns() {
        let (asked, seen) = (Arc::new(tokio::sync::Notify::new()), Arc::default());
        let (lane, lanes) = (Lane::default(), Arc::new(Lanes::default()));
        let work = Box::pin(threads(asked.clone(), Arc::clone(&seen)));
        drop(stdx::task::spawn(
            "test",
            serve(work, Place::new(lane.clone(), lanes.clone()), Arc::new(SystemClock)),
        ));
        // It changes after the turn in which it hears of it.
        for (turn, aside) in [true, false, false, false].into_iter().enumerate() {
            lane.serve_aside(aside);
            asked.notify_one();
            let mut patience = 500;
            while seen.lock().unwrap().len() <= turn && patience > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                patience -= 1;
            }
        }
        let seen = seen.lock().unwrap().clone();
        let lanes_of: Vec<bool> = seen.iter().map(|(aside, _)| *aside).collect();
        assert_eq!(lanes_of, [false, true, false, false]);
        assert!(seen[1].1 > seen[0].1, "of lower priority: {seen:?}");
        assert!(!lane.take_used().is_zero());
    }
}
