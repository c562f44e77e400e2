//! The queues by hand, and in simulations whose seeds make them repeatable.

use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::shuffle::hash;

const SHAPE: Shape = Shape { queues: 64, hand: 6, length: 50 };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Of a flow that uses too much.
fn asked(flow: u64, seats: u32) -> Asked {
    Asked { flow, seats, is_modest: false }
}

fn one(flow: u64) -> Asked {
    asked(flow, 1)
}

#[test]
fn seats_are_kept_for_modest_flows() {
    let mut set = QueueSet::new(Some(SHAPE), 16);
    let modest = |flow| Asked { is_modest: true, ..one(flow) };
    for _ in 0..14 {
        assert!(matches!(set.arrive(one(1), ms(0), || "crowd"), Arrival::Begins(_)));
    }
    assert!(matches!(set.arrive(one(1), ms(0), || "crowd"), Arrival::Waits(_)));
    let Arrival::Begins(kept) = set.arrive(modest(2), ms(0), || "modest") else { panic!("room") };
    assert!(matches!(set.arrive(modest(2), ms(0), || "modest"), Arrival::Begins(_)));
    assert!(matches!(set.arrive(modest(2), ms(0), || "modest"), Arrival::Waits(_)));
    // What is kept goes from one modest request to the next, however long the crowd has waited.
    let begun = set.finish(kept, ms(1));
    assert_eq!(begun.iter().map(|(_, who)| *who).collect::<Vec<_>>(), ["modest"]);
    assert_eq!((set.in_use(), set.waiting()), (16, 1));
}

#[test]
fn modest_flows_do_not_keep_others_from_their_turn() {
    let mut set = QueueSet::new(Some(SHAPE), 16);
    let modest = |flow| Asked { is_modest: true, ..one(flow) };
    let mut tickets = VecDeque::new();
    for flow in 0..200 {
        if let Arrival::Begins(ticket) = set.arrive(modest(flow), ms(0), || "modest") {
            tickets.push_back(ticket);
        }
    }
    assert!(matches!(set.arrive(one(1000), ms(1), || "crowd"), Arrival::Waits(_)));
    let mut steps = 1;
    loop {
        steps += 1;
        let begun = set.finish(tickets.pop_front().unwrap(), ms(steps));
        if begun.iter().any(|(_, who)| *who == "crowd") {
            break;
        }
        tickets.extend(begun.into_iter().map(|(ticket, _)| ticket));
        // Ever more of them come.
        set.arrive(modest(2000 + steps), ms(steps), || "modest");
        assert!(steps < 1000, "never its turn");
    }
}

#[test]
fn requests_wait_in_order_and_begin_when_there_is_room() {
    let shape = Shape { queues: 1, hand: 1, length: 2 };
    let mut set = QueueSet::new(Some(shape), 1);
    let Arrival::Begins(first) = set.arrive(one(1), ms(0), || 'a') else { panic!("room") };
    assert_eq!(set.arrive(one(1), ms(1), || 'b'), Arrival::Waits(0));
    assert_eq!(set.arrive(one(1), ms(2), || 'c'), Arrival::Waits(1));
    assert_eq!(set.arrive(one(1), ms(3), || 'd'), Arrival::Refused(Refusal::QueueFull));
    let begun = set.finish(first, ms(4));
    assert_eq!(begun.iter().map(|(_, value)| *value).collect::<String>(), "b");
    assert!(set.cancel(0, ms(5)).is_none(), "it has begun");
    assert_eq!(set.cancel(1, ms(5)).map(|(value, _)| value), Some('c'));
    assert!(set.finish(begun[0].0, ms(6)).is_empty());
    assert_eq!((set.in_use(), set.executing(), set.waiting(), set.active()), (0, 0, 0, 0));
}

#[test]
fn without_queues_there_is_room_or_there_is_not() {
    let mut set = QueueSet::new(None, 2);
    let Arrival::Begins(ticket) = set.arrive(asked(1, 2), ms(0), || ()) else { panic!("room") };
    assert_eq!(set.arrive(one(2), ms(0), || ()), Arrival::Refused(Refusal::ConcurrencyLimit));
    set.finish(ticket, ms(1));
    assert!(matches!(set.arrive(one(2), ms(1), || ()), Arrival::Begins(_)));
}

