//! Who is worked on, when.

use clock::{ManualClock, SystemClock};
use futures::FutureExt;
use jiff::Timestamp;

use super::*;

const CROWD: u64 = 1;
const CLIENT: u64 = 2;

fn manual() -> (Arc<ManualClock>, Arc<Turns>) {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let turns = Turns::new(1, clock.clone());
    (clock, turns)
}

/// Uses so much time at once.
fn spend(clock: &ManualClock, turns: &Arc<Turns>, flow: u64, time: Duration) {
    let work = async { clock.advance(time) };
    turns.run(flow, work).now_or_never().expect("it has its part");
}

#[test]
fn who_has_not_had_his_part_does_not_wait() {
    let (clock, turns) = manual();
    for _ in 0..1000 {
        spend(&clock, &turns, CLIENT, Duration::from_micros(50));
        clock.advance(Duration::from_millis(1));
    }
}

#[test]
fn who_has_had_more_works_in_turns_until_time_has_made_up_for_it() {
    let (clock, turns) = manual();
    spend(&clock, &turns, CROWD, BURST * 2);
    let mut waits = Box::pin(turns.run(CROWD, async {}));
    assert!(waits.as_mut().now_or_never().is_none(), "it goes once around");
    assert!(turns.run(CLIENT, async {}).now_or_never().is_some(), "this one does not care");
    assert!(waits.now_or_never().is_some());
    clock.advance(BURST.mul_f64(2.0 / PART));
    assert!(turns.run(CROWD, async {}).now_or_never().is_some());
}

#[test]
fn turns_are_few_and_flows_take_them_in_turn() {
    let (clock, turns) = manual();
    for flow in [CROWD, CLIENT] {
        spend(&clock, &turns, flow, BURST * 2);
    }
    let mut taken = Box::pin(turns.run(CROWD, async {}));
    let mut other = Box::pin(turns.run(CROWD, async {}));
    assert!(taken.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
    // Both turns are taken.
    let mut waiting = [CROWD, CROWD, CLIENT].map(|flow| Box::pin(turns.run(flow, async {})));
    assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
    taken.now_or_never().unwrap();
    let [first, second, client] = &mut waiting;
    assert!(first.as_mut().now_or_never().is_some());
    assert!(second.as_mut().now_or_never().is_none());
    assert!(client.as_mut().now_or_never().is_some(), "before the second of the crowd");
    drop(other);
    assert!(second.as_mut().now_or_never().is_some());
    assert_eq!(turns.lock().taken, 0);
}

#[test]
fn a_turn_ends_where_the_request_waits() {
    let (clock, turns) = manual();
    spend(&clock, &turns, CROWD, BURST * 2);
    let mut waits: Vec<_> =
        (0..10).map(|_| Box::pin(turns.run(CROWD, std::future::pending::<()>()))).collect();
    for _ in 0..10 {
        for one in &mut waits {
            assert!(one.as_mut().now_or_never().is_none());
        }
    }
    assert_eq!(turns.lock().taken, 0);
    assert!(turns.lock().order.is_empty());
}

#[test]
fn who_is_gone_does_not_keep_a_turn() {
    let (clock, turns) = manual();
    spend(&clock, &turns, CROWD, BURST * 2);
    let mut all: Vec<_> = (0..10).map(|_| Box::pin(turns.run(CROWD, async {}))).collect();
    for one in &mut all {
        assert!(one.as_mut().now_or_never().is_none());
    }
    // In the order in which they wait, so that turns are given to those that go next.
    all.into_iter().for_each(drop);
    assert_eq!(turns.lock().taken, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_crowd_gets_through() {
    let turns = Turns::new(2, Arc::new(SystemClock));
    let tasks = (0..2000).map(|n| {
        let turns = turns.clone();
        stdx::task::spawn("one of the crowd", async move {
            let work = async {
                let sum: u64 = (0..20_000_u64).map(std::hint::black_box).sum();
                if n % 7 == 0 {
                    tokio::task::yield_now().await;
                }
                sum
            };
            turns.run(CROWD, work).await
        })
    });
    for task in futures::future::join_all(tasks).await {
        assert!(task.unwrap().is_some());
    }
    assert_eq!(turns.lock().taken, 0);
}
