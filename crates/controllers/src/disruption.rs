//! Says how many of the pods that a PodDisruptionBudget selects may be disrupted, and takes back
//! announcements of disruptions that did not come.
//!
//! The API server charges evictions to the budgets; `assess` is the pure core here, `scale` finds
//! out how many pods there should be.

mod assess;
mod scale;

use std::sync::Arc;
use std::time::Duration;

use client::{
    Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding, WorkQueue,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use meta::{LabelSelector, ObjectKey};
use serde_json::json;

use self::assess::{Assessment, Expected, assess, failed, needs_scale};
use self::scale::{Scales, Unknown};
use crate::context::Context;
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::scale_target::ScaleTargets;
use crate::selection::{key_of, selector};

/// How long a pod may be announced as disrupted without going: upstream
/// `stalePodDisruptionTimeout`.
const STALE: SignedDuration = SignedDuration::from_mins(2);

/// A budget and its selector, which every change of a pod is compared with.
pub(crate) struct BudgetView {
    budget: PodDisruptionBudget,
    selector: LabelSelector,
}

impl BudgetView {
    pub(crate) fn new(budget: PodDisruptionBudget) -> Self {
        let wanted = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // No selector selects nothing, an empty one everything.
        let selector = wanted.map_or_else(LabelSelector::nothing, |wanted| selector(Some(wanted)));
        Self { budget, selector }
    }
}

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("disruption-controller");
    let informers = Arc::clone(&ctx.informers);
    let controller = Arc::new(Controller {
        queue: ctx.queue("disruption"),
        stale: ctx.queue("stale_pod_disruption"),
        recorder: ctx.recorder(&client, "controllermanager"),
        scales: Scales {
            informers: Arc::clone(&informers),
            others: ScaleTargets::new(client.clone()),
        },
        client,
        ctx,
    });
    tokio::join!(
        informers.disruption_budgets.synced(),
        informers.pods.synced(),
        informers.replica_sets.synced(),
        informers.replication_controllers.synced(),
        informers.deployments.synced(),
        informers.stateful_sets.synced()
    );
    controller.follow();
    let shutdown = controller.ctx.shutdown.clone();
    tokio::join!(
        work(&controller, &controller.queue, &shutdown, |this, key| async move {
            this.sync(&key).await
        }),
        work(&controller, &controller.stale, &shutdown, |this, key| async move {
            this.clear_stale(&key).await
        }),
    );
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    /// Pods whose condition DisruptionTarget may not be true for long.
    stale: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    scales: Scales,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.disruption_budgets.on_change(move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                this.queue.add(key.clone());
            }
        });
        let this = Arc::clone(self);
        informers.pods.on_change(move |key, change| this.pod_changed(key, &change));
    }

    fn pod_changed(&self, key: &ObjectKey, change: &Change<'_, PodView>) {
        let (old, new) = match change {
            Change::Added(pod) | Change::Deleted(pod) => (*pod, *pod),
            Change::Updated { old, new } => (*old, *new),
        };
        let mut selecting = Vec::new();
        for view in self.ctx.informers.disruption_budgets.list_namespace(&key.namespace) {
            let is_selected = new.matches(&view.selector);
            if is_selected || old.matches(&view.selector) {
                self.queue.add(key_of(&view.budget.metadata));
            }
            if is_selected {
                selecting.push(view);
            }
        }
        let is_new = matches!(change, Change::Added(_)) || old.labels != new.labels;
        if let [first, _, ..] = &selecting[..]
            && is_new
        {
            let chosen = first.budget.metadata.name.as_deref().unwrap_or_default();
            let text = format!(
                "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {chosen:?} \
                 arbitrarily.",
                key.namespace, key.name
            );
            let reason = "MultiplePodDisruptionBudgets";
            self.recorder.record(&regarding(new), EventType::Warning, reason, text);
        }
        if !matches!(change, Change::Deleted(_)) && self.stale_in(new).is_some() {
            self.stale.add(key.clone());
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(view) = self.ctx.informers.disruption_budgets.get(key) else {
            return Ok(Outcome::Done);
        };
        let pods = self.ctx.informers.pods.list_namespace(&key.namespace);
        let pods: Vec<_> = pods.into_iter().filter(|pod| pod.matches(&view.selector)).collect();
        if pods.is_empty() {
            self.event(&view, EventType::Normal, "NoPods", "No matching pods found".to_owned());
        }
        let now = self.ctx.clock.now();
        let expected = match self.expected(&view, &pods).await {
            Ok(expected) => expected,
            Err(error) => {
                let text = format!("Failed to calculate the number of expected pods: {error}");
                let reason = "CalculateExpectedPodCountFailed";
                self.event(&view, EventType::Warning, reason, text);
                if let Some(status) = failed(&view.budget, &error.to_string(), now) {
                    self.write(&view, status).await?;
                }
                // What is missing may be in the cache a moment later.
                return Ok(Outcome::Requeue);
            }
        };
        let Assessment { status, late, recheck } = assess(&view.budget, &pods, expected, now);
        for pod in late {
            let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.record(&regarding(&pod), EventType::Warning, "NotDeleted", text);
        }
        if let Some(status) = status {
            self.write(&view, status).await?;
        }
        Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    async fn expected(
        &self,
        view: &BudgetView,
        pods: &[Arc<PodView>],
    ) -> Result<Expected, Unknown> {
        let spec = view.budget.spec.clone().unwrap_or_default();
        if !needs_scale(&spec) {
            return Ok(Expected::new(&spec, pods.len(), 0));
        }
        let scaled = self.scales.of(pods).await?;
        if !scaled.unmanaged.is_empty() {
            let text = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be \
                 unmanaged. As a result, the status of the PDB cannot be calculated correctly, \
                 which may result in undefined behavior. To account for these pods please set \
                 \".spec.minAvailable\" field of the PDB to an integer value.",
                crate::selection::go(spec.selector.as_ref())
            );
            self.event(view, EventType::Warning, "UnmanagedPods", text);
        }
        Ok(Expected::new(&spec, pods.len(), scaled.total))
    }

    /// Writes against the version that was read: the API server charges evictions meanwhile.
    async fn write(
        &self,
        view: &BudgetView,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ClientError> {
        let budget = PodDisruptionBudget { status: Some(status), ..view.budget.clone() };
        let namespace = budget.metadata.namespace.clone().unwrap_or_default();
        match self.client.api::<PodDisruptionBudget>(&namespace).update_status(&budget).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// How long a pod's announcement may stay; nothing if it has none that could be too old.
    fn stale_in(&self, pod: &PodView) -> Option<Duration> {
        let since = pod.disrupted.filter(|_| pod.is_active())?;
        let left = (since + STALE).duration_since(self.ctx.clock.now());
        Some(Duration::try_from(left).unwrap_or_default())
    }

    async fn clear_stale(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.ctx.informers.pods.get(key) else { return Ok(Outcome::Done) };
        match self.stale_in(&pod) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::RequeueAfter(left)),
            Some(_) => {}
        }
        let patch = json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [{
            "type": api::pod::DISRUPTION_TARGET, "status": "False", "reason": null,
            "message": null, "lastTransitionTime": meta::time::rfc3339(self.ctx.clock.now()) }] } });
        let api = self.client.api::<Pod>(&key.namespace);
        let patch = client::Patch::Strategic(patch);
        match api.patch_subresource(&key.name, "status", &patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }

    fn event(&self, view: &BudgetView, kind: EventType, reason: &str, text: String) {
        self.recorder.record(&Regarding::object(&view.budget), kind, reason, text);
    }
}

fn regarding(pod: &PodView) -> Regarding {
    Regarding {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: pod.key.namespace.clone(),
        name: pod.key.name.clone(),
        uid: pod.uid.clone(),
        ..Regarding::default()
    }
}
