//! Makes the claims for devices of pods that name templates, notes which pods use a claim, and
//! gives the devices back when the last of them has gone.
//!
//! Upstream: `pkg/controller/resourceclaim/controller.go`.

mod claim_counts;
mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::finalizers::RESOURCE_CLAIM;
use client::{
    Change, Client, ClientError, DeleteOptions, EventRecorder, EventType, ListOptions, Outcome,
    Patch, WorkQueue,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use meta::{ObjectKey, Reason, Status};
use serde_json::{Value, json};

use self::claim_counts::ClaimCounts;
use self::plan::Wish;
use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::pod_devices::Named;
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::selection::{controller_of, key_of};

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("resource-claim-controller");
    ctx.measure(ClaimCounts::new(Arc::clone(&ctx.informers)));
    let controller = Arc::new(Controller {
        pods: ctx.queue("resource_claim"),
        claims: ctx.queue("resource_claim_consumers"),
        recorder: ctx.recorder(&client, "resource_claim"),
        made: Mutex::default(),
        client,
        ctx,
    });
    let informers = &controller.ctx.informers;
    tokio::join!(informers.pods.synced(), informers.device_claims.synced());
    controller.follow();
    let shutdown = controller.ctx.shutdown.clone();
    tokio::join!(
        work(&controller, &controller.pods, &shutdown, |this, key| async move {
            this.sync_pod(&key).await
        }),
        work(&controller, &controller.claims, &shutdown, |this, key| async move {
            this.sync_claim(&key).await
        }),
    );
}

/// Uid of a pod, and an entry of its spec.
type Entry = (String, String);

struct Controller {
    ctx: Context,
    pods: WorkQueue<ObjectKey>,
    claims: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    /// Claims that were made and that the cache does not have yet: or else a status that could not
    /// be written would have another one made.
    made: Mutex<HashMap<Entry, String>>,
}

