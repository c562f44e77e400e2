//! The queues of one priority level, and who is next.
//!
//! Fair queuing: every queue has a place in virtual time, which its requests push forward by the
//! seats and the time that they use. The queue whose next request would end first is served next.
//! How long a request will take is guessed when it begins and put right when it ends.
//!
//! Requests end together when they have waited for the same thing, so whoever comes after many would
//! wait for a while even if he is next. Some seats are therefore kept for modest flows, those that do
//! not use more than their share. They take them when there are no others, and only then.
//!
//! Invariants: `in_use` is the sum of the seats of what executes; `waiting`, `modest` and `requested`
//! are sums over the queues; a queue is active while anything of it waits or executes; when nothing waits,
//! nothing is dispatched later that could be now.
//!
//! Upstream: `util/flowcontrol/fairqueuing/queueset`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Shape;
use crate::shuffle;

/// Upstream's guess at the time a request takes.
const GUESS_SECS: f64 = 0.003;
/// One of so many seats is for modest flows only.
const KEPT: u32 = 8;

/// What is known of a request when it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) flow: u64,
    pub(crate) seats: u32,
    /// Whether its flow uses no more than its share.
    pub(crate) is_modest: bool,
}

/// A request that has begun; it has to be given back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ticket {
    queue: Option<usize>,
    pub(crate) seats: u32,
    /// Whether these are seats kept for the modest.
    is_kept: bool,
    begun: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrival {
    /// It may begin.
    Begins(Ticket),
    /// It waits under this number.
    Waits(u64),
    /// It is refused.
    Refused(Refusal),
}

/// Why a request is refused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are no queues, and no seats.
    ConcurrencyLimit,
    /// Its queue is full.
    QueueFull,
}

/// Which seats a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Common,
    Kept,
}

pub(crate) struct QueueSet<T> {
    /// `None` when requests are refused that cannot begin at once.
    shape: Option<Shape>,
    limit: u32,
    in_use: u32,
    /// Of those, the ones that are kept for the modest.
    kept_in_use: u32,
    executing: usize,
    waiting: usize,
    /// Of those who wait.
    modest: usize,
    /// Seats of all that executes or waits.
    requested: u32,
    active: usize,
    queues: Vec<Queue<T>>,
    /// Where the search for the next queue begins, so that equals take turns.
    turn: usize,
    virtual_now: f64,
    last: Duration,
    next_number: u64,
}

pub(crate) struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    seats_waiting: u32,
    executing: usize,
    seats_in_use: u32,
    /// Virtual time at which the next request would begin.
    next: f64,
}

struct Waiting<T> {
    number: u64,
    seats: u32,
    is_modest: bool,
    since: Duration,
    value: T,
}

/// What a dump shows of a queue.
pub(crate) struct QueueView {
    pub(crate) waiting: usize,
    pub(crate) executing: usize,
    pub(crate) seats_in_use: u32,
    pub(crate) seats_waiting: u32,
    pub(crate) next: f64,
}

impl<T> Queue<T> {
    fn new() -> Self {
        let waiting = VecDeque::new();
        Self { waiting, seats_waiting: 0, executing: 0, seats_in_use: 0, next: 0.0 }
    }

    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }
}

impl<T> QueueSet<T> {
    pub(crate) fn new(shape: Option<Shape>, limit: u32) -> Self {
        let mut set = Self {
            shape: None,
            limit,
            in_use: 0,
            kept_in_use: 0,
            executing: 0,
            waiting: 0,
            modest: 0,
            requested: 0,
            active: 0,
            queues: Vec::new(),
            turn: 0,
            virtual_now: 0.0,
            last: Duration::ZERO,
            next_number: 0,
        };
        set.reshape(shape);
        set
    }

    /// Changes the queues. What waits goes on waiting where it is.
    pub(crate) fn reshape(&mut self, shape: Option<Shape>) {
        self.shape = shape;
        let wanted = shape.map_or(0, |shape| shape.queues);
        let needed = self.queues.iter().rposition(Queue::is_active).map_or(0, |last| last + 1);
        self.queues.resize_with(wanted.max(needed), Queue::new);
    }

    /// Changes the limit; tells who begins.
    pub(crate) fn set_limit(&mut self, limit: u32, now: Duration) -> Vec<(Ticket, T)> {
        self.advance(now);
        self.limit = limit;
        self.dispatch(now)
    }

