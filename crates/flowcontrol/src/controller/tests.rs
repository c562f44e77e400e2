//! Classifying, waiting and lending, with a clock that stands still where time matters.

use std::sync::atomic::{AtomicUsize, Ordering};

use clock::{Clock, ManualClock, SystemClock};
use serde_json::json;

use super::*;

fn everything() -> (Vec<Value>, Vec<Value>) {
    let (levels, schemas): (Vec<_>, Vec<_>) =
        objects::wanted().into_iter().partition(|w| w.resource == "prioritylevelconfigurations");
    let objects = |list: Vec<objects::Wanted>| list.into_iter().map(|w| w.object).collect();
    (objects(schemas), objects(levels))
}

fn control(total: u32, clock: SharedClock) -> Arc<FlowControl> {
    let wait = Duration::from_secs(15);
    let control = FlowControl::new(total, wait, clock, &prometheus::Registry::new());
    let (schemas, levels) = everything();
    control.configure(&schemas, &levels);
    Arc::new(control)
}

fn of<'a>(user: &'a str, groups: &'a [String]) -> Digest<'a> {
    let path = "/x";
    Digest { user, groups, verb: "get", path, ..Digest::default() }
}

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn schema_of(control: &FlowControl, digest: &Digest<'_>) -> String {
    control.classify(digest).schema.config.name.clone()
}

#[test]
fn everybody_finds_the_schema_that_upstream_has_for_him() {
    let control = control(600, Arc::new(SystemClock));
    let authenticated = || groups(&["system:authenticated"]);
    let masters = groups(&["system:masters", "system:authenticated"]);
    assert_eq!(schema_of(&control, &of("admin", &masters)), "exempt");
    let anybody = authenticated();
    assert_eq!(schema_of(&control, &of("u", &anybody)), "global-default");
    assert_eq!(schema_of(&control, &of("u", &[])), "catch-all");
    let probe = Digest { path: "/readyz", ..of("u", &anybody) };
    assert_eq!(schema_of(&control, &probe), "probes");
    assert_eq!(schema_of(&control, &of("system:kube-scheduler", &anybody)), "kube-scheduler");
    let lease = Digest {
        verb: "update",
        is_resource: true,
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: "kube-system",
        ..of("system:kube-scheduler", &anybody)
    };
    assert_eq!(schema_of(&control, &lease), "system-leader-election");
    let nodes = groups(&["system:nodes", "system:authenticated"]);
    let node = Digest { user: "system:node:n", groups: &nodes, ..lease };
    assert_eq!(schema_of(&control, &node), "system-node-high");
    let accounts = groups(&["system:serviceaccounts", "system:authenticated"]);
    let account = of("system:serviceaccount:ns:a", &accounts);
    assert_eq!(schema_of(&control, &account), "service-accounts");
    let account = of("system:serviceaccount:kube-system:a", &accounts);
    assert_eq!(schema_of(&control, &account), "kube-system-service-accounts");
}

#[test]
fn the_mandatory_objects_cannot_be_made_other_than_they_are() {
    let control = control(600, Arc::new(SystemClock));
    let broken = json!({"metadata": {"name": "exempt", "uid": "u"}, "spec": {"type": "Limited"}});
    control.configure(&[], &[broken]);
    let masters = groups(&["system:masters"]);
    let found = control.classify(&of("admin", &masters));
    assert_eq!(found.schema.level.response(), Response::Exempt);
    assert_eq!(found.flow().level_uid(), "u");
    let lost = json!({"metadata": {"name": "lost"}, "spec": {"matchingPrecedence": 1,
        "priorityLevelConfiguration": {"name": "nowhere"}}});
    control.configure(&[lost], &[]);
    assert!(control.schemas.load().iter().all(|schema| schema.config.name != "lost"));
}

fn level_in_use(control: &FlowControl, name: &str) -> (u32, usize) {
    control.levels()[name].show(|_, queues, _| (queues.in_use(), queues.waiting()))
}

#[tokio::test]
async fn who_stops_waiting_leaves_nothing_behind() {
    let control = control(12, Arc::new(SystemClock));
    let anybody = groups(&["system:authenticated"]);
    let digest = of("u", &anybody);
    let limit = control.levels()["global-default"].limit();
    let mut held = Vec::new();
    for _ in 0..limit {
        held.push(control.admit(&control.classify(&digest), Width::ONE).await.unwrap());
    }
    let classified = control.classify(&digest);
    let mut waits: Vec<_> =
        (0..5).map(|_| Box::pin(control.admit(&classified, Width::ONE))).collect();
    for wait in &mut waits {
        assert!(futures_poll(wait.as_mut()).is_none());
    }
    assert_eq!(level_in_use(&control, "global-default"), (limit, 5));
    // Two go; one is given seats and goes before he has noticed.
    drop(waits.drain(..2));
    assert_eq!(level_in_use(&control, "global-default"), (limit, 3));
    held.pop();
    assert_eq!(level_in_use(&control, "global-default"), (limit, 2));
    drop(waits);
    held.clear();
    assert_eq!(level_in_use(&control, "global-default"), (0, 0));
}

