//! What the next batch is made of: what waits, and what is about to come.
//!
//! Each batch costs an `fdatasync`, and wakes threads and tasks, however few writes share it. So when
//! many clients write at once, a batch waits for more of them. Patient writes, those of clients who
//! use more than their part of the server, make nobody else wait: they are taken in small numbers,
//! and a pause for them ends when somebody else's write comes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::writer::Request;

/// Writes of one batch, and its bytes: bounds both the latency of the first and the frame.
const BATCH_WRITES: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// Patient writes of one batch: about a millisecond of work, which others may have to wait for.
const PATIENT_WRITES: usize = 64;

/// Batches of so many writes say that many clients write at once, so that more are on their way.
const CROWD: usize = 4;
/// The next batch waits for them as long as each pause brings some, and so many pauses at most.
const PAUSE: Duration = Duration::from_micros(200);
const PAUSES: usize = 8;
/// After batches of so many writes one pause may bring nothing by chance, and lasts twice as long.
const LARGE_CROWD: usize = 16;

/// Ends a pause for patient writes.
#[derive(Clone, Default)]
pub(crate) struct Alarm(Arc<Pausing>);

#[derive(Default)]
struct Pausing {
    is_pausing: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Alarm {
    /// To be called after a write that is not patient was sent.
    pub(crate) fn ring(&self) {
        if self.0.is_pausing.load(Ordering::SeqCst)
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Requests that wait for the writer.
pub(crate) struct Gatherer {
    incoming: mpsc::Receiver<Request>,
    urgent: Waiting,
    patient: Waiting,
    alarm: Alarm,
}

/// Those of one kind, in the order in which they came.
#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// How many the last batches had: of the largest one, three quarters with each that came after.
    crowd: usize,
}

impl Waiting {
    /// How long to pause for more of them.
    fn pause(&self, most: usize) -> Option<Duration> {
        if self.requests.len() >= most {
            return None;
        }
        match self.crowd {
            LARGE_CROWD.. => Some(PAUSE * 2),
            CROWD.. => Some(PAUSE),
            _ => None,
        }
    }

    /// Moves as many to a batch as it has room for.
    fn fill(&mut self, batch: &mut Batch, most: usize) {
        let mut count = 0;
        while count < most
            && let Some(next) = self.requests.front()
            && batch.has_room(next)
        {
            count += 1;
            batch.push(self.requests.pop_front());
        }
        self.crowd = count.max(self.crowd * 3 / 4);
    }
}

#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    bytes: usize,
}

impl Batch {
    /// There is always room for one.
    fn has_room(&self, next: &Request) -> bool {
        self.requests.is_empty()
            || (self.requests.len() < BATCH_WRITES && self.bytes + size(next) <= BATCH_BYTES)
    }

    fn push(&mut self, request: Option<Request>) {
        self.bytes += request.as_ref().map_or(0, size);
        self.requests.extend(request);
    }
}

impl Gatherer {
    pub(crate) fn new(incoming: mpsc::Receiver<Request>, alarm: Alarm) -> Self {
        Self { incoming, urgent: Waiting::default(), patient: Waiting::default(), alarm }
    }

    /// The next batch, once there is one; `None` when nobody can send any more.
    pub(crate) fn next(&mut self) -> Option<Vec<Request>> {
        self.alarm.0.thread.get_or_init(std::thread::current);
        self.take_waiting();
        if self.urgent.requests.is_empty() && self.patient.requests.is_empty() {
            let first = self.incoming.blocking_recv()?;
            self.keep(first);
            self.take_waiting();
        }
        self.pause_for_more();
        let mut batch = Batch::default();
        self.urgent.fill(&mut batch, BATCH_WRITES);
        self.patient.fill(&mut batch, PATIENT_WRITES);
        Some(batch.requests)
    }

    /// Pauses as long as that brings some of those that the batch is for.
    fn pause_for_more(&mut self) {
        for _ in 0..PAUSES {
            let is_urgent = !self.urgent.requests.is_empty();
            let (waiting, most) = match is_urgent {
                true => (&self.urgent, BATCH_WRITES),
                false => (&self.patient, PATIENT_WRITES),
            };
            let Some(pause) = waiting.pause(most) else { return };
            let before = waiting.requests.len();
            if is_urgent {
                sleep(pause);
                self.take_waiting();
            } else {
                self.pause_patiently(pause);
            }
            let turned_urgent = !is_urgent && !self.urgent.requests.is_empty();
            let after = if is_urgent { &self.urgent } else { &self.patient };
            if after.requests.len() == before && !turned_urgent {
                return;
            }
        }
    }

