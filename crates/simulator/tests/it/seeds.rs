//! A process for each seed, as `cargo xtask simulate` does it.

use std::process::{Command, Stdio};

/// Runs seeds, two at once; what the failing ones said.
fn failures(seeds: &[u64]) -> Vec<String> {
    let run = |seed: &u64| -> Option<String> {
        let (succeeded, said) = said(*seed, &[]);
        (!succeeded).then_some(said)
    };
    std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2).max(1));
        let threads: Vec<_> = halves
            .map(|half| scope.spawn(move || half.iter().filter_map(run).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[expect(clippy::disallowed_methods, reason = "the simulator is what is tested here")]
fn said(seed: u64, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
    command.args(["--seed", &seed.to_string()]).args(more).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_few_seeds_are_well() {
    let seeds: Vec<u64> = (1..=8).collect();
    let failures = failures(&seeds);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each of these found a fault once; what, stands beside it.
#[test]
fn seeds_that_once_failed_are_well() {
    let seeds = [
        // A Job that ended while it was suspended, or by a clock that was set back.
        15,
        // A pod without its Job kept the finalizer of Jobs.
        2,
        // A pod came and went unseen, and its owner waited for it for ever.
        17,
        // A status from a late cache took a collision count back.
        222,
        // A set made pods twice: those of another one of its name counted as its own.
        246,
        // A leader that was told to end stopped renewing while it still worked.
        10918,
        // A renewal that was answered late let a leader work after its lease.
        315,
        // Pods that were going already counted as available, and too many others went.
        98,
        // No faults, but what a user has to see to: a claim of a pod whose set is gone, a pod that
        // was placed for a claim that is gone, claims that pods of Jobs hold that have ended, a
        // node with a taint that pods wait for.
        20590, 11060, 20991, 576, 428, 764, 729, 798,
    ];
    let failures = failures(&seeds);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_seed_is_always_the_same_run() {
    let runs = [3, 4].map(|seed| {
        let run = said(seed, &[]);
        assert_eq!(run, said(seed, &[]));
        run.1
    });
    let trace = |run: &str| run.split("trace").nth(1).map(str::to_owned);
    assert_ne!(trace(&runs[0]), trace(&runs[1]));
}

#[test]
fn a_seed_that_takes_too_many_steps_says_so() {
    let (succeeded, said) = said(3, &["--budget", "700"]);
    let verdict = said.lines().last().unwrap();
    assert!(!succeeded);
    assert!(verdict.starts_with("seed 3: ran out of its budget of 70"), "{said}");
}
