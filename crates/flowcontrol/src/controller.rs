//! Flow control as the server sees it: classify, wait for seats, give them back.
//!
//! Invariants: the table of schemas is replaced as a whole; a level is kept as long as a request of
//! it is around; locks are held for a few instructions and never across a wait.

mod level;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use clock::SharedClock;
use serde_json::Value;
use stdx::shutdown::Shutdown;

use self::level::{Level, Ticker, Waiter};
use crate::borrowing::{self, Bounds, Claim};
use crate::config::{FlowSchema, PriorityLevel, Response};
use crate::matching::Digest;
use crate::metrics::{Meters, Metrics};
use crate::objects;
use crate::queue_set::{Arrival, Asked, Refusal, Ticket};
use crate::shares::Shares;
use crate::shuffle;
use crate::watches::Watches;
use crate::width::Width;

/// How often seats are shared out anew: upstream's period.
const PERIOD: Duration = Duration::from_secs(10);
/// The part of a level's seats that one request may have: upstream's.
const WIDEST_PERCENT: u32 = 15;

/// The flow control of a server.
pub struct FlowControl {
    ticker: Ticker,
    /// Seats of all levels together.
    total: u32,
    wait_max: Duration,
    schemas: ArcSwap<Vec<Arc<Schema>>>,
    levels: Mutex<BTreeMap<String, Arc<Level>>>,
    metrics: Metrics,
    watches: Arc<Watches>,
    shares: Shares,
}

/// A schema in use, with its level.
pub(crate) struct Schema {
    pub(crate) config: FlowSchema,
    pub(crate) level: Arc<Level>,
    level_uid: String,
    pub(crate) meters: Meters,
}

/// A request with its flow.
pub struct Classified<'a> {
    schema: Arc<Schema>,
    flow: u64,
    distinguisher: &'a str,
}

/// What a request was found to be, for its answer; cheap to clone.
#[derive(Clone)]
pub struct Flow {
    schema: Arc<Schema>,
    hash: u64,
}

impl Flow {
    /// The schema's uid.
    pub fn schema_uid(&self) -> &str {
        &self.schema.config.uid
    }

    /// The level's uid.
    pub fn level_uid(&self) -> &str {
        &self.schema.level_uid
    }

    /// What tells it from other flows that use the processors; `None` where nothing is limited.
    pub fn key(&self) -> Option<u64> {
        (self.schema.level.response() != Response::Exempt).then_some(self.hash)
    }
}

impl Classified<'_> {
    /// What the answer says of it.
    pub fn flow(&self) -> Flow {
        Flow { schema: self.schema.clone(), hash: self.flow }
    }

    /// The most seats that a request of the level may ask for.
    pub fn seats_max(&self) -> u32 {
        let nominal = self.schema.level.bounds().nominal;
        (nominal * WIDEST_PERCENT).div_ceil(100).max(1)
    }
}

/// Why a request is not worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Upstream's word, as metrics have it.
    pub reason: &'static str,
}

/// Seats of a request; they are given back when this is dropped.
pub struct Seats {
    schema: Arc<Schema>,
    /// `None` at levels without limits.
    ticket: Option<Ticket>,
    begun: Duration,
    width: Width,
}

impl FlowControl {
    /// With upstream's objects, and so many seats.
    pub fn new(
        total: u32,
        wait_max: Duration,
        clock: SharedClock,
        registry: &prometheus::Registry,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let control = Self {
            shares: Shares::new(clock.clone(), processors),
            ticker: Ticker::new(clock),
            total: total.max(1),
            wait_max,
            schemas: ArcSwap::default(),
            levels: Mutex::default(),
            metrics: Metrics::new(registry),
            watches: Arc::default(),
        };
        control.configure(&[], &[]);
        control
    }

