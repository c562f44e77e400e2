//! What flows have of the processors.
//!
//! Seats bound how many requests are under way, not who of them is worked on next: that would be
//! whoever's bytes came first, and a crowd's always do. So it is kept who has lately had more than
//! his share, and the server serves his connections behind those of others.
//!
//! Invariant: a flow that asks for nothing is within its share again before long, whatever it had.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clock::SharedClock;

/// What a flow may have of one processor in any case. Beyond that it may have as much as there would
/// be for each, if one more came.
const LEAST_SHARE: f64 = 0.2;
/// Who has used nothing for so long does not count, and how often it is counted.
const IDLE: Duration = Duration::from_millis(100);
const COUNT_EVERY: Duration = Duration::from_millis(10);
/// What it may have at once: some tens of requests.
const BURST: Duration = Duration::from_millis(2);
/// What time has to make up for at most. A crowd that waits a moment, for the disk, is one still.
const DEBT: Duration = Duration::from_millis(40);
/// Flows that are remembered before those that have not used anything lately are forgotten.
const FLOWS: usize = 1024;

/// What each flow has had, as far as time has not made up for it.
pub struct Shares {
    clock: SharedClock,
    processors: f64,
    state: Mutex<State>,
}

struct State {
    flows: HashMap<u64, Use>,
    /// What each may have of one processor, as of then.
    share: f64,
    counted: Instant,
}

struct Use {
    debt: Duration,
    /// When time had last made up for some of it.
    at: Instant,
    used: Instant,
}

impl Use {
    fn new(now: Instant) -> Self {
        Self { debt: Duration::ZERO, at: now, used: now }
    }

    /// Lets time make up for what was used.
    fn settle(&mut self, now: Instant, share: f64) {
        let passed = now.saturating_duration_since(self.at);
        self.debt = self.debt.saturating_sub(passed.mul_f64(share));
        self.at = now;
    }
}

impl State {
    /// Looks again how many there are to share with.
    fn count(&mut self, now: Instant, processors: f64) {
        if now.saturating_duration_since(self.counted) < COUNT_EVERY {
            return;
        }
        self.counted = now;
        let is_active = |used: &&Use| now.saturating_duration_since(used.used) < IDLE;
        let active = self.flows.values().filter(is_active).count();
        let others = u32::try_from(active).unwrap_or(u32::MAX).saturating_add(1);
        self.share = (processors / f64::from(others)).max(LEAST_SHARE);
    }
}

impl Shares {
    /// Shares of so many processors.
    pub(crate) fn new(clock: SharedClock, processors: usize) -> Self {
        let processors = f64::from(u32::try_from(processors).unwrap_or(u32::MAX));
        let counted = clock.monotonic();
        let state = State { flows: HashMap::new(), share: LEAST_SHARE, counted };
        Self { clock, processors, state: Mutex::new(state) }
    }

    /// Whether a flow has had more than its share.
    pub fn is_exceeded(&self, flow: u64) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        state.count(now, self.processors);
        let share = state.share;
        state.flows.get_mut(&flow).is_some_and(|used| {
            used.settle(now, share);
            used.debt >= BURST
        })
    }

    /// Does something for a flow and charges what it takes, but not what it waits.
    pub async fn charge<T>(&self, flow: u64, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let begun = self.clock.monotonic();
            let polled = work.as_mut().poll(cx);
            self.add(flow, self.clock.monotonic().saturating_duration_since(begun));
            polled
        })
        .await
    }

    /// Charges time that was used for a flow.
    pub fn add(&self, flow: u64, time: Duration) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        state.count(now, self.processors);
        let share = state.share;
        let flows = &mut state.flows;
        if flows.len() >= FLOWS && !flows.contains_key(&flow) {
            flows.retain(|_, used| {
                used.settle(now, share);
                !used.debt.is_zero()
            });
        }
        let used = flows.entry(flow).or_insert_with(|| Use::new(now));
        used.settle(now, share);
        used.used = now;
        used.debt = (used.debt + time).min(DEBT);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clock::ManualClock;
    use futures::FutureExt;
    use jiff::Timestamp;

    use super::*;

    const CROWD: u64 = 1;
    const CLIENT: u64 = 2;

    fn manual() -> (Arc<ManualClock>, Shares) {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let shares = Shares::new(clock.clone(), 2);
        (clock, shares)
    }

    /// Uses so much time at once.
    fn spend(clock: &ManualClock, shares: &Shares, flow: u64, time: Duration) {
        shares.charge(flow, async { clock.advance(time) }).now_or_never().unwrap();
    }

    #[test]
    fn who_uses_little_never_exceeds_his_share() {
        let (clock, shares) = manual();
        for _ in 0..1000 {
            spend(&clock, &shares, CLIENT, Duration::from_micros(50));
            assert!(!shares.is_exceeded(CLIENT));
            clock.advance(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_uses_much_exceeds_it_until_time_has_made_up_for_it() {
        let (clock, shares) = manual();
        for _ in 0..1000 {
            spend(&clock, &shares, CROWD, Duration::from_millis(1));
        }
        assert!(shares.is_exceeded(CROWD) && !shares.is_exceeded(CLIENT));
        clock.advance(DEBT.mul_f64(1.0 / LEAST_SHARE));
        assert!(!shares.is_exceeded(CROWD));
    }

    #[test]
    fn a_share_is_what_there_would_be_for_each_if_one_more_came() {
        let (clock, shares) = manual();
        // Two thirds of a processor for each of two, of which one uses half of one.
        for turn in 0..1000 {
            spend(&clock, &shares, CROWD, Duration::from_millis(1));
            spend(&clock, &shares, CLIENT, Duration::from_millis(1));
            assert!(turn < 100 || !shares.is_exceeded(CLIENT), "in turn {turn}");
        }
        // Ten times as many, and half of one is too much.
        for turn in 0..1000 {
            for other in 3..21 {
                shares.add(other, Duration::from_micros(10));
            }
            spend(&clock, &shares, CROWD, Duration::from_millis(1));
            spend(&clock, &shares, CLIENT, Duration::from_millis(1));
            assert!(turn < 100 || shares.is_exceeded(CLIENT), "in turn {turn}");
        }
    }

    #[test]
    fn waiting_costs_nothing() {
        let (clock, shares) = manual();
        let mut waiting = Box::pin(shares.charge(CROWD, std::future::pending::<()>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!shares.is_exceeded(CROWD));
    }

    #[test]
    fn flows_that_ask_for_nothing_are_forgotten() {
        let (clock, shares) = manual();
        for flow in 0..10 * FLOWS as u64 {
            spend(&clock, &shares, flow, Duration::from_micros(50));
            clock.advance(Duration::from_millis(1));
        }
        assert!(shares.lock().flows.len() <= FLOWS);
    }
}
