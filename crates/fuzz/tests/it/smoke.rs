//! Every target survives its seeds and some changes of them; the engine finds what is wrong.

use std::sync::Mutex;

use fuzz::targets::ALL;
use fuzz::{Limit, Target};

/// Memory is counted for the process as a whole, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());
/// Enough to go through all seeds, and not noticed among the other tests.
const EXECUTIONS: u64 = 1_500;

#[test]
fn every_target_survives_a_short_run() {
    let _alone = ALONE.lock();
    fuzz::prepare();
    let mut problems = Vec::new();
    for target in &ALL {
        let outcome = fuzz::fuzz(target, Limit::Executions(EXECUTIONS), 7, None).unwrap();
        assert!(outcome.executions >= EXECUTIONS, "{}", target.name);
        for finding in outcome.findings {
            let input = finding.input.escape_ascii().to_string();
            problems.push((target.name, finding.text, input));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

fn one_seed() -> Vec<Vec<u8>> {
    vec![b"aaaaaaaa".to_vec()]
}

fn faulty(run: fn(&[u8])) -> Target {
    Target { dictionary: &["wrong"], ..Target::new("faulty", one_seed, run) }
}

#[test]
fn a_panic_is_found_and_made_small() {
    let _alone = ALONE.lock();
    let target = faulty(|input| {
        let has = |word: &[u8]| input.windows(word.len()).any(|window| window == word);
        assert!(!has(b"wrong"), "it has the word");
    });
    let outcome = fuzz::fuzz(&target, Limit::Executions(10_000), 7, None).unwrap();
    let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert!(finding.text.ends_with("it has the word"), "{}", finding.text);
    assert_eq!(finding.input, b"wrong");
}

#[test]
fn too_much_memory_is_found() {
    let _alone = ALONE.lock();
    let target = faulty(|input| {
        if input.contains(&b'w') {
            drop(std::hint::black_box(vec![1_u8; 4 << 20]));
        }
    });
    let outcome = fuzz::fuzz(&target, Limit::Executions(10_000), 7, None).unwrap();
    let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert!(finding.text.contains("bytes of memory"), "{}", finding.text);
}

#[test]
fn too_much_time_is_found() {
    let _alone = ALONE.lock();
    let target = faulty(|input| {
        if input.contains(&b'w') {
            let mut sum = 0_u64;
            for at in 0..3_000_000_u64 {
                sum = std::hint::black_box(sum.wrapping_add(at));
            }
        }
    });
    let outcome = fuzz::fuzz(&target, Limit::Executions(200), 7, None).unwrap();
    let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert!(finding.text.contains("bytes of input"), "{}", finding.text);
}

#[test]
fn a_run_is_decided_by_its_seed() {
    let _alone = ALONE.lock();
    let target = faulty(|input| assert!(input.len() % 61 != 60, "of that length"));
    let run = |seed| fuzz::fuzz(&target, Limit::Executions(5_000), seed, None).unwrap();
    let (one, same) = (run(3), run(3));
    assert_eq!(one.findings.first().map(|it| &it.input), same.findings.first().map(|it| &it.input));
    assert_eq!(one.executions, same.executions);
}
