//! Time: tokio's, which stands still while anybody works, and a time of day that jumps.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use clock::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

/// What time of day it is when a run begins.
const BEGIN: i64 = 1_767_225_600;

/// The clock of one program. Those of others may say something else.
#[derive(Debug)]
pub(crate) struct SimClock {
    begun: tokio::time::Instant,
    skew_ms: AtomicI64,
}

impl SimClock {
    /// A clock that is right.
    pub(crate) fn new() -> Self {
        Self { begun: tokio::time::Instant::now(), skew_ms: AtomicI64::new(0) }
    }

    /// A clock that began with this one and is right.
    pub(crate) fn another(&self) -> Self {
        Self { begun: self.begun, skew_ms: AtomicI64::new(0) }
    }

    /// Sets the time of day wrong by this much.
    pub(crate) fn skew(&self, by: SignedDuration) {
        self.skew_ms.store(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether it is wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        self.skew_ms.load(Ordering::Relaxed) != 0
    }

    /// Since the run began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let skew = SignedDuration::from_millis(self.skew_ms.load(Ordering::Relaxed));
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        let begin = Timestamp::from_second(BEGIN).unwrap_or(Timestamp::UNIX_EPOCH);
        begin.checked_add(elapsed + skew).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}