#[test]
fn one_that_needs_more_than_all_seats_gets_all_of_them() {
    let mut set = QueueSet::new(Some(SHAPE), 4);
    let Arrival::Begins(wide) = set.arrive(asked(1, 10), ms(0), || 'w') else { panic!("room") };
    assert!(matches!(set.arrive(one(2), ms(0), || 'n'), Arrival::Waits(_)));
    let begun = set.finish(wide, ms(1));
    assert_eq!(begun.len(), 1);
    assert!(matches!(set.arrive(asked(1, 10), ms(2), || 'w'), Arrival::Waits(_)));
    assert!(matches!(set.arrive(one(3), ms(2), || 'm'), Arrival::Waits(_)), "nobody overtakes");
    let begun = set.finish(begun[0].0, ms(3));
    assert_eq!(begun.len(), 1);
}

#[test]
fn a_higher_limit_lets_others_begin_at_once() {
    let mut set = QueueSet::new(Some(SHAPE), 1);
    for flow in 0..5 {
        set.arrive(one(hash("s", &flow.to_string())), ms(0), || flow);
    }
    assert_eq!(set.waiting(), 4);
    assert_eq!(set.set_limit(4, ms(1)).len(), 3);
    assert_eq!((set.in_use(), set.waiting()), (4, 1));
    assert!(set.set_limit(2, ms(2)).is_empty());
}

#[test]
fn what_waits_survives_that_its_queue_is_abolished() {
    let mut set = QueueSet::new(Some(SHAPE), 1);
    let Arrival::Begins(ticket) = set.arrive(one(1), ms(0), || 'a') else { panic!("room") };
    for flow in 0..20 {
        set.arrive(one(hash("s", &flow.to_string())), ms(0), || 'b');
    }
    set.reshape(Some(Shape { queues: 1, hand: 1, length: 50 }));
    let mut tickets = vec![ticket];
    let mut begun = 0;
    while let Some(ticket) = tickets.pop() {
        let more = set.finish(ticket, ms(1));
        begun += more.len();
        tickets.extend(more.into_iter().map(|(ticket, _)| ticket));
    }
    assert_eq!((begun, set.waiting(), set.active()), (20, 0, 0));
}

/// A flow that keeps so many requests in the system, each of so many seats and milliseconds.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    seats: u32,
    millis: u64,
}

/// What a simulation found of a flow.
#[derive(Default)]
struct Found {
    seat_millis: u64,
    ended: u64,
    refused: u64,
    worst_wait: Duration,
}

/// Runs loads against a level for a while. Checks at every step that no limit is exceeded.
fn simulate(seed: u64, limit: u32, seconds: u64, loads: &[Load]) -> BTreeMap<usize, Found> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut set: QueueSet<(usize, Duration)> = QueueSet::new(Some(SHAPE), limit);
    // Events by time, then by number: an arrival of a flow, or the end of a request.
    let mut events = BinaryHeap::new();
    let mut running = BTreeMap::new();
    let mut count = 0_u64;
    let mut found: BTreeMap<usize, Found> = BTreeMap::new();
    for (flow, load) in loads.iter().enumerate() {
        for _ in 0..load.clients {
            count += 1;
            events.push(std::cmp::Reverse((rng.random_range(0..1_000_u64), count, flow, false)));
        }
    }
    while let Some(std::cmp::Reverse((micros, number, flow, is_end))) = events.pop() {
        let now = Duration::from_micros(micros);
        if now > Duration::from_secs(seconds) {
            break;
        }
        let begun = if is_end {
            let ticket: Ticket = running.remove(&number).unwrap();
            let of = found.entry(flow).or_default();
            of.ended += 1;
            of.seat_millis += u64::from(ticket.seats) * loads[flow].millis;
            count += 1;
            events.push(std::cmp::Reverse((micros + 1, count, flow, false)));
            set.finish(ticket, now)
        } else {
            let load = loads[flow];
            // Other hands with every seed: some have queues in common.
            let key = hash(&seed.to_string(), &flow.to_string());
            match set.arrive(asked(key, load.seats), now, || (flow, now)) {
                Arrival::Begins(ticket) => vec![(ticket, (flow, now))],
                Arrival::Waits(_) => Vec::new(),
                Arrival::Refused(_) => {
                    found.entry(flow).or_default().refused += 1;
                    count += 1;
                    events.push(std::cmp::Reverse((micros + 100_000, count, flow, false)));
                    Vec::new()
                }
            }
        };
        for (ticket, (flow, since)) in begun {
            let of = found.entry(flow).or_default();
            of.worst_wait = of.worst_wait.max(now - since);
            count += 1;
            running.insert(count, ticket);
            let jitter = rng.random_range(0..=loads[flow].millis * 100);
            let end = micros + loads[flow].millis * 950 + jitter;
            events.push(std::cmp::Reverse((end, count, flow, true)));
        }
        let used: u32 = running.values().map(|ticket| ticket.seats).sum();
        assert_eq!(used, set.in_use(), "seed {seed}");
        assert!(used <= limit || running.len() == 1, "seed {seed}: {used} of {limit}");
        assert_eq!(running.len(), set.executing(), "seed {seed}");
        assert!(set.waiting() == 0 || used > 0, "seed {seed}: seats and nobody on them");
    }
    found
}

