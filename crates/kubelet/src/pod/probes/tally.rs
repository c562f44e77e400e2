//! How many probes in a row make a verdict.

use k8s_openapi::api::core::v1::Probe;

/// Counts outcomes.
#[derive(Debug)]
pub(crate) struct Tally {
    successes_wanted: i32,
    failures_wanted: i32,
    last: Option<bool>,
    in_a_row: i32,
}

impl Tally {
    /// With the probe's thresholds.
    pub(crate) fn new(probe: &Probe) -> Self {
        Self {
            successes_wanted: probe.success_threshold.unwrap_or(1).max(1),
            failures_wanted: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            in_a_row: 0,
        }
    }

    /// Adds an outcome; answers the verdict once enough in a row agree.
    pub(crate) fn add(&mut self, passed: bool) -> Option<bool> {
        if self.last == Some(passed) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last = Some(passed);
            self.in_a_row = 1;
        }
        let wanted = if passed { self.successes_wanted } else { self.failures_wanted };
        (self.in_a_row >= wanted).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_enough_outcomes_in_a_row() {
        let probe =
            Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut tally = Tally::new(&probe);
        let outcomes = [true, true, false, false, true, false, false, false];
        let verdicts: Vec<_> = outcomes.into_iter().map(|passed| tally.add(passed)).collect();
        let none = None;
        assert_eq!(verdicts, [none, Some(true), none, none, none, none, none, Some(false)]);
    }
}
