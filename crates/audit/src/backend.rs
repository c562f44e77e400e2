//! Where events go: a queue with a limit, and who works it off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clock::SharedClock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::metrics::Metrics;
use crate::options::{LogOptions, Mode, WebhookOptions};
use crate::{log, webhook};

/// Events that wait when requests wait for them: as many as the server may work on at once, and
/// some more.
const WAITING: usize = 1024;
/// Bytes of events that wait, with their objects. A back end that is gone must not take the memory
/// of the server, whatever the size of what it is not told.
const WAITING_BYTES: usize = 128 << 20;
/// The plugin that upstream counts events for that found no place in a queue.
pub(crate) const BUFFERED: &str = "buffered";

/// A place that events go to.
pub struct Backend {
    mode: Mode,
    sender: mpsc::Sender<Message>,
    waiting_bytes: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    worker: std::sync::Mutex<Option<JoinHandle<Option<()>>>>,
}

/// What goes through the queue.
pub(crate) enum Message {
    /// An event.
    Entry(Entry),
    /// Nothing comes any more.
    Stop,
}

/// An event in a queue.
pub(crate) struct Entry {
    pub(crate) event: Arc<Event>,
    /// Who waits to hear whether it is stored.
    pub(crate) stored: Option<oneshot::Sender<bool>>,
    /// Gives the bytes back.
    _share: Share,
}

impl Entry {
    /// Tells who waits.
    pub(crate) fn finish(self, is_stored: bool) {
        if let Some(stored) = self.stored {
            // Whoever asked may have gone.
            stored.send(is_stored).ok();
        }
    }
}

struct Share {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whether an event is stored, once that is known.
pub(crate) struct Receipt(Option<oneshot::Receiver<bool>>);

impl Receipt {
    /// Waits for it. Events that nobody waits for count as stored.
    pub(crate) async fn wait(self) -> bool {
        match self.0 {
            Some(receiver) => receiver.await.unwrap_or(false),
            None => true,
        }
    }
}

impl Backend {
    /// A log.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn log(
        options: LogOptions,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let mode = options.mode;
        let (sender, receiver) = mpsc::channel(capacity(mode, options.batch.buffer_size));
        let worker = log::start(options, receiver, clock, metrics)?;
        Ok(Self::new(mode, sender, metrics, worker))
    }

    /// A webhook.
    ///
    /// # Errors
    /// When its address or its certificates make no sense.
    pub(crate) fn webhook(
        options: WebhookOptions,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, webhook::TargetError> {
        let mode = options.mode;
        let (sender, receiver) = mpsc::channel(capacity(mode, options.batch.buffer_size));
        let worker = webhook::start(options, receiver, clock, metrics)?;
        Ok(Self::new(mode, sender, metrics, worker))
    }

    fn new(
        mode: Mode,
        sender: mpsc::Sender<Message>,
        metrics: &Arc<Metrics>,
        worker: JoinHandle<Option<()>>,
    ) -> Self {
        let worker = std::sync::Mutex::new(Some(worker));
        let (waiting_bytes, metrics) = (Arc::default(), metrics.clone());
        Self { mode, sender, waiting_bytes, metrics, worker }
    }

    /// Whether requests are refused when their first event cannot be stored.
    pub(crate) fn is_strict(&self) -> bool {
        self.mode == Mode::BlockingStrict
    }

    /// Puts an event into the queue; waits for a place, when requests wait at all. Safe to drop:
    /// then the event is not in the queue, or on its way.
    pub(crate) async fn put(&self, event: &Arc<Event>) -> Receipt {
        let Some(share) = self.share(event) else {
            self.metrics.lost(BUFFERED, 1, "too many bytes wait");
            return Receipt(None);
        };
        if self.mode == Mode::Batch {
            self.offer_with(event, share);
            return Receipt(None);
        }
        let (stored, receipt) = oneshot::channel();
        let entry = Entry { event: event.clone(), stored: Some(stored), _share: share };
        if self.sender.send(Message::Entry(entry)).await.is_err() {
            self.metrics.lost(BUFFERED, 1, "audit backend shut down");
        }
        Receipt(Some(receipt))
    }

    /// The same where nobody can wait; `false` when there is no place for those who would.
    pub(crate) fn offer(&self, event: &Arc<Event>) -> bool {
        let Some(share) = self.share(event) else {
            self.metrics.lost(BUFFERED, 1, "too many bytes wait");
            return true;
        };
        if self.mode == Mode::Batch {
            self.offer_with(event, share);
            return true;
        }
        let entry = Entry { event: event.clone(), stored: None, _share: share };
        !matches!(self.sender.try_send(Message::Entry(entry)), Err(TrySendError::Full(_)))
    }

    /// Waits until everything that is in the queue has been delivered, or has failed.
    pub(crate) async fn finish(&self) {
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(worker) = worker else { return };
        if self.sender.send(Message::Stop).await.is_ok() {
            worker.await.ok();
        }
    }

    fn offer_with(&self, event: &Arc<Event>, share: Share) {
        let entry = Entry { event: event.clone(), stored: None, _share: share };
        match self.sender.try_send(Message::Entry(entry)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.metrics.lost(BUFFERED, 1, "audit buffer queue blocked")
            }
            Err(TrySendError::Closed(_)) => {
                self.metrics.lost(BUFFERED, 1, "audit backend shut down");
            }
        }
    }