#[test]
fn flows_get_equal_shares_however_many_clients_they_have() {
    let mut sums = [0_u64; 3];
    for seed in 0..40 {
        let load = |clients, millis| Load { clients, seats: 1, millis };
        let found = simulate(seed, 10, 10, &[load(40, 10), load(20, 10), load(20, 30)]);
        let shares: Vec<u64> = found.values().map(|of| of.seat_millis).collect();
        let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        // Queues that two flows have in common are shared by them.
        assert!(most <= least * 2, "seed {seed}: {shares:?}");
        sums.iter_mut().zip(&shares).for_each(|(sum, share)| *sum += share);
    }
    let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
    assert!(most * 10 <= least * 13, "{sums:?}");
}

#[test]
fn a_quiet_flow_is_not_starved_by_a_flood() {
    for seed in 0..20 {
        let flood = Load { clients: 500, seats: 1, millis: 10 };
        let quiet = Load { clients: 1, seats: 1, millis: 10 };
        let found = simulate(seed, 10, 10, &[flood, quiet]);
        let quiet = &found[&1];
        assert_eq!(quiet.refused, 0, "seed {seed}");
        assert!(quiet.worst_wait < ms(40), "seed {seed}: {:?}", quiet.worst_wait);
        assert!(quiet.ended > 400, "seed {seed}: {}", quiet.ended);
        assert!(found[&0].refused > 0, "seed {seed}: queues have an end");
    }
}

#[test]
fn wide_requests_neither_starve_nor_are_starved() {
    for seed in 0..20 {
        let narrow = Load { clients: 50, seats: 1, millis: 5 };
        let wide = Load { clients: 4, seats: 8, millis: 20 };
        let found = simulate(seed, 10, 20, &[narrow, wide]);
        assert!(found[&1].worst_wait < ms(1500), "seed {seed}: {:?}", found[&1].worst_wait);
        let (narrow, wide) = (found[&0].seat_millis, found[&1].seat_millis);
        assert!(narrow * 3 > wide && wide * 3 > narrow, "seed {seed}: {narrow} {wide}");
    }
}

#[test]
fn what_is_cancelled_at_random_leaves_nothing_behind() {
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut set = QueueSet::new(Some(SHAPE), 7);
        let (mut tickets, mut numbers) = (Vec::new(), Vec::new());
        for step in 0..2000 {
            let now = ms(step);
            match rng.random_range(0..3) {
                0 => match set.arrive(asked(rng.random(), rng.random_range(1..4)), now, || ()) {
                    Arrival::Begins(ticket) => tickets.push(ticket),
                    Arrival::Waits(number) => numbers.push(number),
                    Arrival::Refused(_) => {}
                },
                1 if !tickets.is_empty() => {
                    let ticket = tickets.swap_remove(rng.random_range(0..tickets.len()));
                    tickets.extend(set.finish(ticket, now).into_iter().map(|(ticket, ())| ticket));
                }
                _ if !numbers.is_empty() => {
                    let number = numbers.swap_remove(rng.random_range(0..numbers.len()));
                    if let Some(((), begun)) = set.cancel(number, now) {
                        tickets.extend(begun.into_iter().map(|(ticket, ())| ticket));
                    }
                }
                _ => {}
            }
            assert!(set.in_use() <= 7, "seed {seed}");
        }
        while let Some(ticket) = tickets.pop() {
            tickets.extend(set.finish(ticket, ms(3000)).into_iter().map(|(ticket, ())| ticket));
        }
        let rest = (set.in_use(), set.executing(), set.waiting(), set.active(), set.demand());
        assert_eq!(rest, (0, 0, 0, 0, 0), "seed {seed}");
    }
}
