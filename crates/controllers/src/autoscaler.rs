//! Scales what HorizontalPodAutoscalers name, by what is measured.
//!
//! `sources` and `metrics` ask the metrics APIs, `replicas` says how many replicas a measured value
//! asks for, `behavior` how fast a target may follow; the latter two are pure.
//!
//! Upstream: `pkg/controller/podautoscaler/horizontal.go`.

mod ambiguity;
mod behavior;
mod metrics;
mod replicas;
mod sources;
mod zero;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{
    Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding, ResourcePath,
    WorkQueue,
};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, MetricSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::{LabelSelector, ObjectKey};
use serde_json::{Value, json};

use self::ambiguity::Selectors;
use self::behavior::{Past, normalize};
use self::sources::{Failure, Measured};
use self::zero::{SCALED_TO_ZERO, Zero};
use crate::context::Context;
use crate::reconcile::work;
use crate::scale_target::{ScaleTarget, ScaleTargets};
use crate::selection::key_of;

/// How often targets are looked at: upstream's `--horizontal-pod-autoscaler-sync-period`. No event
/// tells of a measurement.
const PERIOD: Duration = Duration::from_secs(15);
/// Upstream's `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// Why a target gets the fewest replicas that it may have.
const TOO_FEW: &str = "Current number of replicas below Spec.MinReplicas";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("horizontal-pod-autoscaler");
    let controller = Arc::new(Controller {
        queue: ctx.queue("horizontalpodautoscaler"),
        recorder: ctx.recorder(&client, "horizontal-pod-autoscaler"),
        targets: ScaleTargets::new(client.clone()),
        past: Mutex::default(),
        selectors: Selectors::default(),
        client,
        ctx,
    });
    let autoscalers = &controller.ctx.informers.autoscalers;
    autoscalers.synced().await;
    let this = Arc::clone(&controller);
    autoscalers.on_change(move |key, change| match change {
        Change::Added(_) => {
            this.ctx.counts.autoscaler.number.inc();
            this.queue.add(key.clone());
        }
        // Its own status does not concern it.
        Change::Updated { old, new } if old.spec != new.spec => this.queue.add(key.clone()),
        Change::Updated { .. } => {}
        Change::Deleted(_) => {
            let counts = &this.ctx.counts.autoscaler;
            counts.number.dec();
            // It may never have been known.
            drop(counts.desired.remove_label_values(&[&key.name, &key.namespace]));
            this.past.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            this.selectors.remove(key);
        }
    });
    work(&controller, &controller.queue, &controller.ctx.shutdown, |this, key| async move {
        this.sync(&key).await
    })
    .await;
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    targets: ScaleTargets,
    past: Mutex<HashMap<ObjectKey, Past>>,
    selectors: Selectors,
}

/// One look at one autoscaler.
struct Pass<'a> {
    controller: &'a Controller,
    autoscaler: &'a HorizontalPodAutoscaler,
    now: Timestamp,
    conditions: Vec<HorizontalPodAutoscalerCondition>,
    metrics: Vec<Value>,
    /// What is done and whether something could not be, as metrics call it.
    action: &'static str,
    failed: bool,
}

/// What metrics come to: replicas and the name of the one that asks for most.
struct Wanted {
    replicas: i32,
    metric: String,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(autoscaler) = self.ctx.informers.autoscalers.get(key) else {
            return Ok(Outcome::Done);
        };
        let status = autoscaler.status.clone().unwrap_or_default();
        let mut pass = Pass {
            controller: self,
            autoscaler: &autoscaler,
            now: self.ctx.clock.now(),
            conditions: status.conditions.unwrap_or_default(),
            metrics: Vec::new(),
            action: "none",
            failed: false,
        };
        let begun = self.ctx.clock.monotonic();
        let done = pass.run(key).await;
        let labels = [pass.action, if done.is_err() || pass.failed { "internal" } else { "none" }];
        let counts = &self.ctx.counts.autoscaler;
        counts.reconciliations.with_label_values(&labels).inc();
        let took = self.ctx.clock.monotonic().duration_since(begun).as_secs_f64();
        counts.reconciliation_seconds.with_label_values(&labels).observe(took);
        done?;
        Ok(Outcome::RequeueAfter(PERIOD))
    }
}

