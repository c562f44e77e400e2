//! What all parts of a run share: the API, luck, the faults there are just now, and the trace.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{Notify, watch};

use clock::Clock;

use crate::api::{Answer, Api, Asked, Target};
use crate::budget::Budget;
use crate::dice::Dice;
use crate::sim_clock::SimClock;
use crate::strikes::{Blow, Strikes};
use crate::tally::{Event, Tally};
use crate::view::Sight;

/// Lines of the trace that are kept for a report.
const TRACE_LINES: usize = 400;

/// Shared by everybody.
pub(crate) struct World {
    api: Mutex<Api>,
    /// The versions of the last changes of collections that are watched.
    grown: Mutex<BTreeMap<String, watch::Sender<u64>>>,
    dice: Mutex<Dice>,
    faults: Mutex<Faults>,
    trace: Mutex<Trace>,
    tally: Mutex<Tally>,
    strikes: Mutex<Strikes>,
    /// The steps that the run may take.
    pub(crate) budget: Budget,
    over: Notify,
    /// The clock of the API server and the nodes.
    pub(crate) clock: Arc<SimClock>,
}

/// How likely what goes wrong is, in thousandths of requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The request never arrives.
    pub(crate) lost: u64,
    /// It takes effect, and the answer never arrives.
    pub(crate) unanswered: u64,
    /// A write is refused as if somebody else had been faster.
    pub(crate) conflict: u64,
    /// The server has too much to do.
    pub(crate) busy: u64,
    /// A request or an event takes seconds.
    pub(crate) slow: u64,
    /// A watch ends with an event.
    pub(crate) watch_ends: u64,
    /// A watch expires with an event.
    pub(crate) watch_expires: u64,
}

struct Trace {
    lines: VecDeque<String>,
    print: bool,
    /// Of all lines: what tells two runs of a seed apart.
    digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64, budget: u64, print: bool) -> Arc<Self> {
        Arc::new(Self {
            api: Mutex::new(Api::new(seed)),
            grown: Mutex::default(),
            dice: Mutex::new(Dice::new(seed, 2)),
            faults: Mutex::default(),
            trace: Mutex::new(Trace { lines: VecDeque::new(), print, digest: 0 }),
            tally: Mutex::default(),
            strikes: Mutex::new(Strikes::of(seed)),
            budget: Budget::new(budget),
            over: Notify::new(),
            clock: Arc::new(SimClock::new()),
        })
    }

    /// The API, for as long as nobody is waited for.
    pub(crate) fn api(&self) -> MutexGuard<'_, Api> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Luck.
    pub(crate) fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong just now.
    pub(crate) fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides what goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// What is meant for somebody and hits now, of what can.
    pub(crate) fn strike(&self, whom: &str, fits: impl Fn(Blow) -> bool) -> Option<Blow> {
        self.strikes().next(whom, fits)
    }

    /// What is meant for somebody.
    pub(crate) fn strikes(&self) -> MutexGuard<'_, Strikes> {
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what happens to somebody.
    pub(crate) fn count(&self, whom: &str, event: Event) {
        self.tally().add(whom, event);
    }

    /// What has been counted.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step of the run. When none is left, whoever would take it waits for ever.
    pub(crate) async fn step(&self) {
        if self.budget.step() {
            self.over.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Waits until no step is left; how many there were.
    pub(crate) async fn exhausted(&self) -> u64 {
        self.over.notified().await;
        self.budget.steps()
    }

    /// Hears of changes of a collection.
    pub(crate) fn subscribe(&self, collection: &str) -> watch::Receiver<u64> {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        grown.entry(collection.to_owned()).or_default().subscribe()
    }

    /// Works on the API and tells watchers of what changed.
    pub(crate) fn ask(
        &self,
        by: &str,
        sight: Option<Sight<'_>>,
        work: impl FnOnce(&mut Api, Asked<'_>) -> Answer,
    ) -> Answer {
        let mut api = self.api();
        let before = api.version();
        let answer = work(&mut api, Asked { by, now: self.clock.now(), sight });
        let changes = api.log().iter().rev().take_while(|commit| commit.version > before);
        let changes: Vec<_> = changes.cloned().collect();
        drop(api);
        for commit in changes.iter().rev() {
            self.trace(&format!("{by}: {}", told(commit)));
        }
        let grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        for commit in &changes {
            if let Some(grown) = grown.get(&commit.key.0) {
                grown.send_replace(commit.version);
            }
        }
        answer
    }

    /// A write that arrives, by something that is no part of what is tested.
    pub(crate) fn write(&self, by: &str, method: &str, path: &str, body: &Value) -> Answer {
        let target = Target::parse(path);
        self.ask(by, None, |api, asked| match method {
            "POST" => api.post(asked, &target, body.clone()),
            "PUT" => api.put(asked, &target, body),
            "DELETE" => api.delete(asked, &target, body),
            "STRATEGIC" => {
                let patch = body.to_string();
                api.patch(asked, &target, crate::api::PatchKind::Strategic, patch.as_bytes())
            }
            _ => {
                let patch = body.to_string();
                api.patch(asked, &target, crate::api::PatchKind::Merge, patch.as_bytes())
            }
        })
    }

    /// Adds a line to the trace.
    pub(crate) fn trace(&self, what: &str) {
        let elapsed = self.clock.elapsed();
        let line = format!("{:>9.3} {what}", elapsed.as_secs_f64());
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in line.bytes() {
            trace.digest = (trace.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if trace.print {
            crate::print(&line);
            return;
        }
        if trace.lines.len() == TRACE_LINES {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    }

    /// The end of the trace, and what all of it comes to.
    pub(crate) fn story(&self) -> (String, u64) {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for line in &trace.lines {
            writeln!(text, "{line}").ok();
        }
        (text, trace.digest)
    }
}

/// A change, in a line.
fn told(commit: &crate::api::Commit) -> String {
    let (collection, namespace, name) = &commit.key;
    let verb = match (&commit.old, &commit.new) {
        (None, _) => "creates",
        (_, None) => "removes",
        _ => "changes",
    };
    let value = &commit.last.value;
    let mut text = format!("{verb} {collection} {namespace}/{name} @{}", commit.version);
    let mut say = |what: &str, value: &Value| {
        if !value.is_null() {
            write!(text, " {what}={value}").ok();
        }
    };
    match collection.as_str() {
        "/events" => {
            say("of", &value["involvedObject"]["name"]);
            say("reason", &value["reason"]);
            say("message", &value["message"]);
        }
        "/pods" => {
            say("owner", &value["metadata"]["ownerReferences"][0]["name"]);
            say("node", &value["spec"]["nodeName"]);
            say("phase", &value["status"]["phase"]);
            say("deleted", &value["metadata"]["deletionTimestamp"]);
            say("finalizers", &value["metadata"]["finalizers"]);
            let conditions = value["status"]["conditions"].as_array();
            let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
            say("ready", &ready.map_or(Value::Null, |ready| ready["status"].clone()));
        }
        "/nodes" => {
            say("taints", &value["spec"]["taints"]);
        }
        "coordination.k8s.io/leases" => {}
        _ => {
            say("replicas", &value["spec"]["replicas"]);
            say("deleted", &value["metadata"]["deletionTimestamp"]);
            let status = value["status"].to_string();
            if status != "null" && status.len() < 1400 {
                say("status", &value["status"]);
            }
        }
    }
    text
}
