//! What evaluations may cost.

use crate::error::{EvaluationError, Outcome};

/// Most that one evaluation may cost. Upstream: `apiserver/pkg/apis/cel/config.go`, as the others.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Most that all expressions of a policy, or all rules about an object, may cost together.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// Most that all match conditions of a webhook or policy may cost together.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// Most that one rule of a custom resource may be estimated at.
pub const STATIC_LIMIT: u64 = 10_000_000;
/// Most that all rules of a custom resource may be estimated at.
pub const STATIC_CRD_LIMIT: u64 = 100_000_000;

/// Steps between two questions whether to go on. Upstream: `CheckFrequency`.
const STEPS_PER_CHECK: u32 = 100;

/// What is left for a number of evaluations.
pub struct Budget<'i> {
    remaining: u64,
    /// What the evaluation that runs has cost.
    spent: u64,
    limit: u64,
    steps: u32,
    interrupted: Option<&'i (dyn Fn() -> bool + Sync)>,
}

impl Budget<'_> {
    /// A budget for evaluations of [`PER_CALL_LIMIT`] each.
    pub fn new(total: u64) -> Self {
        Self { remaining: total, spent: 0, limit: PER_CALL_LIMIT, steps: 0, interrupted: None }
    }
}

impl<'i> Budget<'i> {
    /// Asks this now and then whether the caller has gone; it then ends with
    /// [`EvaluationError::Interrupted`].
    #[must_use]
    pub fn interrupted_by<'j>(self, interrupted: &'j (dyn Fn() -> bool + Sync)) -> Budget<'j> {
        Budget {
            remaining: self.remaining,
            spent: self.spent,
            limit: self.limit,
            steps: self.steps,
            interrupted: Some(interrupted),
        }
    }

    /// What is left; `None` once more was spent than there was.
    pub fn remaining(&self) -> Option<u64> {
        (self.remaining != u64::MAX).then_some(self.remaining)
    }

    /// Whether more was spent than there was.
    pub fn is_exhausted(&self) -> bool {
        self.remaining == u64::MAX
    }

    /// What the last evaluation cost.
    pub fn last_cost(&self) -> u64 {
        self.spent
    }

    /// Begins an evaluation; what the one around it has cost is to be given back to
    /// [`Budget::leave`].
    pub(crate) fn enter(&mut self) -> u64 {
        std::mem::take(&mut self.spent)
    }

    pub(crate) fn leave(&mut self) {
        // The maximum marks a budget that did not suffice.
        self.remaining = match self.remaining.checked_sub(self.spent) {
            Some(left) if self.remaining != u64::MAX => left,
            _ => u64::MAX,
        };
    }

    /// Goes on with the evaluation around the one that was left.
    pub(crate) fn resume(&mut self, outer: u64) {
        self.spent = outer;
    }

    /// Charges one step.
    pub(crate) fn charge(&mut self, cost: u64) -> Outcome<()> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit {
            return Err(EvaluationError::CostLimitExceeded);
        }
        self.steps += 1;
        if self.steps >= STEPS_PER_CHECK {
            self.steps = 0;
            if self.interrupted.is_some_and(|interrupted| interrupted()) {
                return Err(EvaluationError::Interrupted);
            }
        }
        Ok(())
    }
}
