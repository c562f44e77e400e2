//! Upstream's metrics of flow control.
//!
//! Upstream: `util/flowcontrol/metrics/metrics.go`. Those that are histograms of ratios over time
//! are left out.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Upstream's buckets of the time in a queue.
const WAITS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// And of the time of execution.
const EXECUTIONS: [f64; 18] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 240.0,
    480.0, 960.0,
];
const SEATS: [f64; 5] = [1.0, 2.0, 4.0, 10.0, 100.0];
const LENGTHS: [f64; 9] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0];

/// All metrics, of every flow and level.
pub(crate) struct Metrics {
    dispatched: IntCounterVec,
    rejected: IntCounterVec,
    executing: IntGaugeVec,
    executing_seats: IntGaugeVec,
    in_queue: IntGaugeVec,
    in_queue_seats: IntGaugeVec,
    waits: HistogramVec,
    executions: HistogramVec,
    work: HistogramVec,
    lengths: HistogramVec,
    limits: IntGaugeVec,
    nominal: IntGaugeVec,
    lower: IntGaugeVec,
    upper: IntGaugeVec,
    current: IntGaugeVec,
    average: GaugeVec,
    deviation: GaugeVec,
    high: GaugeVec,
    smoothed: GaugeVec,
    target: GaugeVec,
    pub(crate) fraction: Gauge,
}

const FLOW: [&str; 2] = ["flow_schema", "priority_level"];
const LEVEL: [&str; 1] = ["priority_level"];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let add = Adder(registry);
        Self {
            dispatched: add.counter("dispatched_requests_total", "Requests that began.", &FLOW),
            rejected: add.counter(
                "rejected_requests_total",
                "Requests that were refused.",
                &["flow_schema", "priority_level", "reason"],
            ),
            executing: add.gauge("current_executing_requests", "Requests at work.", &FLOW),
            executing_seats: add.gauge("current_executing_seats", "Seats at work.", &FLOW),
            in_queue: add.gauge("current_inqueue_requests", "Requests that wait.", &FLOW),
            in_queue_seats: add.gauge("current_inqueue_seats", "Seats that are waited for.", &FLOW),
            waits: add.histogram(
                "request_wait_duration_seconds",
                "Time in a queue.",
                &["execute", "flow_schema", "priority_level"],
                &WAITS,
            ),
            executions: add.histogram(
                "request_execution_seconds",
                "Time at work.",
                &["flow_schema", "priority_level", "type"],
                &EXECUTIONS,
            ),
            work: add.histogram("work_estimated_seats", "Seats of requests.", &FLOW, &SEATS),
            lengths: add.histogram(
                "request_queue_length_after_enqueue",
                "Length of a queue, with who came last.",
                &FLOW,
                &LENGTHS,
            ),
            limits: add.gauge("request_concurrency_limit", "Nominal seats of a level.", &LEVEL),
            nominal: add.gauge("nominal_limit_seats", "Nominal seats of a level.", &LEVEL),
            lower: add.gauge("lower_limit_seats", "Seats that a level keeps.", &LEVEL),
            upper: add.gauge("upper_limit_seats", "Seats that a level may have.", &LEVEL),
            current: add.gauge("current_limit_seats", "Seats of a level now.", &LEVEL),
            average: add.number("demand_seats_average", "Average demand, last period.", &LEVEL),
            deviation: add.number("demand_seats_stdev", "Its deviation.", &LEVEL),
            high: add.number("demand_seats_high_watermark", "Its maximum.", &LEVEL),
            smoothed: add.number("demand_seats_smoothed", "Demand as remembered.", &LEVEL),
            target: add.number("target_seats", "Seats that a level should have.", &LEVEL),
            fraction: {
                let name = "apiserver_flowcontrol_seat_fair_frac";
                let made = Gauge::new(name, "Part of its demand that every level gets.");
                add.register(made.expect("the name is valid"))
            },
        }
    }

    /// The metrics of one flow schema, looked up once.
    pub(crate) fn of(&self, schema: &str, level: &str) -> Meters {
        let flow = [schema, level];
        Meters {
            dispatched: self.dispatched.with_label_values(&flow),
            rejected: self.rejected.clone(),
            executing: self.executing.with_label_values(&flow),
            executing_seats: self.executing_seats.with_label_values(&flow),
            in_queue: self.in_queue.with_label_values(&flow),
            in_queue_seats: self.in_queue_seats.with_label_values(&flow),
            began: self.waits.with_label_values(&["true", schema, level]),
            refused: self.waits.with_label_values(&["false", schema, level]),
            execution: self.executions.with_label_values(&[schema, level, "regular"]),
            work: self.work.with_label_values(&flow),
            length: self.lengths.with_label_values(&flow),
        }
    }

    /// Tells the bounds of a level.
    pub(crate) fn bounds(&self, level: &str, bounds: &crate::borrowing::Bounds) {
        let of = [level];
        self.limits.with_label_values(&of).set(bounds.nominal.into());
        self.nominal.with_label_values(&of).set(bounds.nominal.into());
        self.lower.with_label_values(&of).set(bounds.min.into());
        self.upper.with_label_values(&of).set(bounds.max.into());
    }

    /// Tells what a level has now.
    pub(crate) fn limit(&self, level: &str, seats: u32) {
        self.current.with_label_values(&[level]).set(seats.into());
    }

    /// Tells what a level has wanted.
    pub(crate) fn demand(
        &self,
        level: &str,
        stats: &crate::borrowing::Stats,
        smoothed: f64,
        target: f64,
    ) {
        let of = [level];
        self.average.with_label_values(&of).set(stats.average);
        self.deviation.with_label_values(&of).set(stats.deviation);
        self.high.with_label_values(&of).set(stats.high.into());
        self.smoothed.with_label_values(&of).set(smoothed);
        self.target.with_label_values(&of).set(target);
    }
}

/// The metrics of one flow schema.
pub(crate) struct Meters {
    pub(crate) dispatched: IntCounter,
    pub(crate) rejected: IntCounterVec,
    pub(crate) executing: IntGauge,
    pub(crate) executing_seats: IntGauge,
    pub(crate) in_queue: IntGauge,
    pub(crate) in_queue_seats: IntGauge,
    pub(crate) began: Histogram,
    pub(crate) refused: Histogram,
    pub(crate) execution: Histogram,
    pub(crate) work: Histogram,
    pub(crate) length: Histogram,
}

/// Makes and registers.
struct Adder<'a>(&'a Registry);

impl Adder<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let made = IntCounterVec::new(opts(name, help), labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let made = IntGaugeVec::new(opts(name, help), labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn number(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let made = GaugeVec::new(opts(name, help), labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        let made = HistogramVec::new(options, labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn register<T: Collector + Clone + 'static>(&self, metric: T) -> T {
        // A second server in one process keeps its numbers to itself.
        self.0.register(Box::new(metric.clone())).ok();
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("apiserver_flowcontrol_{name}"), help)
}
