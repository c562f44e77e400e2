//! How many requests a second are sent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clock::SharedClock;

/// Lets requests through one after the other, at a rate. Clones are not made: it is shared.
pub(super) struct Pace {
    clock: SharedClock,
    /// Between two requests; zero when there is no limit.
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// So many requests per second; 0 for any number.
    pub(super) fn new(per_second: f64, clock: SharedClock) -> Self {
        let gap = if per_second > 0.0 {
            Duration::from_secs_f64(1.0 / per_second)
        } else {
            Duration::ZERO
        };
        let next = Mutex::new(clock.monotonic());
        Self { clock, gap, next }
    }

    /// Waits for the turn of one request. Dropped while it waits, it gives its turn away.
    pub(super) async fn turn(&self) {
        if self.gap.is_zero() {
            return;
        }
        let wait = {
            let now = self.clock.monotonic();
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(now);
            *next = at + self.gap;
            at.saturating_duration_since(now)
        };
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clock::{Clock, ManualClock};
    use futures::FutureExt;

    use super::*;

    #[test]
    fn requests_are_as_far_apart_as_the_rate_says() {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let pace = Pace::new(4.0, Arc::clone(&clock) as Arc<dyn Clock>);
        assert!(pace.turn().now_or_never().is_some());
        let mut second = Box::pin(pace.turn());
        let mut third = Box::pin(pace.turn());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_millis(250));
        assert!(second.now_or_never().is_some());
        assert!(third.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_millis(250));
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let pace = Pace::new(0.0, clock);
        assert!((0..100).all(|_| pace.turn().now_or_never().is_some()));
    }
}
