//! Requests on their way, with back ends that the test looks into.

use std::time::Duration;

use clock::ManualClock;
use tokio::sync::mpsc;

use super::*;
use crate::backend::Message;
use crate::backend::tests::backend;
use crate::event::Facts;
use crate::metrics::Metrics;
use crate::options::Mode;
use crate::policy::{Asked, Policy};

struct Bench {
    auditor: Arc<Auditor>,
    receiver: mpsc::Receiver<Message>,
    clock: Arc<ManualClock>,
    registry: telemetry::Registry,
}

impl Bench {
    fn new(mode: Mode, size: usize, rules: &str) -> Self {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let (backend, receiver, registry) = backend(mode, size);
        let metrics = Arc::new(Metrics::new(&telemetry::Registry::new(), clock.clone()));
        let auditor = Auditor::with(policy, vec![Arc::new(backend)], metrics, clock.clone());
        Self { auditor, receiver, clock, registry }
    }

    fn begin(&self, is_long_running: bool) -> Arc<AuditContext> {
        let asked = Asked { is_resource: true, resource: "pods", verb: "get", ..Asked::default() };
        self.auditor.begin(&asked, is_long_running, Facts::default).unwrap()
    }

    /// The events that have come, those who wait for them told that they are stored.
    fn events(&mut self) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        while let Ok(Message::Entry(entry)) = self.receiver.try_recv() {
            events.push(entry.event.clone());
            entry.finish(true);
        }
        events
    }

    fn stages(&mut self) -> Vec<&'static str> {
        self.events().iter().map(|event| event.stage.as_str()).collect()
    }
}

const ALL: &str = "rules: [{level: RequestResponse}]";

#[tokio::test]
async fn a_request_has_two_events_and_a_long_one_three() {
    let mut bench = Bench::new(Mode::Batch, 10, ALL);
    let request = bench.begin(false);
    request.received().await.unwrap();
    bench.clock.advance(Duration::from_millis(3));
    request.responded(ResponseStatus::of_code(200));
    request.completed().await;
    request.completed().await;
    drop(request);
    let events = bench.events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].stage_timestamp, Timestamp::UNIX_EPOCH);
    assert_eq!(events[1].stage_timestamp.as_millisecond(), 3);
    let watch = bench.begin(true);
    watch.received().await.unwrap();
    watch.responded(ResponseStatus::of_code(200));
    watch.started().await;
    assert_eq!(bench.stages(), ["RequestReceived", "ResponseStarted"]);
    drop(watch);
    assert_eq!(bench.stages(), ["ResponseComplete"]);
}

#[tokio::test]
async fn a_request_that_is_given_up_is_over_in_upstreams_words() {
    let mut bench = Bench::new(Mode::Batch, 10, ALL);
    drop(bench.begin(true));
    let events = bench.events();
    let stages: Vec<&str> = events.iter().map(|event| event.stage.as_str()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
    let status = events[1].response_status.as_ref().unwrap();
    assert_eq!((status.message.as_str(), status.code), ("Connection closed early", 200));
}

#[tokio::test]
async fn a_panic_is_an_event_of_its_own() {
    let mut bench = Bench::new(Mode::Batch, 10, ALL);
    let request = bench.begin(false);
    request.panicked("why").await;
    drop(request);
    let events = bench.events();
    assert_eq!((events.len(), events[0].stage), (1, Stage::Panic));
    let status = events[0].response_status.as_ref().unwrap();
    assert_eq!((status.message.as_str(), status.code), ("APIServer panic'd: why", 500));
}

#[tokio::test]
async fn stages_that_are_omitted_are_not_made() {
    let rules = "omitStages: [ResponseStarted]\nrules: [{level: Metadata, omitStages: [Panic]}]";
    let mut bench = Bench::new(Mode::Batch, 10, rules);
    let request = bench.begin(true);
    request.received().await.unwrap();
    request.started().await;
    drop(request);
    bench.begin(false).panicked("x").await;
    assert_eq!(bench.stages(), ["RequestReceived", "ResponseComplete"]);
}

#[tokio::test]
async fn a_request_that_must_be_recorded_is_refused_when_it_cannot_be() {
    let mut bench = Bench::new(Mode::BlockingStrict, 10, ALL);
    let request = bench.begin(false);
    {
        let received = request.received();
        let answer = async {
            let Some(Message::Entry(entry)) = bench.receiver.recv().await else { panic!("one") };
            entry.finish(false);
        };
        let (received, ()) = tokio::join!(received, answer);
        assert!(received.is_err());
    }
    drop(request);
    assert!(bench.events().is_empty(), "there is no more about it");
}

#[tokio::test]
async fn the_last_event_finds_its_place_when_the_queue_is_full() {
    let mut bench = Bench::new(Mode::Blocking, 1, ALL);
    let (first, second) = (bench.begin(false), bench.begin(false));
    drop(first);
    drop(second);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let Some(Message::Entry(entry)) = bench.receiver.recv().await else { panic!("two") };
        seen.push(entry.event.stage);
    }
    assert_eq!(seen, [Stage::ResponseComplete; 2]);
    let families = bench.registry.gather();
    assert!(families.iter().all(|it| it.name() != "apiserver_audit_error_total"));
}

#[tokio::test]
async fn what_was_said_first_stays_and_there_is_an_end_to_it() {
    let mut bench = Bench::new(Mode::Batch, 10, "rules: [{level: Metadata}]");
    let request = bench.begin(false);
    request.annotate("a/b", "1");
    request.annotate("a/b", "2");
    request.annotate_checked("not a key", "x");
    request.annotate_checked("example.com/key", "y");
    for at in 0..1000 {
        request.annotate(&format!("many/{at}"), "z");
    }
    // Objects are not even asked for at this level.
    request.requested(&ObjectReference::default(), || panic!("nobody wants it"));
    request.requested_patch(Media::Json, &Bytes::from_static(b"{}"));
    request.responded_with(Recorded::json(Bytes::from_static(b"{}")));
    request.completed().await;
    let event = bench.events().remove(0);
    assert_eq!(event.annotations.len(), ANNOTATIONS);
    assert_eq!((&*event.annotations["a/b"], &*event.annotations["example.com/key"]), ("1", "y"));
    assert!(event.request_object.is_none() && event.response_object.is_none());
}
