//! Makes the claims of pods' ephemeral volumes; they go with their pods.
//!
//! Upstream: `pkg/controller/volume/ephemeral/controller.go`.

use client::{Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use meta::{ObjectKey, Reason, Status};

use crate::context::Context;
use crate::reconcile::reconcile;
use crate::selection::controller_of;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("ephemeral-volume-controller");
    let recorder = ctx.recorder(&client, "ephemeral_volume");
    let queue = ctx.queue("ephemeral_volume");
    let informers = ctx.informers.clone();
    tokio::join!(informers.pods.synced(), informers.claims.synced());
    let changed = queue.clone();
    informers.pods.on_change(move |key, change| {
        let (Change::Added(pod) | Change::Updated { new: pod, .. }) = change else { return };
        if pod.has_ephemeral && pod.deleted.is_none() {
            changed.add(key.clone());
        }
    });
    let changed = queue.clone();
    informers.claims.on_change(move |key, change| {
        let Change::Deleted(claim) = change else { return };
        if let Some(owner) = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod") {
            changed.add(ObjectKey::new(&key.namespace, &owner.name));
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client, recorder) = (ctx.clone(), client.clone(), recorder.clone());
        async move { sync(&ctx, &client, &recorder, &key).await }
    })
    .await;
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let known = ctx.informers.pods.get(key).filter(|pod| pod.deleted.is_none());
    let is_complete = known.is_none_or(|pod| {
        // Whose the claims are is looked at below; that they are there is the usual case.
        !pod.has_ephemeral
            || pod.claims.iter().all(|claim| {
                let claim = ctx.informers.claims.get(&ObjectKey::new(&key.namespace, claim));
                claim.is_some_and(|claim| {
                    controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.uid)
                })
            })
    });
    if is_complete {
        return Ok(Outcome::Done);
    }
    let pod = client.api::<Pod>(&key.namespace).get_opt(&key.name).await?;
    let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
        return Ok(Outcome::Done);
    };
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for volume in volumes {
        let Some(claim) = claim(&pod, volume) else { continue };
        if let Err(error) = ensure(ctx, client, key, &pod, &claim).await {
            let text = format!("ephemeral volume {}: {error}", volume.name);
            let regarding = Regarding::object(&pod);
            recorder.record(&regarding, EventType::Warning, "FailedBinding", text);
            return Err(error);
        }
    }
    Ok(Outcome::Done)
}

async fn ensure(
    ctx: &Context,
    client: &Client,
    pod_key: &ObjectKey,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
) -> Result<(), ClientError> {
    let api = client.api::<PersistentVolumeClaim>(&pod_key.namespace);
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let present = match api.get_opt(name).await? {
        Some(present) => present,
        None => {
            ctx.counts.ephemeral_created.inc();
            let created = api.create(claim).await;
            if created.is_err() {
                ctx.counts.ephemeral_failed.inc();
            }
            return created.map(drop);
        }
    };
    let owner = controller_of(&present.metadata);
    if owner.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref()) {
        return Ok(());
    }
    let namespace = &pod_key.namespace;
    let text =
        format!("PVC {namespace}/{name} was not created for pod {pod_key} (pod is not owner)");
    Err(Status::failure(Reason::InternalError, text).into())
}

/// The claim of a volume, if it is of this sort.
fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let pod = &pod.metadata;
    let name = pod.name.clone().unwrap_or_default();
    let from = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", volume.name)),
            namespace: pod.namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name,
                uid: pod.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_of_its_template_and_its_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "containers": [], "volumes": [
                { "name": "plain", "emptyDir": {} },
                { "name": "e", "ephemeral": { "volumeClaimTemplate": {
                    "metadata": { "labels": { "a": "b" } },
                    "spec": { "storageClassName": "s" } } } }] } }))
        .unwrap();
        let volumes = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
        assert!(claim(&pod, &volumes[0]).is_none());
        let made = claim(&pod, &volumes[1]).unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("p-e"));
        assert_eq!(made.metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(controller_of(&made.metadata).unwrap().uid, "u");
        assert_eq!(made.spec.unwrap().storage_class_name.as_deref(), Some("s"));
    }
}
