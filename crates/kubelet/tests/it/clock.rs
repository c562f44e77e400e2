//! The time of day as tokio counts it: it passes at once where a test pauses it.

use std::time::{Duration, Instant};

use clock::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

pub(crate) struct TokioClock {
    begun: tokio::time::Instant,
    at: Timestamp,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self { begun: tokio::time::Instant::now(), at: clock::SystemClock.now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.at + self.begun.elapsed()
    }

    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}