    /// A request of a flow. `value` is made when it has to wait.
    pub(crate) fn arrive(
        &mut self,
        asked: Asked,
        now: Duration,
        value: impl FnOnce() -> T,
    ) -> Arrival {
        self.advance(now);
        let Asked { flow, seats, is_modest } = asked;
        let Some(shape) = self.shape else {
            let Some(room) = self.room(seats, is_modest) else {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            };
            return Arrival::Begins(self.begin(None, seats, room, now));
        };
        let at = self.choose(flow, shape);
        // Who waits has been found no room for; nobody overtakes him, but to seats kept for others.
        let room = match (self.waiting, self.modest) {
            (0, _) => self.room(seats, is_modest),
            (_, 0) if is_modest => self.kept_room(seats),
            _ => None,
        };
        if let Some(room) = room {
            self.wake(at);
            return Arrival::Begins(self.begin(Some(at), seats, room, now));
        }
        if self.queues[at].waiting.len() >= shape.length {
            return Arrival::Refused(Refusal::QueueFull);
        }
        self.wake(at);
        let number = self.next_number;
        self.next_number += 1;
        let queue = &mut self.queues[at];
        queue.waiting.push_back(Waiting { number, seats, is_modest, since: now, value: value() });
        queue.seats_waiting += seats;
        self.waiting += 1;
        self.modest += usize::from(is_modest);
        self.requested += seats;
        Arrival::Waits(number)
    }

