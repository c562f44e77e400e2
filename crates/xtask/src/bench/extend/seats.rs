//! What it takes to tell a request's flow, and to take and give back its seat.

use std::time::Duration;

use anyhow::Context;
use clock::{Clock, SystemClock};
use flowcontrol::{Digest, FlowControl, Width};
use futures::FutureExt;
use serde_json::Value;

use crate::bench::Figure;

const REQUESTS: u32 = 500_000;

/// Requests of a service account, which all but the last few schemas are tried for.
pub(super) fn measure() -> anyhow::Result<Figure> {
    let clock = std::sync::Arc::new(SystemClock);
    let registry = telemetry::Registry::new();
    let control = FlowControl::new(600, Duration::from_secs(15), clock, &registry);
    let of = |resource: &str| -> Vec<Value> {
        let wanted = flowcontrol::wanted().into_iter();
        wanted.filter(|one| one.resource == resource).map(|one| one.object).collect()
    };
    control.configure(&of("flowschemas"), &of("prioritylevelconfigurations"));
    let groups = ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"];
    let groups = groups.map(str::to_owned);
    let digest = Digest {
        user: "system:serviceaccount:a:b",
        groups: &groups,
        verb: "get",
        is_resource: true,
        group: "",
        resource: "pods",
        subresource: "",
        namespace: "default",
        path: "/api/v1/namespaces/default/pods/p",
    };
    let begun = SystemClock.monotonic();
    for _ in 0..REQUESTS {
        let of = control.classify(&digest);
        let seats = control.admit(&of, Width::ONE).now_or_never();
        drop(seats.context("there are seats")?);
    }
    let took = SystemClock.monotonic().saturating_duration_since(begun);
    let micros = took.as_secs_f64() * 1e6 / f64::from(REQUESTS);
    Ok(Figure::new("priority and fairness, for each request", format!("{micros:.2} µs")))
}