    fn share(&self, event: &Event) -> Option<Share> {
        let bytes = event.weight();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { bytes, of: self.waiting_bytes.clone() };
        (before + bytes <= WAITING_BYTES).then_some(share)
    }
}

fn capacity(mode: Mode, buffer_size: usize) -> usize {
    /// A queue takes memory when it is made.
    const MOST: usize = 1 << 20;
    match mode {
        Mode::Batch => buffer_size.clamp(1, MOST),
        Mode::Blocking | Mode::BlockingStrict => WAITING,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use clock::SystemClock;
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Facts, Level, Recorded, Stage};
    use crate::options::BatchOptions;

    /// An event in a queue.
    pub(crate) fn entry() -> Entry {
        let share = Share { bytes: 0, of: Arc::default() };
        Entry { event: event(0), stored: None, _share: share }
    }

    fn event(body: usize) -> Arc<Event> {
        Arc::new(Event {
            level: Level::Request,
            stage: Stage::ResponseComplete,
            stage_timestamp: Timestamp::UNIX_EPOCH,
            facts: Arc::new(Facts::default()),
            impersonated_user: None,
            object: None,
            response_status: None,
            request_object: Some(Recorded::json(vec![b' '; body].into())),
            response_object: None,
            omits_managed_fields: false,
            annotations: BTreeMap::new(),
        })
    }

    pub(crate) fn backend(
        mode: Mode,
        size: usize,
    ) -> (Backend, mpsc::Receiver<Message>, telemetry::Registry) {
        let registry = telemetry::Registry::new();
        let metrics = Arc::new(Metrics::new(&registry, Arc::new(SystemClock)));
        let (sender, receiver) = mpsc::channel(size);
        let worker = stdx::task::spawn("nobody", async {});
        (Backend::new(mode, sender, &metrics, worker), receiver, registry)
    }

    fn lost(registry: &telemetry::Registry) -> f64 {
        let families = registry.gather();
        let errors = families.iter().find(|it| it.name() == "apiserver_audit_error_total");
        errors.map_or(0.0, |errors| errors.get_metric()[0].get_counter().get_value())
    }

    #[tokio::test]
    async fn what_finds_no_place_is_counted_and_nobody_waits() {
        let (backend, _receiver, registry) = backend(Mode::Batch, 2);
        for _ in 0..5 {
            assert!(backend.put(&event(0)).await.wait().await);
        }
        assert!((lost(&registry) - 3.0).abs() < 0.1);
    }

    #[tokio::test]
    async fn the_bytes_that_wait_have_a_limit() {
        let (backend, mut receiver, registry) = backend(Mode::Batch, 1000);
        for _ in 0..40 {
            backend.put(&event(4 << 20)).await;
        }
        assert!((lost(&registry) - 9.0).abs() < 0.1, "{}", lost(&registry));
        assert!(backend.waiting_bytes.load(Ordering::Relaxed) <= WAITING_BYTES);
        while receiver.try_recv().is_ok() {}
        assert_eq!(backend.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_request_that_waits_hears_what_became_of_its_event() {
        let (backend, mut receiver, _registry) = backend(Mode::BlockingStrict, 1);
        for is_stored in [true, false] {
            let receipt = backend.put(&event(0)).await;
            let Some(Message::Entry(entry)) = receiver.recv().await else { panic!("an entry") };
            entry.finish(is_stored);
            assert_eq!(receipt.wait().await, is_stored);
        }
        assert!(backend.offer(&event(0)));
        assert!(!backend.offer(&event(0)), "there is no place");
        drop(receiver);
        let gone = backend.put(&event(0)).await;
        let heard = tokio::time::timeout(Duration::from_secs(5), gone.wait()).await;
        assert!(!heard.unwrap());
    }

    #[test]
    fn a_queue_is_as_long_as_the_flag_says() {
        assert_eq!(capacity(Mode::Batch, BatchOptions::log().buffer_size), 10_000);
        assert_eq!(capacity(Mode::Blocking, 5), WAITING);
    }
}