    fn pause_patiently(&mut self, pause: Duration) {
        self.alarm.0.is_pausing.store(true, Ordering::SeqCst);
        // Whoever sent something before that did not ring.
        self.take_waiting();
        if self.urgent.requests.is_empty() {
            std::thread::park_timeout(pause);
        }
        self.alarm.0.is_pausing.store(false, Ordering::SeqCst);
        self.take_waiting();
    }

    /// Takes from the channel what there is. A full house stays there, and then in its callers.
    fn take_waiting(&mut self) {
        while self.urgent.requests.len() + self.patient.requests.len() < BATCH_WRITES
            && let Ok(request) = self.incoming.try_recv()
        {
            self.keep(request);
        }
    }

    fn keep(&mut self, request: Request) {
        let waiting = if request.write.is_patient { &mut self.patient } else { &mut self.urgent };
        waiting.requests.push_back(request);
    }
}

fn size(request: &Request) -> usize {
    request.write.value.as_ref().map_or(0, Bytes::len)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, which is no part of simulations"
)]
fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::api::{Expect, Write};

    struct Clients(mpsc::Sender<Request>);

    impl Clients {
        fn write(&self, key: &str, is_patient: bool, bytes: usize) {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let value = Some(vec![0; bytes].into());
            let write = Write { is_patient, ..Write::new(key, value, Expect::Any) };
            self.0.try_send(Request { write, answer: oneshot::channel().0 }).unwrap();
        }
    }

    fn start() -> (Clients, Gatherer, Alarm) {
        let (sender, receiver) = mpsc::channel(4096);
        let alarm = Alarm::default();
        (Clients(sender), Gatherer::new(receiver, alarm.clone()), alarm)
    }

    fn keys(batch: &[Request]) -> Vec<&str> {
        batch.iter().map(|request| std::str::from_utf8(&request.write.key).unwrap()).collect()
    }

    #[test]
    fn urgent_writes_come_before_patient_ones_that_were_there_first() {
        let (clients, mut gatherer, _) = start();
        for n in 0..PATIENT_WRITES + 3 {
            clients.write(&format!("patient-{n}"), true, 1);
        }
        clients.write("urgent", false, 1);
        let batch = gatherer.next().unwrap();
        assert_eq!(keys(&batch)[..2], ["urgent", "patient-0"]);
        assert_eq!(batch.len(), 1 + PATIENT_WRITES, "no more patient ones than these");
        let rest = gatherer.next().unwrap();
        assert_eq!(keys(&rest), ["patient-64", "patient-65", "patient-66"]);
    }

    #[test]
    fn patient_writes_are_not_left_behind_by_urgent_ones() {
        let (clients, mut gatherer, _) = start();
        clients.write("patient", true, 1);
        for n in 0..100 {
            clients.write(&format!("urgent-{n}"), false, 1);
        }
        assert!(keys(&gatherer.next().unwrap()).contains(&"patient"));
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_in_number() {
        let (clients, mut gatherer, _) = start();
        for n in 0..3 {
            clients.write(&format!("large-{n}"), false, BATCH_BYTES / 2);
        }
        assert_eq!(gatherer.next().unwrap().len(), 2);
        assert_eq!(gatherer.next().unwrap().len(), 1);
        for n in 0..BATCH_WRITES + 1 {
            clients.write(&format!("{n}"), false, 1);
        }
        assert_eq!(gatherer.next().unwrap().len(), BATCH_WRITES);
        assert_eq!(gatherer.next().unwrap().len(), 1);
    }

    #[test]
    fn an_urgent_write_ends_a_pause_for_patient_ones() {
        let (clients, mut gatherer, alarm) = start();
        for n in 0..LARGE_CROWD {
            clients.write(&format!("{n}"), true, 1);
        }
        gatherer.next().unwrap();
        clients.write("patient", true, 1);
        gatherer.take_waiting();
        let (begun, pausing) = (std::sync::mpsc::channel(), alarm.clone());
        let client = std::thread::spawn(move || {
            while !pausing.0.is_pausing.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            clients.write("urgent", false, 1);
            pausing.ring();
            begun.0.send(()).unwrap();
        });
        // Far longer than the test may take.
        gatherer.pause_patiently(Duration::from_secs(600));
        client.join().unwrap();
        assert_eq!(keys(&gatherer.next().unwrap()), ["urgent", "patient"]);
        assert!(begun.1.try_recv().is_ok());
    }

    #[test]
    fn the_last_batch_is_followed_by_the_end() {
        let (clients, mut gatherer, _) = start();
        clients.write("last", false, 1);
        drop(clients);
        assert_eq!(gatherer.next().unwrap().len(), 1);
        assert!(gatherer.next().is_none());
    }
}
