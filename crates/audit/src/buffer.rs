//! Gathering events into batches.
//!
//! Upstream: `apiserver/plugin/pkg/audit/buffered`.

use std::time::{Duration, Instant};

use clock::{Clock, SharedClock};
use tokio::sync::mpsc;

use crate::backend::{Entry, Message};
use crate::options::BatchOptions;

/// Events that are delivered together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// Whether nothing comes after it.
    pub(crate) is_last: bool,
}

/// Waits for a batch: until it is full, or its time is over, or nothing comes any more.
pub(crate) async fn collect(
    receiver: &mut mpsc::Receiver<Message>,
    options: &BatchOptions,
    clock: &SharedClock,
) -> Batch {
    let mut batch = Batch::default();
    let mut end = (options.max_size > 1).then(|| clock.sleep(options.max_wait));
    while batch.entries.len() < options.max_size.max(1) {
        let message = match &mut end {
            None => receiver.recv().await,
            Some(end) => tokio::select! {
                biased;
                message = receiver.recv() => message,
                () = end => return batch,
            },
        };
        match message {
            Some(Message::Entry(entry)) => batch.entries.push(entry),
            Some(Message::Stop) | None => {
                batch.is_last = true;
                return batch;
            }
        }
    }
    batch
}

/// So many a second, and a number of them at once after a pause.
pub(crate) struct Throttle {
    qps: f64,
    burst: f64,
    tokens: f64,
    last: Instant,
}

impl Throttle {
    /// A full bucket; `None` when there is no limit.
    pub(crate) fn new(options: &BatchOptions, clock: &dyn Clock) -> Option<Self> {
        let (qps, burst) = (f64::from(options.throttle_qps), f64::from(options.throttle_burst));
        options.throttle.then(|| Self { qps, burst, tokens: burst, last: clock.monotonic() })
    }

    /// Waits for the next one.
    pub(crate) async fn accept(&mut self, clock: &SharedClock) {
        loop {
            let now = clock.monotonic();
            let passed = now.saturating_duration_since(self.last).as_secs_f64();
            (self.tokens, self.last) = ((self.tokens + passed * self.qps).min(self.burst), now);
            if self.tokens >= 1.0 {
                self.tokens -= 1.0;
                return;
            }
            clock.sleep(Duration::from_secs_f64((1.0 - self.tokens) / self.qps)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clock::ManualClock;
    use futures::FutureExt;
    use jiff::Timestamp;

    use super::*;

    fn clock() -> (Arc<ManualClock>, SharedClock) {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        (clock.clone(), clock)
    }

    #[tokio::test]
    async fn a_batch_is_full_or_its_time_is_over() {
        let (hand, clock) = clock();
        let options = BatchOptions { max_size: 2, ..BatchOptions::webhook() };
        let (sender, mut receiver) = mpsc::channel(10);
        for _ in 0..3 {
            sender.send(Message::Entry(crate::backend::tests::entry())).await.unwrap();
        }
        let batch = collect(&mut receiver, &options, &clock).await;
        assert_eq!((batch.entries.len(), batch.is_last), (2, false));
        {
            let mut rest = Box::pin(collect(&mut receiver, &options, &clock));
            assert!((&mut rest).now_or_never().is_none(), "it waits for another");
            hand.advance(Duration::from_secs(29));
            assert!((&mut rest).now_or_never().is_none());
            hand.advance(Duration::from_secs(1));
            assert_eq!(rest.await.entries.len(), 1);
        }
        sender.send(Message::Stop).await.unwrap();
        let last = collect(&mut receiver, &options, &clock).await;
        assert!(last.is_last && last.entries.is_empty());
    }

    #[tokio::test]
    async fn deliveries_have_a_rate_and_a_burst() {
        let (hand, clock) = clock();
        let options =
            BatchOptions { throttle_qps: 2.0, throttle_burst: 3, ..BatchOptions::webhook() };
        let mut throttle = Throttle::new(&options, &*clock).unwrap();
        for _ in 0..3 {
            assert!(throttle.accept(&clock).now_or_never().is_some());
        }
        {
            let mut next = Box::pin(throttle.accept(&clock));
            assert!((&mut next).now_or_never().is_none());
            hand.advance(Duration::from_millis(500));
            next.await;
        }
        assert!(throttle.accept(&clock).now_or_never().is_none());
        assert!(Throttle::new(&BatchOptions::log(), &*clock).is_none());
    }
}
