//! A priority level: its queues behind a lock, and those who wait in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clock::SharedClock;
use tokio::sync::oneshot::{Receiver, Sender};

use super::Schema;
use crate::borrowing::{self, Bounds, Demand, Stats};
use crate::config::{PriorityLevel, Response};
use crate::queue_set::{Arrival, Asked, QueueSet, Ticket};

/// Time since flow control began: what the queues reckon with.
#[derive(Clone)]
pub(super) struct Ticker {
    pub(super) clock: SharedClock,
    epoch: Instant,
}

impl Ticker {
    pub(super) fn new(clock: SharedClock) -> Self {
        let epoch = clock.monotonic();
        Self { clock, epoch }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic().saturating_duration_since(self.epoch)
    }
}

/// Somebody who waits.
pub(crate) struct Waiter {
    pub(super) sender: Sender<Ticket>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) distinguisher: String,
}

/// Requests that a level has refused, by why.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) dispatched: u64,
    pub(crate) rejected: u64,
    pub(crate) timed_out: u64,
    pub(crate) cancelled: u64,
}

pub(crate) struct Level {
    pub(crate) name: String,
    ticker: Ticker,
    state: Mutex<State>,
}

struct State {
    response: Response,
    bounds: Bounds,
    queues: QueueSet<Waiter>,
    demand: Demand,
    smoothed: f64,
    counts: Counts,
}

type Begun = Vec<(Ticket, Waiter)>;

impl Level {
    pub(super) fn new(config: &PriorityLevel, bounds: Bounds, ticker: Ticker) -> Self {
        let shape = match config.response {
            Response::Queue(shape) => Some(shape),
            _ => None,
        };
        let state = State {
            response: config.response,
            bounds,
            queues: QueueSet::new(shape, bounds.nominal),
            demand: Demand::new(ticker.now()),
            smoothed: 0.0,
            counts: Counts::default(),
        };
        Self { name: config.name.clone(), ticker, state: Mutex::new(state) }
    }

    /// Takes over another configuration; tells who begins by it.
    pub(super) fn change(&self, config: &PriorityLevel, bounds: Bounds, now: Duration) -> Begun {
        let mut state = self.lock();
        let shape = match config.response {
            Response::Queue(shape) => Some(shape),
            _ => None,
        };
        if config.response == state.response && bounds == state.bounds {
            return Vec::new();
        }
        state.response = config.response;
        state.bounds = bounds;
        state.queues.reshape(shape);
        // Those who waited for a limit that is no more.
        let limit = if config.response == Response::Exempt { u32::MAX } else { bounds.nominal };
        state.queues.set_limit(limit, now)
    }

    pub(super) fn arrive(
        &self,
        asked: Asked,
        now: Duration,
        waiter: impl FnOnce() -> Waiter,
    ) -> Arrival {
        let state = &mut *self.lock();
        let arrival = state.queues.arrive(asked, now, waiter);
        if matches!(arrival, Arrival::Begins(_)) {
            state.counts.dispatched += 1;
        }
        state.demand.set(state.queues.demand(), now);
        arrival
    }

    /// Gives a request's seats back, and lets others begin.
    pub(super) fn finish(&self, ticket: Ticket) {
        let now = self.ticker.now();
        let begun = {
            let state = &mut *self.lock();
            let begun = state.queues.finish(ticket, now);
            state.demand.set(state.queues.demand(), now);
            begun
        };
        self.start(begun);
    }

    pub(super) fn set_limit(&self, seats: u32, now: Duration) -> Begun {
        self.lock().queues.set_limit(seats, now)
    }

    /// Tells those who begin. Who is gone meanwhile gives his seats to others.
    pub(super) fn start(&self, begun: Begun) {
        self.lock().counts.dispatched += begun.len() as u64;
        for (ticket, waiter) in begun {
            let meters = &waiter.schema.meters;
            meters.in_queue.dec();
            meters.in_queue_seats.sub(ticket.seats.into());
            if let Err(ticket) = waiter.sender.send(ticket) {
                self.finish(ticket);
            }
        }
    }

    /// Takes somebody out of his queue; whether he was still in it.
    fn leave(&self, number: u64) -> bool {
        let now = self.ticker.now();
        let begun = {
            let state = &mut *self.lock();
            let Some((waiter, begun)) = state.queues.cancel(number, now) else { return false };
            state.demand.set(state.queues.demand(), now);
            drop(waiter);
            begun
        };
        self.start(begun);
        true
    }

    /// What the period was like that ends now, and the demand as it is remembered.
    pub(super) fn take_demand(&self, now: Duration) -> (Stats, f64) {
        let state = &mut *self.lock();
        let stats = state.demand.take(now);
        state.smoothed = borrowing::smooth(state.smoothed, &stats);
        (stats, state.smoothed)
    }

    pub(super) fn count_rejection(&self, reason: &str) {
        let counts = &mut self.lock().counts;
        match reason {
            "time-out" => counts.timed_out += 1,
            "cancelled" => counts.cancelled += 1,
            _ => counts.rejected += 1,
        }
    }

    pub(super) fn response(&self) -> Response {
        self.lock().response
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.lock().bounds
    }

    pub(super) fn limit(&self) -> u32 {
        self.lock().queues.limit()
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().queues.waiting()
    }

    pub(super) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// Shows the queues to a dump.
    pub(crate) fn show<T>(&self, show: impl FnOnce(Response, &QueueSet<Waiter>, Counts) -> T) -> T {
        let state = self.lock();
        show(state.response, &state.queues, state.counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a queue; left when this is dropped.
pub(super) struct Place<'a> {
    schema: &'a Arc<Schema>,
    number: u64,
    seats: u32,
    receiver: Receiver<Ticket>,
    /// Whether the place was given up or led to seats.
    is_over: bool,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        schema: &'a Arc<Schema>,
        number: u64,
        seats: u32,
        receiver: Receiver<Ticket>,
    ) -> Self {
        schema.meters.in_queue.inc();
        schema.meters.in_queue_seats.add(seats.into());
        Self { schema, number, seats, receiver, is_over: false }
    }

    /// Waits for the seats.
    pub(super) async fn ticket(&mut self) -> Option<Ticket> {
        let ticket = (&mut self.receiver).await.ok();
        self.is_over = true;
        ticket
    }

    /// Leaves the queue; the seats, when they came just now.
    pub(super) fn leave(&mut self) -> Option<Ticket> {
        self.is_over = true;
        if self.schema.level.leave(self.number) {
            self.schema.meters.in_queue.dec();
            self.schema.meters.in_queue_seats.sub(self.seats.into());
            return None;
        }
        // Whoever sends after this finds the door closed, and keeps the seats.
        self.receiver.close();
        self.receiver.try_recv().ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(ticket) = self.leave() {
            self.schema.level.finish(ticket);
        }
        self.schema.level.count_rejection("cancelled");
        let (name, level) = (&*self.schema.config.name, &*self.schema.config.level);
        self.schema.meters.rejected.with_label_values(&[name, level, "cancelled"]).inc();
    }
}
