//! What a simulated node does about a pod, as a function of the pod and the time.

use std::time::Duration;

use super::pod_facts::{PodFacts, Restart, Stage};

/// A kubelet's back-off between restarts: the first, and the longest.
const RESTART_FIRST: Duration = Duration::from_secs(10);
const RESTART_MAX: Duration = Duration::from_secs(300);

/// How simulated pods behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour {
    /// From being bound to running.
    pub(super) start_delay: Duration,
    /// How long what runs to an end takes.
    pub(super) run_for: Duration,
    /// How long containers take to end once they are told to.
    pub(super) stop_delay: Duration,
    /// How many of the runs fail, between 0 and 1.
    pub(super) failure_rate: f64,
}

/// What is to be written about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Its containers run, after so many restarts.
    Running { restarts: i32 },
    /// Its containers failed and will be started again.
    Crashed,
    /// All containers ended well.
    Succeeded,
    /// The containers ended with this exit code.
    Failed { code: i32 },
}

/// What to do about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until it changes.
    Nothing,
    /// Nothing yet; ask again after this time.
    Wait(Duration),
    /// Write its status.
    Write(Report),
    /// Delete the object: nothing of the pod is left on the node.
    Remove,
}

impl Behaviour {
    /// What to do about a pod that has been as it is for a time.
    pub(super) fn step(&self, pod: &PodFacts, since: Duration) -> Step {
        if let Some(grace) = pod.grace {
            return self.stop(pod, grace, since);
        }
        match pod.stage {
            Stage::Ended => Step::Nothing,
            Stage::Bound => after(self.start_delay, since, Report::Running { restarts: 0 }),
            Stage::Crashed => {
                let next = Report::Running { restarts: pod.restarts.saturating_add(1) };
                after(restart_delay(pod.restarts), since, next)
            }
            Stage::Running => self.run(pod, since),
        }
    }

    fn run(&self, pod: &PodFacts, since: Duration) -> Step {
        let fails = roll(&pod.uid, pod.restarts) < self.failure_rate;
        let end = match (pod.restart, fails) {
            // It serves until somebody deletes it.
            (Restart::Always, false) => return Step::Nothing,
            (Restart::Always | Restart::OnFailure, true) => Report::Crashed,
            (Restart::Never, true) => Report::Failed { code: 1 },
            (Restart::OnFailure | Restart::Never, false) => Report::Succeeded,
        };
        after(self.run_for, since, end)
    }

    /// As a kubelet: the containers are told to end, killed when the grace is over, and the object
    /// goes when its status says that they have ended.
    fn stop(&self, pod: &PodFacts, grace: Duration, since: Duration) -> Step {
        match pod.stage {
            // Somebody else's finalizers hold it now.
            Stage::Ended if grace.is_zero() => Step::Nothing,
            Stage::Ended => Step::Remove,
            // Nothing runs yet.
            Stage::Bound => Step::Write(Report::Failed { code: 137 }),
            Stage::Running | Stage::Crashed => {
                let (delay, code) =
                    if self.stop_delay > grace { (grace, 137) } else { (self.stop_delay, 143) };
                after(delay, since, Report::Failed { code })
            }
        }
    }
}

fn after(delay: Duration, since: Duration, report: Report) -> Step {
    match delay.checked_sub(since) {
        Some(rest) if !rest.is_zero() => Step::Wait(rest),
        _ => Step::Write(report),
    }
}

fn restart_delay(restarts: i32) -> Duration {
    let doublings = u32::try_from(restarts).unwrap_or(0).min(5);
    (RESTART_FIRST * 2_u32.pow(doublings)).min(RESTART_MAX)
}