/// Why an entry has no claim; the text is the event's.
struct Refusal {
    text: String,
    cause: ClientError,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.pods.on_change(move |key, change| {
            let is_gone = matches!(change, Change::Deleted(_));
            let (Change::Added(pod) | Change::Deleted(pod) | Change::Updated { new: pod, .. }) =
                &change;
            let Some(devices) = &pod.devices else { return };
            if let Change::Updated { old, new } = &change
                && old.devices == new.devices
                && old.node == new.node
                && plan::is_done(old) == plan::is_done(new)
            {
                return;
            }
            if is_gone || plan::is_done(pod) {
                for claim in devices.claims() {
                    this.claims.add(ObjectKey::new(&key.namespace, claim));
                }
            }
            if is_gone {
                this.made().retain(|(uid, _), _| *uid != pod.uid);
            } else {
                this.pods.add(key.clone());
            }
        });
        let this = Arc::clone(self);
        informers.device_claims.on_change(move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                this.claims.add(key.clone());
            }
            if let Change::Added(_) = change {
                this.made().retain(|_, name| *name != key.name);
            }
            for pod in this.ctx.informers.pod_index.with_device_claim(key) {
                this.pods.add(pod.key.clone());
            }
        });
    }

    fn made(&self) -> MutexGuard<'_, HashMap<Entry, String>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<ResourceClaim>> {
        self.ctx.informers.device_claims.get(&ObjectKey::new(namespace, name))
    }

    async fn sync_pod(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.ctx.informers.pods.get(key) else { return Ok(Outcome::Done) };
        if pod.devices.is_none() || pod.deleted.is_some() || pod.is_terminal() {
            return Ok(Outcome::Done);
        }
        let names = self.make_claims(&pod).await?;
        if !names.is_empty() {
            let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.uid },
                "status": { "resourceClaimStatuses": names } }));
            let api = self.client.api::<Pod>(&key.namespace);
            match api.patch_subresource(&key.name, "status", &patch).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        // Of pods without a node the scheduler notes what they use.
        if !pod.node.is_empty() {
            self.reserve(&pod).await?;
        }
        Ok(Outcome::Done)
    }

    /// Makes what is missing; what the pod's status should say.
    async fn make_claims(&self, pod: &PodView) -> Result<Vec<Value>, ClientError> {
        let mut owned: Vec<(String, String)> = Vec::new();
        for claim in self.ctx.informers.device_claims.list_namespace(&pod.key.namespace) {
            let annotations = claim.metadata.annotations.as_ref();
            if let Some(entry) = api::volumes::annotation(annotations, plan::ENTRY)
                && plan::is_of(&claim, pod)
            {
                owned.push((entry.to_owned(), claim.metadata.name.clone().unwrap_or_default()));
            }
        }
        for ((uid, entry), name) in self.made().iter() {
            if *uid == pod.uid {
                owned.push((entry.clone(), name.clone()));
            }
        }
        let is_ours = |name: &str| {
            let claim = self.claim(&pod.key.namespace, name);
            claim.is_some_and(|claim| plan::is_of(&claim, pod))
        };
        let mut names = Vec::new();
        for entry in pod.devices.iter().flat_map(|devices| &devices.wanted) {
            let claim = match plan::wish(entry, is_ours, &owned) {
                Wish::Settled => continue,
                Wish::Found(name) => name.to_owned(),
                Wish::Make(template) => match self.make(pod, &entry.name, template).await {
                    Ok(name) => name,
                    Err(Refusal { text, cause }) => {
                        let text = format!("PodResourceClaim {}: {text}", entry.name);
                        let regarding = pod.regarding();
                        let reason = "FailedResourceClaimCreation";
                        self.recorder.record(&regarding, EventType::Warning, reason, text);
                        return Err(cause);
                    }
                },
            };
            if entry.claim != Named::Made(claim.clone()) {
                names.push(json!({ "name": entry.name, "resourceClaimName": claim }));
            }
        }
        Ok(names)
    }

    async fn make(&self, pod: &PodView, entry: &str, template: &str) -> Result<String, Refusal> {
        let namespace = &pod.key.namespace;
        let found = self.template(namespace, template).await.map_err(|cause| Refusal {
            text: format!("resource claim template {template:?}: {cause}"),
            cause,
        })?;
        let claim = plan::make(pod, entry, &found);
        let made = self.client.api::<ResourceClaim>(namespace).create(&claim).await;
        self.count(&found, made.is_ok());
        // Upstream names the claim here, which has no name yet.
        let made = made
            .map_err(|cause| Refusal { text: format!("create ResourceClaim : {cause}"), cause })?;
        let name = made.metadata.name.unwrap_or_default();
        if self.claim(namespace, &name).is_none() {
            self.made().insert((pod.uid.clone(), entry.to_owned()), name.clone());
        }
        Ok(name)
    }

    /// The controller itself may read no templates: upstream's are the shared informers' as well.
    async fn template(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<ResourceClaimTemplate, ClientError> {
        let api = self.ctx.manager.api::<ResourceClaimTemplate>(namespace);
        let found = api.list(&ListOptions::fields(format!("metadata.name={name}"))).await?;
        found.into_iter().next().ok_or_else(|| {
            let text = format!("resourceclaimtemplate.resource.k8s.io {name:?} not found");
            Status::failure(Reason::NotFound, text).into()
        })
    }

    fn count(&self, template: &ResourceClaimTemplate, is_made: bool) {
        let is_admin = plan::is_of_admin(&template.spec.spec);
        let status = if is_made { "success" } else { "failure" };
        let labels = [if is_admin { "true" } else { "false" }, status];
        self.ctx.counts.device_claims_created.with_label_values(&labels).inc();
    }

    /// Notes a pod that has a node already in the claims that it uses.
    async fn reserve(&self, pod: &PodView) -> Result<(), ClientError> {
        let namespace = &pod.key.namespace;
        for entry in pod.devices.iter().flat_map(|devices| &devices.wanted) {
            let (name, must_own) = match &entry.claim {
                Named::Given(name) => (name, false),
                Named::Made(name) => (name, true),
                Named::NotNeeded | Named::NotMade => continue,
            };
            let Some(claim) = self.claim(namespace, name) else { continue };
            if must_own && !plan::is_of(&claim, pod) || !plan::must_reserve(pod, &claim) {
                continue;
            }
            let mut consumers = to_value(plan::consumers(&claim));
            consumers.push(json!({ "resource": "pods", "name": pod.key.name, "uid": pod.uid }));
            self.write(&claim, "status", json!({ "status": { "reservedFor": consumers } })).await?;
        }
        Ok(())
    }

    /// Writes a change into a claim, if it still is what it was read as.
    async fn write(
        &self,
        claim: &ResourceClaim,
        subresource: &str,
        mut change: Value,
    ) -> Result<ResourceClaim, ClientError> {
        change["metadata"]["uid"] = json!(claim.metadata.uid);
        change["metadata"]["resourceVersion"] = json!(claim.metadata.resource_version);
        let key = key_of(&claim.metadata);
        let api = self.client.api::<ResourceClaim>(&key.namespace);
        api.merge_update(&key.name, subresource, &change).await
    }

    async fn sync_claim(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(claim) = self.ctx.informers.device_claims.get(key) else {
            return Ok(Outcome::Done);
        };
        match self.settle(key, &claim).await {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            settled => settled,
        }
    }

    async fn settle(&self, key: &ObjectKey, claim: &ResourceClaim) -> Result<Outcome, ClientError> {
        let (mut stays, mut outcome) = (Vec::new(), Outcome::Done);
        for consumer in plan::consumers(claim) {
            let is_pod = consumer.api_group.as_deref().unwrap_or_default().is_empty()
                && consumer.resource == "pods";
            if !is_pod {
                // Whoever put something else there takes it away again.
                stays.push(true);
                continue;
            }
            let needs = self.needs(&key.namespace, &consumer.name, &consumer.uid).await?;
            stays.push(needs != InTheWay::Nothing);
            if needs == InTheWay::Unseen {
                outcome = needs.outcome();
            }
        }
        let plan::Settlement { consumers, deallocate, unprotect } = plan::settle(claim, &stays);
        let mut change = json!({});
        if let Some(consumers) = consumers {
            let consumers = to_value(&consumers);
            change["reservedFor"] =
                if consumers.is_empty() { Value::Null } else { json!(consumers) };
        }
        if deallocate {
            change["allocation"] = Value::Null;
            change["devices"] = Value::Null;
        }
        let mut now = claim.clone();
        if change != json!({}) {
            now = self.write(claim, "status", json!({ "status": change })).await?;
        }
        if unprotect {
            let finalizers = now.metadata.finalizers.iter().flatten();
            let left: Vec<_> = finalizers.filter(|name| *name != RESOURCE_CLAIM).collect();
            let change = json!({ "metadata": { "finalizers": left } });
            now = self.write(&now, "", change).await?;
        }
        self.delete_of_done(key, &now).await?;
        Ok(outcome)
    }

    /// Whether a pod still needs its claims.
    async fn needs(&self, namespace: &str, name: &str, uid: &str) -> Result<InTheWay, ClientError> {
        if let Some(pod) = self.ctx.informers.pods.get(&ObjectKey::new(namespace, name)) {
            let needs = pod.uid == uid && !plan::is_done(&pod);
            return Ok(if needs { InTheWay::Known } else { InTheWay::Nothing });
        }
        let fresh = self.client.api::<Pod>(namespace).get_opt(name).await?;
        let needs = fresh.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid));
        Ok(if needs { InTheWay::Unseen } else { InTheWay::Nothing })
    }

    /// Deletes a claim whose pod has ended; with a pod that is gone it goes anyway.
    async fn delete_of_done(
        &self,
        key: &ObjectKey,
        claim: &ResourceClaim,
    ) -> Result<(), ClientError> {
        let owner = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod");
        let Some(owner) = owner.filter(|_| claim.metadata.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        let pod = self.ctx.informers.pods.get(&ObjectKey::new(&key.namespace, &owner.name));
        if pod.is_none_or(|pod| pod.uid == owner.uid && !plan::is_done(&pod)) {
            return Ok(());
        }
        let uid = claim.metadata.uid.clone();
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        self.client.api::<ResourceClaim>(&key.namespace).delete(&key.name, &options).await
    }
}

fn to_value(
    consumers: &[k8s_openapi::api::resource::v1::ResourceClaimConsumerReference],
) -> Vec<Value> {
    consumers.iter().filter_map(|consumer| serde_json::to_value(consumer).ok()).collect()
}
