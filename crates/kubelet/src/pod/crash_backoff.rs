//! How long a container that keeps ending waits before it is run again.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

/// Upstream `backOffPeriod` and `MaxCrashLoopBackOff`.
const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// A container that ran this long begins anew.
const RESET_AFTER: Duration = Duration::from_secs(600);

/// Back-offs by what waits. One pod's, so its containers bound it.
#[derive(Debug, Default)]
pub(crate) struct CrashBackoff(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl CrashBackoff {
    /// The back-off in force for what ended at `since`, and how much of it is left; `None` when
    /// it may go on.
    pub(crate) fn waiting(
        &self,
        key: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<(Duration, Duration)> {
        let entry = self.0.get(key)?;
        if elapsed(entry.updated, since) > RESET_AFTER {
            return None;
        }
        let left = entry.delay.checked_sub(elapsed(since, now))?;
        (!left.is_zero()).then_some((entry.delay, left))
    }

    /// Notes one more attempt after what ended at `since`.
    pub(crate) fn next(&mut self, key: &str, since: Timestamp, now: Timestamp) {
        let delay = match self.0.get(key) {
            Some(entry) if elapsed(entry.updated, since) <= RESET_AFTER => {
                (entry.delay * 2).min(MAX)
            }
            _ => FIRST,
        };
        self.0.insert(key.to_owned(), Entry { delay, updated: now });
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// A duration in a message, as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    meta::time::print_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_twice_as_long() {
        let mut backoff = CrashBackoff::default();
        assert_eq!(backoff.waiting("c", at(1), at(1)), None);
        backoff.next("c", at(1), at(1));
        let waiting = backoff.waiting("c", at(2), at(3)).unwrap();
        assert_eq!(waiting, (Duration::from_secs(10), Duration::from_secs(9)));
        assert_eq!(backoff.waiting("c", at(2), at(12)), None);
        backoff.next("c", at(2), at(12));
        assert_eq!(backoff.waiting("c", at(13), at(13)).unwrap().0, Duration::from_secs(20));
        for _ in 0..9 {
            backoff.next("c", at(14), at(14));
        }
        assert_eq!(backoff.waiting("c", at(14), at(14)).unwrap().0, Duration::from_secs(300));
        assert_eq!(backoff.waiting("c", at(700), at(700)), None, "it ran for eleven minutes");
    }

    #[test]
    fn durations_print_as_in_go() {
        let cases = [(10, "10s"), (80, "1m20s"), (300, "5m0s")];
        for (seconds, text) in cases {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
