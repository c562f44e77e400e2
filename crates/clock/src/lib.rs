//! Time as a dependency, so that tests and the simulator decide what time it is.
//!
//! Start reading at [`Clock`]. Production uses [`SystemClock`], tests [`ManualClock`].
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// A source of time. `now` may jump; `monotonic` may not.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Time that only grows; compare two of them, nothing else.
    fn monotonic(&self) -> Instant;

    /// Resolves after `duration`. Safe to drop.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A shared clock, as components take it.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock. Timers are tokio's, so `tokio::time::pause` works.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    state: Mutex<(Timestamp, Duration)>,
    moved: tokio::sync::watch::Sender<Duration>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
    pub fn new(now: Timestamp) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new((now, Duration::ZERO)),
            moved: tokio::sync::watch::Sender::new(Duration::ZERO),
        }
    }

    /// Moves both times forward and wakes the sleepers that are due.
    pub fn advance(&self, by: Duration) {
        let elapsed = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = state.0.saturating_add(by).unwrap_or(Timestamp::MAX);
            state.1 += by;
            state.1
        };
        self.moved.send_replace(elapsed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Instant {
        self.start + self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut moved = self.moved.subscribe();
        let due = *moved.borrow_and_update() + duration;
        async move {
            // The sender lives as long as the clock; when it is gone nobody can wake us.
            if moved.wait_for(|elapsed| *elapsed >= due).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_when_the_clock_is_moved_past_them() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let mut sleep = clock.sleep(Duration::from_secs(10));
        clock.advance(Duration::from_secs(9));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        sleep.await;
        assert_eq!(clock.now().as_second(), 10);
    }
}
