//! Turns on the processors.
//!
//! Seats bound how many requests are under way, not who of them is worked on next: that would be
//! whoever's bytes came first, and a crowd's always do. So a flow that has lately had more than its
//! part of the processors works in turns: few of its requests at a time, and only behind what else
//! there is to do; the others wait, cheaply. Who has not had his part is never kept waiting.
//!
//! ```text
//!   flow within its part ───────────────────────────▶ at once
//!   flow beyond it ──▶ a turn is free ──▶ once around ──▶ its turn
//!                 └──▶ waits ──▶ flows take turns ────────┘
//! ```
//!
//! Invariants: a turn lasts until the request first waits for something, or ends, and is given back
//! whatever becomes of it; nothing waits while a turn is free.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use clock::SharedClock;
use tokio::sync::oneshot;

/// The part of one processor that a flow may have before it works in turns.
const PART: f64 = 0.2;
/// What it may have at once: some tens of requests.
const BURST: Duration = Duration::from_millis(2);
/// Turns for each processor: one that is worked on, and the next.
const PER_PROCESSOR: usize = 2;
/// Flows that are remembered before those that have not used anything lately are forgotten.
const FLOWS: usize = 1024;

/// The turns of a server.
pub struct Turns {
    clock: SharedClock,
    count: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    flows: HashMap<u64, Use>,
    /// Flows of which somebody waits, in the order of their turns.
    order: VecDeque<u64>,
}

/// What a flow has used, as far as it has not been made up for.
struct Use {
    debt: Duration,
    at: Instant,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn; it is free again when this is dropped, unless it was given on.
struct Turn(Option<Arc<Turns>>);

impl Use {
    fn new(now: Instant) -> Self {
        Self { debt: Duration::ZERO, at: now, waiting: VecDeque::new() }
    }

    /// Lets time make up for what was used.
    fn settle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.debt = self.debt.saturating_sub(passed.mul_f64(PART));
        self.at = now;
    }
}

impl Turns {
    /// Turns on so many processors.
    pub fn new(processors: usize, clock: SharedClock) -> Arc<Self> {
        let count = processors.max(1) * PER_PROCESSOR;
        Arc::new(Self { clock, count, state: Mutex::default() })
    }

    /// Does something for a flow when it is its turn. Safe to drop at any time.
    pub async fn run<T>(self: &Arc<Self>, flow: u64, work: impl Future<Output = T>) -> T {
        let mut turn = self.take(flow).await;
        let begun = self.clock.monotonic();
        let mut is_first = true;
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if is_first {
                is_first = false;
                self.charge(flow, begun);
                drop(turn.take());
            }
            match polled {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for a turn; `None` for a flow that needs none.
    async fn take(self: &Arc<Self>, flow: u64) -> Option<Turn> {
        let receiver = {
            let now = self.clock.monotonic();
            let state = &mut *self.lock();
            let used = state.flows.get_mut(&flow)?;
            used.settle(now);
            if used.debt < BURST && used.waiting.is_empty() {
                return None;
            }
            if state.taken < self.count {
                state.taken += 1;
                None
            } else {
                let (sender, receiver) = oneshot::channel();
                if used.waiting.is_empty() {
                    state.order.push_back(flow);
                }
                used.waiting.push_back(sender);
                Some(receiver)
            }
        };
        match receiver {
            None => {
                let turn = Turn(Some(Arc::clone(self)));
                // Behind all that is ready now.
                tokio::task::yield_now().await;
                Some(turn)
            }
            // The sender is dropped only with all turns.
            Some(receiver) => receiver.await.ok(),
        }
    }

    fn charge(&self, flow: u64, begun: Instant) {
        let now = self.clock.monotonic();
        let state = &mut *self.lock();
        if state.flows.len() >= FLOWS && !state.flows.contains_key(&flow) {
            state.flows.retain(|_, used| {
                used.settle(now);
                !used.debt.is_zero() || !used.waiting.is_empty()
            });
        }
        let used = state.flows.entry(flow).or_insert_with(|| Use::new(now));
        used.settle(now);
        // Nobody is kept from a fair part for longer than it takes to make up for a burst.
        let debt = used.debt + now.saturating_duration_since(begun);
        used.debt = debt.min(BURST * 2);
    }

    /// Gives a turn on to the next flow, or back.
    fn give_back(self: &Arc<Self>) {
        loop {
            let next = {
                let state = &mut *self.lock();
                match state.next() {
                    Some(next) => next,
                    None => {
                        state.taken -= 1;
                        return;
                    }
                }
            };
            match next.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // He is gone. The turn is still to be given.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who is next: flows in turn, within one the first to come.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(flow) = self.order.pop_front() {
            let Some(used) = self.flows.get_mut(&flow) else { continue };
            let next = used.waiting.pop_front();
            if !used.waiting.is_empty() {
                self.order.push_back(flow);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
