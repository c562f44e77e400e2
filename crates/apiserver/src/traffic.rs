//! How many requests are worked on at once, and who has to wait.
//!
//! With priority and fairness, every request but those that last on purpose waits for seats of its
//! level. A watch gives its seats back when it has begun. Components in this process wait as others
//! do when they ask for something to be done; their lists and watches share what the cache has, and
//! take no seats. Without it, there is a limit for reads and one for writes.

use std::sync::Arc;
use std::time::Duration;

use authn::UserInfo;
use clock::SharedClock;
use flowcontrol::{Digest, FlowControl, ListSize, Part, Rejection, Watched, Width};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::context::RequestContext;
use crate::{non_resource, proxy};
use connection::Body;

/// A quarter of upstream's time for a request, as upstream has it.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Objects that are looked at to know how large one is.
const SAMPLE: usize = 4;

/// Who may pass, and when.
pub(crate) enum Traffic {
    /// By flow schemas and priority levels.
    Fair(Arc<FlowControl>),
    /// By number alone; `None` is no limit.
    Counted { reads: Option<Arc<Semaphore>>, writes: Option<Arc<Semaphore>> },
}

/// Leave to go on; kept while the request is worked on.
pub(crate) enum Permit {
    /// For requests that are not counted.
    Free,
    /// Seats of a priority level.
    Seats { _seats: flowcontrol::Seats },
    /// One of so many.
    Counted { _permit: OwnedSemaphorePermit },
}

impl Traffic {
    pub(crate) fn new(config: &Config, clock: &SharedClock, metrics: &telemetry::Registry) -> Self {
        let (reads, writes) = (config.max_requests_inflight, config.max_mutating_requests_inflight);
        if config.enable_priority_and_fairness {
            let seats = reads.saturating_add(writes);
            let control = FlowControl::new(seats, WAIT_MAX, clock.clone(), metrics);
            return Self::Fair(Arc::new(control));
        }
        let limit = |count: u32| {
            let count = usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS);
            (count > 0).then(|| Arc::new(Semaphore::new(count)))
        };
        Self::Counted { reads: limit(reads), writes: limit(writes) }
    }

    /// Flow control, if it is on.
    pub(crate) fn flow_control(&self) -> Option<&Arc<FlowControl>> {
        match self {
            Self::Fair(control) => Some(control),
            Self::Counted { .. } => None,
        }
    }

    /// Waits until the request may be worked on. Safe to drop.
    pub(crate) async fn admit(&self, ctx: &mut RequestContext) -> Result<Permit, Rejection> {
        if proxy::is_long_running(&ctx.info) || non_resource::is_long_running(&ctx.info) {
            return Ok(Permit::Free);
        }
        match self {
            Self::Fair(control) => {
                let (flow, seats) = {
                    let of = control.classify(&digest(ctx));
                    let width = width(ctx, control, of.seats_max());
                    (of.flow(), control.admit(&of, width).await)
                };
                ctx.flow = Some(flow);
                Ok(Permit::Seats { _seats: seats? })
            }
            Self::Counted { reads, writes } => {
                let is_read = matches!(ctx.info.verb.as_str(), "get" | "list" | "head");
                let limit = if is_read { reads } else { writes };
                let is_free = ctx.info.verb == "watch" || ctx.user.is_in(UserInfo::MASTERS);
                let Some(limit) = limit.as_ref().filter(|_| !is_free) else {
                    return Ok(Permit::Free);
                };
                let permit = limit.clone().try_acquire_owned();
                let permit = permit.map_err(|_| Rejection { reason: "concurrency-limit" })?;
                Ok(Permit::Counted { _permit: permit })
            }
        }
    }

    /// Does the work of a request. Whose flow uses more than its share is served aside from then on.
    pub(crate) async fn work<T>(&self, ctx: &RequestContext, work: impl Future<Output = T>) -> T {
        let flow = ctx.flow.as_ref().and_then(flowcontrol::Flow::key);
        match (self.flow_control(), flow) {
            (Some(control), Some(flow)) => {
                let shares = control.shares();
                if let Some(lane) = &ctx.lane {
                    shares.add(flow, lane.take_used());
                    lane.serve_aside(shares.is_exceeded(flow));
                }
                shares.charge(flow, work).await
            }
            _ => work.await,
        }
    }

    /// Counts a watch that has begun, for as long as it lasts.
    pub(crate) fn watched(&self, ctx: &RequestContext) -> Option<Watched> {
        let control = self.flow_control().filter(|_| ctx.info.verb == "watch")?;
        Some(control.watches().open(resource(ctx), &ctx.info.namespace, part(ctx)))
    }
}

/// 429 as upstream gives it: not as a `Status`.
pub(crate) fn too_many() -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = Response::new(Body::from(text.as_bytes().to_vec()));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// What a watch is about. Only pods are found by their node.
fn part(ctx: &RequestContext) -> Part {
    let info = &ctx.info;
    if !info.name.is_empty() {
        return Part::Name(info.name.clone());
    }
    let node = info.fields.iter().find(|(field, _)| field == "spec.nodeName");
    match node {
        Some((_, node)) if info.group.is_empty() && info.resource == "pods" => {
            Part::Node(node.clone())
        }
        _ => Part::All,
    }
}

fn digest(ctx: &RequestContext) -> Digest<'_> {
    let info = &ctx.info;
    Digest {
        user: &ctx.user.name,
        groups: &ctx.user.groups,
        verb: &info.verb,
        is_resource: info.is_resource,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        path: &info.path,
    }
}

/// How many seats a request needs.
fn width(ctx: &RequestContext, control: &FlowControl, max: u32) -> Width {
    let info = &ctx.info;
    match info.verb.as_str() {
        "list" if info.name.is_empty() => Width::of_list(&list_size(ctx), max),
        "watch" if ctx.query.flag("sendInitialEvents") => Width::of_list(&list_size(ctx), max),
        "create" | "update" | "patch" | "delete" if ctx.method != Method::GET => {
            let watches = control.watches();
            let watchers = watches.interested(&resource(ctx), &info.namespace, &info.name);
            Width::of_write(watchers, max)
        }
        _ => Width::ONE,
    }
}

fn list_size(ctx: &RequestContext) -> ListSize {
    let info = &ctx.info;
    let found = ctx.server.resources.get(&info.group, &info.version, &info.resource);
    let Some(storage) = found.and_then(|resource| resource.storage.clone()) else {
        return ListSize::default();
    };
    let map = storage.cache.snapshot(0).map;
    let sample = map.values().take(SAMPLE).map(|object| object.json().len() as u64);
    let (sum, count) = sample.fold((0_u64, 0), |(sum, count), bytes| (sum + bytes, count + 1));
    let limit = ctx.query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(0);
    ListSize { objects: map.len() as u64, object_bytes: sum.checked_div(count).unwrap_or(0), limit }
}

/// `pods`, or `deployments.apps`.
fn resource(ctx: &RequestContext) -> String {
    match ctx.info.group.as_str() {
        "" => ctx.info.resource.clone(),
        group => format!("{}.{group}", ctx.info.resource),
    }
}