/// Polls a future once.
fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let control = control(12, clock.clone());
    let anybody = groups(&["system:authenticated"]);
    let digest = of("u", &anybody);
    let limit = control.levels()["global-default"].limit();
    let mut held = Vec::new();
    for _ in 0..limit {
        held.push(control.admit(&control.classify(&digest), Width::ONE).await.unwrap());
    }
    let classified = control.classify(&digest);
    let mut wait = Box::pin(control.admit(&classified, Width::ONE));
    assert!(futures_poll(wait.as_mut()).is_none());
    clock.advance(Duration::from_secs(15));
    let Err(rejection) = wait.await else { panic!("there is no seat") };
    assert_eq!(rejection.reason, "time-out");
    assert_eq!(level_in_use(&control, "global-default").1, 0);
    let dump = control.dump_levels();
    let line = dump.lines().find(|line| line.starts_with("global-default,")).unwrap();
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    assert_eq!(cells[1..], ["1", "false", "false", "0", "1", "1", "0", "1", "0"], "{dump}");
}

#[tokio::test]
async fn idle_levels_lend_their_seats_to_busy_ones() {
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let control = control(245, clock.clone());
    let accounts = groups(&["system:serviceaccounts", "system:authenticated"]);
    let mut held = Vec::new();
    for n in 0..90 {
        let user = format!("system:serviceaccount:ns:a{n}");
        let classified = control.classify(&of(&user, &accounts));
        held.push(control.admit(&classified, Width::ONE).await.unwrap());
    }
    assert_eq!(control.levels()["workload-low"].limit(), 100);
    clock.advance(PERIOD);
    control.share_out();
    let limits: BTreeMap<String, u32> =
        control.levels().iter().map(|(name, level)| (name.clone(), level.limit())).collect();
    assert!(limits["workload-low"] > 100, "{limits:?}");
    assert!(limits["leader-election"] >= 10 && limits["system"] >= 20, "{limits:?}");
    let sum: u32 = limits.iter().filter(|(name, _)| *name != "exempt").map(|(_, n)| n).sum();
    assert!(sum <= 245, "{limits:?}");
}

#[tokio::test]
async fn a_write_holds_seats_for_its_watchers_after_it_has_ended() {
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let control = control(600, clock.clone());
    let anybody = groups(&["system:authenticated"]);
    let classified = control.classify(&of("u", &anybody));
    let width = Width::of_write(50, classified.seats_max());
    drop(control.admit(&classified, width).await.unwrap());
    tokio::task::yield_now().await;
    assert_eq!(level_in_use(&control, "global-default").0, 5);
    clock.advance(Duration::from_millis(5));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(level_in_use(&control, "global-default").0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_never_have_more_seats_than_their_level() {
    let control = control(60, Arc::new(SystemClock));
    let limit = usize::try_from(control.levels()["global-default"].limit()).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..64)
        .map(|client| {
            let (control, now, most) = (control.clone(), now.clone(), most.clone());
            stdx::task::spawn("client", async move {
                let anybody = groups(&["system:authenticated"]);
                let user = format!("u{}", client % 8);
                for _ in 0..200 {
                    let classified = control.classify(&of(&user, &anybody));
                    let Ok(seats) = control.admit(&classified, Width::ONE).await else { continue };
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    drop(seats);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= limit);
    assert_eq!(level_in_use(&control, "global-default"), (0, 0));
}

/// The bar is 2 µs in a release build; a debug build is some ten times slower.
#[tokio::test]
async fn an_uncontended_request_costs_little() {
    let control = control(600, Arc::new(SystemClock));
    let anybody = groups(&["system:authenticated"]);
    let digest = of("somebody", &anybody);
    let rounds = 20_000_u32;
    let begun = SystemClock.monotonic();
    for _ in 0..rounds {
        drop(control.admit(&control.classify(&digest), Width::ONE).await.unwrap());
    }
    let each = SystemClock.monotonic().duration_since(begun) / rounds;
    assert!(each < Duration::from_micros(60), "{each:?}");
}