    /// A request has ended; tells who begins.
    pub(crate) fn finish(&mut self, ticket: Ticket, now: Duration) -> Vec<(Ticket, T)> {
        self.advance(now);
        self.in_use -= ticket.seats;
        self.kept_in_use -= if ticket.is_kept { ticket.seats } else { 0 };
        self.requested -= ticket.seats;
        self.executing -= 1;
        if let Some(at) = ticket.queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            queue.seats_in_use -= ticket.seats;
            let took = now.saturating_sub(ticket.begun).as_secs_f64();
            queue.next += (took - GUESS_SECS) * f64::from(ticket.seats);
            if !queue.is_active() {
                self.active -= 1;
            }
        }
        self.dispatch(now)
    }

    /// Takes a request out of its queue; `None` when it has begun meanwhile. Others may begin that
    /// waited behind it.
    pub(crate) fn cancel(&mut self, number: u64, now: Duration) -> Option<(T, Vec<(Ticket, T)>)> {
        self.advance(now);
        let is_it = |waiting: &Waiting<T>| waiting.number == number;
        let found =
            self.queues.iter().enumerate().find_map(|(at, queue)| {
                queue.waiting.iter().position(is_it).map(|place| (at, place))
            });
        let (at, place) = found?;
        let queue = &mut self.queues[at];
        let waiting = queue.waiting.remove(place)?;
        queue.seats_waiting -= waiting.seats;
        self.waiting -= 1;
        self.modest -= usize::from(waiting.is_modest);
        self.requested -= waiting.seats;
        if !queue.is_active() {
            self.active -= 1;
        }
        let begun = self.dispatch(now);
        Some((waiting.value, begun))
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    #[cfg(test)]
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use
    }

    pub(crate) fn executing(&self) -> usize {
        self.executing
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Seats that everybody here would have if there were enough.
    pub(crate) fn demand(&self) -> u32 {
        self.requested
    }

    pub(crate) fn active(&self) -> usize {
        self.active
    }

    /// The queues, with what waits in them: number in the queue, seats, since when, and whose.
    pub(crate) fn views(&self) -> impl Iterator<Item = QueueView> {
        self.queues.iter().map(|queue| QueueView {
            waiting: queue.waiting.len(),
            executing: queue.executing,
            seats_in_use: queue.seats_in_use,
            seats_waiting: queue.seats_waiting,
            next: queue.next,
        })
    }

    /// What waits, by queue: seats, since when, and whose.
    pub(crate) fn queued(&self) -> impl Iterator<Item = (usize, usize, u32, Duration, &T)> {
        self.queues.iter().enumerate().flat_map(|(at, queue)| {
            let waiting = queue.waiting.iter().enumerate();
            waiting.map(move |(place, w)| (at, place, w.seats, w.since, &w.value))
        })
    }

    /// Virtual time goes as fast as each active queue gets seats.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        if self.active > 0 {
            let seats = f64::from(self.requested.min(self.limit));
            #[expect(clippy::cast_precision_loss, reason = "there are no more than some hundreds")]
            let active = self.active as f64;
            self.virtual_now += passed * seats / active;
        }
    }

    /// The queue of the flow's hand with the least to do.
    fn choose(&mut self, flow: u64, shape: Shape) -> usize {
        let mut best = (u32::MAX, 0);
        let queues = &self.queues;
        shuffle::deal(flow, shape.queues, shape.hand, |at| {
            let load = queues[at].seats_waiting + queues[at].seats_in_use;
            if load < best.0 {
                best = (load, at);
            }
        });
        best.1
    }

    /// A queue that has slept does not get the time it has missed.
    fn wake(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        if !queue.is_active() {
            queue.next = queue.next.max(self.virtual_now);
            self.active += 1;
        }
    }

    /// Where there is room for so many seats.
    fn room(&self, seats: u32, is_modest: bool) -> Option<Room> {
        if self.has_common_room(seats) {
            return Some(Room::Common);
        }
        if is_modest { self.kept_room(seats) } else { None }
    }

    /// One that needs more seats than there are gets them all.
    fn has_common_room(&self, seats: u32) -> bool {
        let common = self.limit - self.kept();
        let in_use = self.in_use - self.kept_in_use;
        if seats > common {
            return in_use == 0 && common > 0;
        }
        in_use + seats <= common
    }

    fn kept_room(&self, seats: u32) -> Option<Room> {
        (self.kept_in_use + seats <= self.kept()).then_some(Room::Kept)
    }

    fn kept(&self) -> u32 {
        // Without queues nobody waits behind a crowd.
        if self.shape.is_some() { self.limit / KEPT } else { 0 }
    }

    fn begin(&mut self, at: Option<usize>, seats: u32, room: Room, now: Duration) -> Ticket {
        let is_kept = room == Room::Kept;
        self.in_use += seats;
        self.kept_in_use += if is_kept { seats } else { 0 };
        self.requested += seats;
        self.executing += 1;
        if let Some(at) = at {
            let queue = &mut self.queues[at];
            queue.executing += 1;
            queue.seats_in_use += seats;
            queue.next += GUESS_SECS * f64::from(seats);
        }
        Ticket { queue: at, seats, is_kept, begun: now }
    }

    fn dispatch(&mut self, now: Duration) -> Vec<(Ticket, T)> {
        let mut begun = Vec::new();
        while self.waiting > 0 {
            let Some((at, room)) = self.next_queue() else { break };
            let queue = &mut self.queues[at];
            let Some(head) = queue.waiting.pop_front() else { break };
            queue.seats_waiting -= head.seats;
            self.waiting -= 1;
            self.modest -= usize::from(head.is_modest);
            self.requested -= head.seats;
            self.turn = at + 1;
            begun.push((self.begin(Some(at), head.seats, room, now), head.value));
        }
        begun
    }

    /// The queue to be served now, if there is room for its first request.
    fn next_queue(&self) -> Option<(usize, Room)> {
        let (at, head) = self.first_queue(|_| true)?;
        if self.has_common_room(head.seats) {
            return Some((at, Room::Common));
        }
        if self.modest == 0 {
            return None;
        }
        let (at, head) = self.first_queue(|head| head.is_modest)?;
        Some((at, self.kept_room(head.seats)?))
    }

    /// Among the queues with such a request at their head, the one whose would end first.
    fn first_queue(&self, is_one: impl Fn(&Waiting<T>) -> bool) -> Option<(usize, &Waiting<T>)> {
        let count = self.queues.len();
        let mut best: Option<(f64, usize, &Waiting<T>)> = None;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let queue = &self.queues[at];
            let Some(head) = queue.waiting.front().filter(|head| is_one(head)) else { continue };
            let end = queue.next + GUESS_SECS * f64::from(head.seats);
            if best.is_none_or(|(least, ..)| end < least) {
                best = Some((end, at, head));
            }
        }
        best.map(|(_, at, head)| (at, head))
    }
}

#[cfg(test)]
mod tests;