impl Pass<'_> {
    async fn run(&mut self, key: &ObjectKey) -> Result<(), ClientError> {
        let spec = self.autoscaler.spec.clone();
        let reference = &spec.scale_target_ref;
        let api_version = reference.api_version.as_deref().unwrap_or("v1");
        let targets = &self.controller.targets;
        let found = targets.get(api_version, &reference.kind, &key.namespace, &reference.name);
        let target = match found.await {
            Ok(Some(target)) => target,
            result => {
                let why = match result {
                    Err(error) => error.to_string(),
                    Ok(_) => format!("{} {:?} not found", reference.kind, reference.name),
                };
                self.event(EventType::Warning, "FailedGetScale", why.clone());
                let text = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                self.set("AbleToScale", "False", "FailedGetScale", text);
                self.failed = true;
                return self.write(None, None).await;
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", "True", "SucceededGetScale", text.to_owned());
        let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let current = target.replicas;
        let zero = self.zero();
        let (desired, reason) = match current {
            0 if !zero.may_return() => {
                let text = "scaling is disabled since the replica count of the target is zero";
                self.set("ScalingActive", "False", "ScalingDisabled", text.to_owned());
                if !zero.is_open {
                    self.conditions.retain(|condition| condition.type_ != SCALED_TO_ZERO);
                }
                (0, String::new())
            }
            current if current > most => {
                (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
            }
            current if current < least && current != 0 => (least, TOO_FEW.to_owned()),
            current => match self.measure(key, &target).await {
                Err(why) => {
                    self.failed = true;
                    self.event(EventType::Warning, "FailedComputeMetricsReplicas", why);
                    return self.write(Some(&target), Some((current, false))).await;
                }
                Ok(wanted) => {
                    let reason = match wanted.replicas.cmp(&current) {
                        Ordering::Greater => format!("{} above target", wanted.metric),
                        Ordering::Less => "All metrics below target".to_owned(),
                        Ordering::Equal => String::new(),
                    };
                    match self.bound(key, current, wanted.replicas) {
                        // A behavior limits only what changes.
                        bound if current == 0 && bound < least => {
                            (least, if reason.is_empty() { TOO_FEW.to_owned() } else { reason })
                        }
                        bound => (bound, reason),
                    }
                }
            },
        };
        if desired == current {
            return self.write(Some(&target), Some((desired, false))).await;
        }
        self.rescale(key, &target, desired, &reason).await
    }

    fn zero(&self) -> Zero {
        Zero::of(self.autoscaler, &self.controller.ctx.config.features)
    }

    /// Applies windows, rates and bounds.
    fn bound(&mut self, key: &ObjectKey, current: i32, recommended: i32) -> i32 {
        let spec = self.autoscaler.spec.clone();
        let mut all = self.controller.past.lock().unwrap_or_else(PoisonError::into_inner);
        let past = all.entry(key.clone()).or_default();
        past.trim(self.now);
        // What it is at first is as good as recommended: a restart is no reason to shrink.
        if past.recommended.is_empty() {
            past.recommended.push((self.now, current));
        }
        let normalized = normalize(&spec, past, current, recommended, self.now);
        drop(all);
        let (reason, text) = normalized.able;
        self.set("AbleToScale", "True", reason, text.to_owned());
        let (is_limited, (reason, text)) = normalized.limited;
        let flag = if is_limited { "True" } else { "False" };
        self.set("ScalingLimited", flag, reason, text.to_owned());
        normalized.replicas
    }

    async fn rescale(
        &mut self,
        key: &ObjectKey,
        target: &ScaleTarget,
        desired: i32,
        reason: &str,
    ) -> Result<(), ClientError> {
        self.action = direction(target.replicas, desired);
        let size = format!("New size: {desired}; reason: {reason}");
        if let Err(error) = self.controller.targets.set(target, desired).await {
            let text = format!("{size}; error: {error}");
            self.event(EventType::Warning, "FailedRescale", text);
            let text = format!("the HPA controller was unable to update the target scale: {error}");
            self.set("AbleToScale", "False", "FailedUpdateScale", text);
            self.write(Some(target), Some((target.replicas, false))).await?;
            return Err(error);
        }
        let text = format!("the HPA controller was able to update the target scale to {desired}");
        self.set("AbleToScale", "True", "SucceededRescale", text);
        self.event(EventType::Normal, "SuccessfulRescale", size);
        match self.zero().after(target.replicas, desired) {
            Some((is_scaled, (reason, text))) => {
                let flag = if is_scaled { "True" } else { "False" };
                self.set(SCALED_TO_ZERO, flag, reason, text.to_owned());
            }
            None => self.conditions.retain(|condition| condition.type_ != SCALED_TO_ZERO),
        }
        {
            let mut all = self.controller.past.lock().unwrap_or_else(PoisonError::into_inner);
            let past = all.entry(key.clone()).or_default();
            past.changes.push((self.now, desired - target.replicas));
        }
        self.write(Some(target), Some((desired, true))).await
    }

    /// Asks all metrics; one that fails counts for nothing as long as another one asks for more
    /// than there is.
    async fn measure(&mut self, key: &ObjectKey, target: &ScaleTarget) -> Result<Wanted, String> {
        if target.selector.is_empty() {
            let text = "selector is required".to_owned();
            self.event(EventType::Warning, "SelectorRequired", text.clone());
            let why = "the HPA target's scale is missing a selector";
            self.set("ScalingActive", "False", "InvalidSelector", why.to_owned());
            return Err(text);
        }
        self.select(key, target)?;
        let spec = self.autoscaler.spec.clone();
        let list = spec.metrics.unwrap_or_default();
        let mut wanted = Wanted { replicas: 0, metric: String::new() };
        let mut failures: Vec<Failure> = Vec::new();
        for metric in &list {
            let begun = self.controller.ctx.clock.monotonic();
            let answer = self.ask(key, target, metric).await;
            self.count(metric, target, &answer, begun);
            match answer {
                Ok(measured) => {
                    self.metrics.push(measured.status);
                    if wanted.replicas == 0 || measured.replicas > wanted.replicas {
                        wanted = Wanted { replicas: measured.replicas, metric: measured.name };
                    }
                }
                Err(failure) => {
                    self.event(EventType::Warning, failure.reason, failure.why.clone());
                    failures.push(failure);
                }
            }
        }
        if let Some(Failure { reason, why, first }) = failures.first()
            && (failures.len() == list.len() || wanted.replicas < target.replicas)
        {
            let text = format!("the HPA was unable to compute the replica count: {why}");
            self.set("ScalingActive", "False", reason, text);
            return Err(format!(
                "invalid metrics ({} invalid out of {}), first error is: {first}",
                failures.len(),
                list.len()
            ));
        }
        let text = format!(
            "the HPA was able to successfully calculate a replica count from {}",
            wanted.metric
        );
        self.set("ScalingActive", "True", "ValidMetricFound", text);
        Ok(wanted)
    }

    fn count(
        &self,
        metric: &MetricSpec,
        target: &ScaleTarget,
        answer: &Result<Measured, Failure>,
        begun: Instant,
    ) {
        let (action, error) = match answer {
            Ok(measured) => (direction(target.replicas, measured.replicas), "none"),
            Err(failure) if failure.reason == "InvalidMetricSourceType" => ("none", "spec"),
            Err(_) => ("none", "internal"),
        };
        let labels = [action, error, metric.type_.as_str()];
        let Controller { ctx, .. } = self.controller;
        let counts = &ctx.counts.autoscaler;
        counts.computations.with_label_values(&labels).inc();
        let took = ctx.clock.monotonic().duration_since(begun).as_secs_f64();
        counts.computation_seconds.with_label_values(&labels).observe(took);
    }

    /// Makes sure that the target's pods are known, and nobody else's.
    fn select(&mut self, key: &ObjectKey, target: &ScaleTarget) -> Result<(), String> {
        let selector = LabelSelector::parse(&target.selector).map_err(|error| {
            let text = format!(
                "couldn't convert selector into a corresponding internal selector object: {error}"
            );
            ("InvalidSelector", text)
        });
        let claimed = selector.and_then(|selector| {
            let Controller { ctx, selectors, .. } = self.controller;
            let pods = ctx.informers.pods.list_namespace(&key.namespace);
            let claimed = selectors.claim(key, &target.selector, selector, &pods);
            claimed.map_err(|text| ("AmbiguousSelector", text))
        });
        claimed.map_err(|(reason, text)| {
            self.event(EventType::Warning, reason, text.clone());
            self.set("ScalingActive", "False", reason, text.clone());
            text
        })
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let mut next = HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(self.now)),
        };
        match self.conditions.iter_mut().find(|known| known.type_ == kind) {
            None => self.conditions.push(next),
            Some(known) => {
                if known.status == next.status {
                    next.last_transition_time = known.last_transition_time.clone();
                }
                *known = next;
            }
        }
    }

    /// Writes the status: with the target's replicas, if there are any, and those that are wanted,
    /// with whether they are new.
    async fn write(
        &self,
        target: Option<&ScaleTarget>,
        desired: Option<(i32, bool)>,
    ) -> Result<(), ClientError> {
        let known = self.autoscaler.status.clone().unwrap_or_default();
        let mut status = json!({
            "conditions": self.conditions,
            "observedGeneration": self.autoscaler.metadata.generation,
        });
        if let Some(target) = target {
            status["currentReplicas"] = target.status_replicas.into();
            status["currentMetrics"] =
                if self.metrics.is_empty() { Value::Null } else { self.metrics.clone().into() };
        }
        if let Some((desired, is_new)) = desired {
            status["desiredReplicas"] = desired.into();
            let meta = &self.autoscaler.metadata;
            let labels = [&meta.name, &meta.namespace].map(|text| text.as_deref().unwrap_or(""));
            let gauge = &self.controller.ctx.counts.autoscaler.desired;
            gauge.with_label_values(&labels).set(desired.into());
            if is_new {
                status["lastScaleTime"] = json!(Time(self.now));
            }
        }
        let before = serde_json::to_value(&known).unwrap_or_default();
        let fields = status.as_object().into_iter().flatten();
        if fields.into_iter().all(|(name, value)| before[name] == *value) {
            return Ok(());
        }
        let key = key_of(&self.autoscaler.metadata);
        let change =
            json!({ "metadata": { "uid": self.autoscaler.metadata.uid }, "status": status });
        let path = ResourcePath::of::<HorizontalPodAutoscaler>();
        let api = self.controller.client.dynamic::<Value>(path, &key.namespace);
        match api.merge_update(&key.name, "status", &change).await {
            Err(error) if !error.is_not_found() => {
                self.event(EventType::Warning, "FailedUpdateStatus", error.to_string());
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn event(&self, kind: EventType, reason: &str, text: String) {
        let regarding = Regarding::object(self.autoscaler);
        self.controller.recorder.record(&regarding, kind, reason, text);
    }
}

/// Which way a target goes, as metrics call it.
fn direction(from: i32, to: i32) -> &'static str {
    match to.cmp(&from) {
        Ordering::Greater => "scale_up",
        Ordering::Less => "scale_down",
        Ordering::Equal => "none",
    }
}
