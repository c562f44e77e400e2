//! Upstream's stable metrics of the API server, and those of the others that dashboards look at.
//!
//! Upstream: `endpoints/metrics/metrics.go`. Only words that the server knows become labels: anybody
//! could fill the memory with others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::context::RequestContext;
use crate::non_resource;
use crate::proxy;
use connection::Body;

/// The metrics of one server; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    sizes: HistogramVec,
    inflight: IntGaugeVec,
    long_running: IntGaugeVec,
    deprecated: IntGaugeVec,
    pub(crate) objects: IntGaugeVec,
    pub(crate) watch_events: IntCounterVec,
    pub(crate) watch_list: HistogramVec,
    pub(crate) stored_events: IntCounterVec,
    pub(crate) validating_policies: Checks,
    pub(crate) mutating_policies: Checks,
    pub(crate) node_port_errors: IntCounterVec,
    health: IntGaugeVec,
    health_total: IntCounterVec,
}

/// How often policies were asked with what result, and how long that took.
#[derive(Clone)]
pub(crate) struct Checks {
    total: IntCounterVec,
    duration: HistogramVec,
}

impl Checks {
    fn new(add: &Adder<'_>, kind: &str, labels: &[&str]) -> Self {
        let name = |what: &str| format!("apiserver_{kind}_admission_policy_check_{what}");
        let help = "Checks by admission policies, by result.";
        let total = add.counter(&name("total"), help, labels);
        let help = "Time that checks by admission policies took.";
        let duration = add.histogram(&name("duration_seconds"), help, labels, &CHECKS);
        Self { total, duration }
    }

    /// Counts a check, with the values of its labels in their order.
    pub(crate) fn observe(&self, labels: &[&str], took: Duration) {
        self.total.with_label_values(labels).inc();
        self.duration.with_label_values(labels).observe(took.as_secs_f64());
    }
}

/// Upstream's buckets of `apiserver_validating_admission_policy_check_duration_seconds`.
const CHECKS: [f64; 5] = [5e-7, 0.001, 0.01, 0.1, 1.0];
/// Upstream's buckets of `apiserver_request_duration_seconds`.
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// Those of `apiserver_response_sizes`.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Those of `apiserver_watch_list_duration_seconds`.
const WATCH_LISTS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// What a request is about, in the order of the labels that most metrics begin with.
const ABOUT: [&str; 7] =
    ["component", "group", "resource", "scope", "subresource", "verb", "version"];
const COMPONENT: &str = "apiserver";

impl Metrics {
    pub(crate) fn new(registry: Registry, features: &features::Features) -> Self {
        let add = Adder(&registry);
        let with = |extra: &[&'static str]| [&ABOUT[..], extra].concat();
        let metrics = Self {
            requests: add.counter(
                "apiserver_request_total",
                "Requests by what they were about and the code of the answer.",
                &with(&["code", "dry_run", "system_client"]),
            ),
            duration: add.histogram(
                "apiserver_request_duration_seconds",
                "Time until the answer to a request began.",
                &with(&["dry_run"]),
                &DURATIONS,
            ),
            sizes: add.histogram(
                "apiserver_response_sizes",
                "Bytes of the answers to reads.",
                &ABOUT,
                &SIZES,
            ),
            validating_policies: Checks::new(
                &add,
                "validating",
                &["enforcement_action", "error_type", "policy", "policy_binding"],
            ),
            mutating_policies: Checks::new(
                &add,
                "mutating",
                &["error_type", "policy", "policy_binding"],
            ),
            inflight: add.gauge(
                "apiserver_current_inflight_requests",
                "Requests being worked on.",
                &["request_kind"],
            ),
            long_running: add.gauge(
                "apiserver_longrunning_requests",
                "Watches, tunnels and the like that are open.",
                &ABOUT,
            ),
            deprecated: add.gauge(
                "apiserver_requested_deprecated_apis",
                "Deprecated resources that somebody has asked for.",
                &["group", "removed_release", "resource", "subresource", "version"],
            ),
            objects: add.gauge("apiserver_storage_objects", "Objects by resource.", &["resource"]),
            watch_events: add.counter(
                "apiserver_watch_events_total",
                "Events sent to watchers.",
                &["group", "resource", "version"],
            ),
            watch_list: add.histogram(
                "apiserver_watch_list_duration_seconds",
                "Time until a watch had sent the objects that were there before.",
                &["group", "resource", "scope", "version"],
                &WATCH_LISTS,
            ),
            stored_events: add.counter(
                "apiserver_storage_events_received_total",
                "Changes that came from the store.",
                &["group", "resource"],
            ),
            node_port_errors: add.counter(
                "apiserver_nodeport_repair_port_errors_total",
                "Node ports that were not as they should be, by what was wrong: leak, repair, \
                 outOfRange or duplicate.",
                &["type"],
            ),
            health: add.gauge("kubernetes_healthcheck", "What a check found.", &["name", "type"]),
            health_total: add.counter(
                "kubernetes_healthchecks_total",
                "What checks found.",
                &["name", "status", "type"],
            ),
            registry: registry.clone(),
        };
        let gates = features.all().map(|(gate, is_open)| (gate.name, gate.stage.as_str(), is_open));
        if let Err(error) = telemetry::describe(&registry, gates) {
            tracing::warn!(%error, "the server cannot describe itself");
        }
        metrics
    }

    /// The text that is scraped.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::warn!(%error, "metrics cannot be printed");
        }
        out
    }

    /// What a check of the server's health found.
    pub(crate) fn checked(&self, root: &str, name: &str, passed: bool) {
        let of = root.trim_start_matches('/');
        self.health.with_label_values(&[name, of]).set(i64::from(passed));
        let status = if passed { "success" } else { "error" };
        self.health_total.with_label_values(&[name, status, of]).inc();
    }
}