    /// Takes over the objects as they are now. The mandatory ones count as they should be, whether
    /// they are there or not.
    pub fn configure(&self, schemas: &[Value], levels: &[Value]) {
        let mandatory: Vec<_> = objects::wanted().into_iter().filter(|w| w.is_mandatory).collect();
        let with_mandatory = |resource: &str, given: &[Value]| -> Vec<Value> {
            let mut all = given.to_vec();
            for wanted in mandatory.iter().filter(|wanted| wanted.resource == resource) {
                let name = &wanted.object["metadata"]["name"];
                match all.iter_mut().find(|found| found["metadata"]["name"] == *name) {
                    Some(found) => found["spec"] = wanted.object["spec"].clone(),
                    None => all.push(wanted.object.clone()),
                }
            }
            all
        };
        let levels = with_mandatory("prioritylevelconfigurations", levels);
        let levels: Vec<PriorityLevel> = levels.iter().map(PriorityLevel::read).collect();
        let schemas = with_mandatory("flowschemas", schemas);
        let mut schemas: Vec<FlowSchema> = schemas.iter().map(FlowSchema::read).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        self.set_levels(&levels);
        let known = self.levels();
        let table = schemas.into_iter().filter_map(|config| {
            // One that leads nowhere counts as none.
            let level = known.get(&config.level)?.clone();
            let of = levels.iter().find(|found| found.name == config.level)?;
            let meters = self.metrics.of(&config.name, &config.level);
            Some(Arc::new(Schema { config, level, level_uid: of.uid.clone(), meters }))
        });
        self.schemas.store(Arc::new(table.collect()));
    }

    fn set_levels(&self, wanted: &[PriorityLevel]) {
        let now = self.now();
        let all: u32 = wanted.iter().map(|level| level.shares).sum();
        let mut levels = self.levels();
        levels.retain(|name, _| wanted.iter().any(|level| level.name == *name));
        let mut begun = Vec::new();
        for config in wanted {
            let shares = (config.shares, all);
            let bounds = Bounds::new(self.total, shares, config.lendable, config.borrowing);
            self.metrics.bounds(&config.name, &bounds);
            match levels.get(&config.name) {
                Some(level) => begun.push((level.clone(), level.change(config, bounds, now))),
                None => {
                    let level = Level::new(config, bounds, self.ticker.clone());
                    levels.insert(config.name.clone(), Arc::new(level));
                }
            }
            self.metrics.limit(&config.name, levels[&config.name].limit());
        }
        drop(levels);
        for (level, begun) in begun {
            level.start(begun);
        }
    }