/// A number between 0 and 1 that belongs to one run of a pod: asking again changes nothing.
fn roll(uid: &str, restarts: i32) -> f64 {
    // FNV-1a, and a finalizer that spreads the last bytes over all bits.
    let bytes = uid.bytes().chain(restarts.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let top = u32::try_from((mixed ^ (mixed >> 33)) >> 32).unwrap_or(0);
    f64::from(top) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn behaviour(failure_rate: f64) -> Behaviour {
        Behaviour {
            start_delay: SECOND,
            run_for: 10 * SECOND,
            stop_delay: 2 * SECOND,
            failure_rate,
        }
    }

    fn pod(stage: Stage, restart: Restart) -> PodFacts {
        PodFacts { stage, restart, ..PodFacts::sample() }
    }

    #[test]
    fn a_bound_pod_starts_after_the_delay() {
        let pod = pod(Stage::Bound, Restart::Always);
        assert_eq!(behaviour(0.0).step(&pod, SECOND / 4), Step::Wait(SECOND * 3 / 4));
        let running = Step::Write(Report::Running { restarts: 0 });
        assert_eq!(behaviour(0.0).step(&pod, SECOND), running);
    }

    #[test]
    fn what_ends_depends_on_the_restart_policy_and_on_luck() {
        let end = |restart, rate| behaviour(rate).step(&pod(Stage::Running, restart), 10 * SECOND);
        assert_eq!(end(Restart::Always, 0.0), Step::Nothing);
        assert_eq!(end(Restart::Always, 1.0), Step::Write(Report::Crashed));
        assert_eq!(end(Restart::OnFailure, 0.0), Step::Write(Report::Succeeded));
        assert_eq!(end(Restart::OnFailure, 1.0), Step::Write(Report::Crashed));
        assert_eq!(end(Restart::Never, 0.0), Step::Write(Report::Succeeded));
        assert_eq!(end(Restart::Never, 1.0), Step::Write(Report::Failed { code: 1 }));
        let early = behaviour(0.0).step(&pod(Stage::Running, Restart::Never), SECOND);
        assert_eq!(early, Step::Wait(9 * SECOND));
        assert_eq!(behaviour(1.0).step(&pod(Stage::Ended, Restart::Never), SECOND), Step::Nothing);
    }

    #[test]
    fn a_crashed_pod_starts_again_with_a_growing_delay() {
        let crashed = |restarts| PodFacts { restarts, ..pod(Stage::Crashed, Restart::Always) };
        let step = |restarts, since| behaviour(0.0).step(&crashed(restarts), since);
        assert_eq!(step(0, 10 * SECOND), Step::Write(Report::Running { restarts: 1 }));
        assert_eq!(step(2, 10 * SECOND), Step::Wait(30 * SECOND));
        assert_eq!(step(99, Duration::ZERO), Step::Wait(300 * SECOND));
    }

    #[test]
    fn a_deleted_pod_ends_within_its_grace_and_then_goes() {
        let deleted = |stage, grace| {
            let pod = pod(stage, Restart::Always);
            PodFacts { grace: Some(grace), ..pod }
        };
        let step = |stage, grace, since| behaviour(0.0).step(&deleted(stage, grace), since);
        assert_eq!(step(Stage::Running, 30 * SECOND, SECOND), Step::Wait(SECOND));
        let ended = Step::Write(Report::Failed { code: 143 });
        assert_eq!(step(Stage::Running, 30 * SECOND, 2 * SECOND), ended);
        let killed = Step::Write(Report::Failed { code: 137 });
        assert_eq!(step(Stage::Running, SECOND, SECOND), killed, "it takes longer than its grace");
        assert_eq!(step(Stage::Bound, 30 * SECOND, Duration::ZERO), killed);
        assert_eq!(step(Stage::Ended, 30 * SECOND, Duration::ZERO), Step::Remove);
        assert_eq!(step(Stage::Ended, Duration::ZERO, SECOND), Step::Nothing);
    }

    #[test]
    fn about_as_many_runs_fail_as_the_rate_says() {
        let failed = (0..10_000).filter(|n| roll(&format!("uid-{n}"), 0) < 0.2).count();
        assert!((1_800..2_200).contains(&failed), "{failed}");
        assert!(roll("a", 0).to_bits() == roll("a", 0).to_bits());
        assert!(roll("a", 0).to_bits() != roll("a", 1).to_bits());
    }
}
