//! The time of day as tokio counts it: it passes at once where a test pauses it. No two moments are
//! the same, as events are named by theirs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clock::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

pub(crate) struct TokioClock {
    begun: tokio::time::Instant,
    at: Timestamp,
    moments: AtomicU64,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self {
            begun: tokio::time::Instant::now(),
            at: clock::SystemClock.now(),
            moments: AtomicU64::new(0),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let moments = Duration::from_nanos(self.moments.fetch_add(1, Ordering::Relaxed));
        self.at + self.begun.elapsed() + moments
    }

    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}