    /// The schema that a request belongs to.
    pub fn classify<'a>(&self, digest: &Digest<'a>) -> Classified<'a> {
        let schemas = self.schemas.load();
        let found = schemas.iter().find(|schema| schema.config.matches(digest));
        // The last one takes everybody, who is authenticated or not.
        let schema = found.or(schemas.last()).expect("the mandatory schemas are there").clone();
        let distinguisher = schema.config.distinguish(digest);
        let flow = shuffle::hash(&schema.config.name, distinguisher);
        Classified { schema, flow, distinguisher }
    }

    /// Waits for seats. Safe to drop: who stops waiting leaves the queue, and gives back what he
    /// was just given.
    ///
    /// # Errors
    /// When there is no room even to wait, or the wait is over.
    pub async fn admit(&self, of: &Classified<'_>, width: Width) -> Result<Seats, Rejection> {
        let (schema, level) = (&of.schema, &of.schema.level);
        let meters = &schema.meters;
        if level.response() == Response::Exempt {
            return Ok(self.begin(schema, None, width));
        }
        let seats = width.most();
        meters.work.observe(f64::from(seats));
        let now = self.now();
        let mut receiver = None;
        let is_modest = !self.shares.is_exceeded(of.flow);
        let arrival = level.arrive(Asked { flow: of.flow, seats, is_modest }, now, || {
            let (sender, waiting) = tokio::sync::oneshot::channel();
            receiver = Some(waiting);
            Waiter { sender, schema: schema.clone(), distinguisher: of.distinguisher.to_owned() }
        });
        match (arrival, receiver) {
            (Arrival::Begins(ticket), _) => {
                meters.began.observe(0.0);
                Ok(self.begin(schema, Some(ticket), width))
            }
            (Arrival::Waits(number), Some(receiver)) => {
                let (ticket, waited) = self.wait(schema, number, seats, receiver).await?;
                meters.began.observe(waited.as_secs_f64());
                Ok(self.begin(schema, Some(ticket), width))
            }
            (Arrival::Refused(Refusal::QueueFull), _) => {
                Err(self.refuse(schema, "queue-full", now))
            }
            _ => Err(self.refuse(schema, "concurrency-limit", now)),
        }
    }

    async fn wait(
        &self,
        schema: &Arc<Schema>,
        number: u64,
        seats: u32,
        receiver: tokio::sync::oneshot::Receiver<Ticket>,
    ) -> Result<(Ticket, Duration), Rejection> {
        let since = self.now();
        let meters = &schema.meters;
        let length = schema.level.waiting();
        #[expect(clippy::cast_precision_loss, reason = "queues are some thousands long at most")]
        meters.length.observe(length as f64);
        let mut place = level::Place::new(schema, number, seats, receiver);
        let ticket = tokio::select! {
            ticket = place.ticket() => ticket,
            () = self.ticker.clock.sleep(self.wait_max) => place.leave(),
        };
        match ticket {
            Some(ticket) => Ok((ticket, self.now().saturating_sub(since))),
            None => Err(self.refuse(schema, "time-out", since)),
        }
    }

    fn begin(&self, schema: &Arc<Schema>, ticket: Option<Ticket>, width: Width) -> Seats {
        let meters = &schema.meters;
        meters.dispatched.inc();
        meters.executing.inc();
        meters.executing_seats.add(width.most().into());
        Seats { schema: schema.clone(), ticket, begun: self.now(), width }
    }

    fn refuse(&self, schema: &Schema, reason: &'static str, since: Duration) -> Rejection {
        let (name, level) = (schema.config.name.as_str(), schema.config.level.as_str());
        schema.meters.rejected.with_label_values(&[name, level, reason]).inc();
        let waited = self.now().saturating_sub(since);
        schema.meters.refused.observe(waited.as_secs_f64());
        schema.level.count_rejection(reason);
        Rejection { reason }
    }

    /// Shares seats out among the levels, until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = self.ticker.clock.sleep(PERIOD) => self.share_out(),
                () = shutdown.begun() => return,
            }
        }
    }

    /// Gives every level the seats that it should have by what it has lately wanted.
    pub fn share_out(&self) {
        let now = self.now();
        let levels: Vec<Arc<Level>> = self
            .levels()
            .values()
            .filter(|level| level.response() != Response::Exempt)
            .cloned()
            .collect();
        let claims: Vec<Claim> = levels
            .iter()
            .map(|level| {
                let (stats, smoothed) = level.take_demand(now);
                let claim = Claim { bounds: level.bounds(), smoothed, high: stats.high };
                self.metrics.demand(&level.name, &stats, smoothed, claim.target());
                claim
            })
            .collect();
        let (fraction, seats) = borrowing::allocate(self.total, &claims);
        self.metrics.fraction.set(fraction);
        for (level, seats) in levels.iter().zip(seats) {
            self.metrics.limit(&level.name, seats);
            level.start(level.set_limit(seats, now));
        }
    }

    /// What flows have of the processors.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The watches that are open.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    pub(crate) fn levels(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Level>>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn time_of(&self, at: Duration) -> String {
        let ago = self.now().saturating_sub(at);
        let now = self.ticker.clock.now();
        let then = now.checked_sub(ago).unwrap_or(now);
        then.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
    }

    fn now(&self) -> Duration {
        self.ticker.now()
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let schema = &self.schema;
        let took = schema.level.ticker().now().saturating_sub(self.begun);
        schema.meters.executing.dec();
        schema.meters.executing_seats.sub(self.width.most().into());
        schema.meters.execution.observe(took.as_secs_f64());
        let Some(ticket) = self.ticket else { return };
        if self.width.after == 0 {
            schema.level.finish(ticket);
            return;
        }
        // The client has its answer; what it has caused goes on for a while.
        let (level, extra) = (schema.level.clone(), self.width.extra);
        if tokio::runtime::Handle::try_current().is_err() {
            level.finish(ticket);
            return;
        }
        drop(stdx::task::spawn("flow control seats", async move {
            level.ticker().clock.sleep(extra).await;
            level.finish(ticket);
        }));
    }
}

#[cfg(test)]
mod tests;