/// Makes and registers.
struct Adder<'a>(&'a Registry);

impl Adder<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let made = IntCounterVec::new(Opts::new(name, help), labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let made = IntGaugeVec::new(Opts::new(name, help), labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = HistogramVec::new(options, labels);
        self.register(made.expect("the name and the labels are valid"))
    }

    fn register<T: Collector + Clone + 'static>(&self, metric: T) -> T {
        // A second server in one process keeps its numbers to itself.
        self.0.register(Box::new(metric.clone())).ok();
        metric
    }
}

/// Counts a request whose answer is about to be sent.
pub(crate) fn record(ctx: &RequestContext, response: &Response<Body>, started: Instant) {
    let metrics = &ctx.server.metrics;
    let about = about(ctx);
    let dry_run = if ctx.query.non_empty("dryRun") == Some("All") { "All" } else { "" };
    let [component, group, resource, scope, subresource, verb, version] = about;
    let with_dry_run = [component, group, resource, scope, subresource, verb, version, dry_run];
    let took = ctx.server.clock.monotonic().saturating_duration_since(started);
    metrics.duration.with_label_values(&with_dry_run).observe(took.as_secs_f64());
    let size = response.body().size_hint().exact();
    if let (Some(size), true) = (size, matches!(verb, "GET" | "LIST")) {
        #[expect(clippy::cast_precision_loss, reason = "buckets are powers of ten")]
        metrics.sizes.with_label_values(&about).observe(size as f64);
    }
    let status = response.status();
    let client = system_client(&ctx.user.name);
    let labels = [
        component,
        group,
        resource,
        scope,
        subresource,
        verb,
        version,
        status.as_str(),
        dry_run,
        client,
    ];
    metrics.requests.with_label_values(&labels).inc();
}

/// A request at work, counted until this is dropped: its client may go at any time.
pub(crate) struct InFlight(IntGauge);

impl InFlight {
    pub(crate) fn new(metrics: &Metrics, kind: &str) -> Self {
        let gauge = metrics.inflight.with_label_values(&[kind]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An answer that may last, counted for as long as it does.
pub(crate) fn hold(ctx: &RequestContext, response: Response<Body>) -> Response<Body> {
    let is_long = ctx.info.verb == "watch" || proxy::is_long_running(&ctx.info);
    if !is_long || !response.status().is_success() {
        return response;
    }
    let held = (Held::of(ctx), ctx.server.traffic.watched(ctx));
    response.map(|body| Body::Held { body: Box::new(body), held: Box::new(held) })
}

/// Counts something that lasts until it is dropped.
pub(crate) struct Held {
    open: IntGauge,
    /// Whose last event is made when nobody holds it any more.
    _audit: Option<Arc<audit::AuditContext>>,
}

impl Held {
    pub(crate) fn of(ctx: &RequestContext) -> Self {
        let gauge = ctx.server.metrics.long_running.with_label_values(&about(ctx));
        gauge.inc();
        Self { open: gauge, _audit: ctx.audit.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Notes that a resource was asked for that is going away.
pub(crate) fn deprecated(ctx: &RequestContext) {
    let info = &ctx.info;
    // No release has been named in which any of them is to be removed.
    let labels = [&*info.group, "", &*info.resource, &*info.subresource, &*info.version];
    ctx.server.metrics.deprecated.with_label_values(&labels).set(1);
    ctx.annotate("k8s.io/deprecated", || "true");
}

/// The values of [`ABOUT`].
fn about(ctx: &RequestContext) -> [&str; 7] {
    let info = &ctx.info;
    if !info.is_resource {
        let subresource = non_resource::known_path(&info.path);
        return [COMPONENT, "", "", "", subresource, verb(ctx), ""];
    }
    let found = ctx.server.resources.get(&info.group, &info.version, &info.resource);
    let Some(resource) = found else { return [COMPONENT, "", "", "", "", verb(ctx), ""] };
    let is_about_one = !info.name.is_empty() || info.verb == "create";
    let scope = match (is_about_one, info.namespace.is_empty()) {
        (true, _) => "resource",
        (_, false) => "namespace",
        _ => "cluster",
    };
    let sub = resource.definition.subresource(&info.subresource).map_or("", |sub| sub.name);
    [COMPONENT, &info.group, &info.resource, scope, sub, verb(ctx), &info.version]
}

/// Upstream's word for what a request does.
fn verb(ctx: &RequestContext) -> &'static str {
    let info = &ctx.info;
    if proxy::is_long_running(info) && info.subresource != "log" {
        return "CONNECT";
    }
    let media = ctx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match info.verb.as_str() {
        "patch" if media.is_some_and(|media| media.starts_with("application/apply-patch")) => {
            "APPLY"
        }
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "other",
    }
}

/// Which of the cluster's own parts asked; the users in front of them are not told apart.
fn system_client(user: &str) -> &'static str {
    match user {
        "system:kube-controller-manager" => "kube-controller-manager",
        "system:kube-scheduler" => "kube-scheduler",
        _ => "",
    }
}
