//! Mirror pods: what the API shows of the static ones.

use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, ClientError, DeleteOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{MIRROR, hash_of, is_mirror, key, manifest, mirrors};
use crate::kubelet::Kubelet;
use crate::pod::spec;

/// Delays between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(20);

/// Keeps the mirror pods as the static ones are, until the kubelet ends.
pub(crate) async fn keep(kubelet: Arc<Kubelet>) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    tokio::select! {
        () = kubelet.pods.synced() => {}
        () = kubelet.shutdown.begun() => return,
    }
    loop {
        let retry = if look(&kubelet).await {
            backoff.reset();
            None
        } else {
            Some(backoff.next_delay())
        };
        let retry = async {
            match retry {
                Some(delay) => kubelet.deps.clock.sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = kubelet.static_pods.mirrors.notified() => {}
            () = retry => {}
            () = kubelet.shutdown.begun() => return,
        }
    }
}

/// Makes and deletes what has to be; answers whether all of it is done.
async fn look(kubelet: &Kubelet) -> bool {
    let mut done = true;
    for mirror in kubelet.pods.list().iter().filter(|pod| is_mirror(pod)) {
        if kubelet.static_pods.get(&key(mirror)).is_none() {
            done &= tell(mirror, "deleted", delete(kubelet, mirror).await);
        }
    }
    for pod in kubelet.static_pods.list() {
        let present = kubelet.pods.get(&key(&pod));
        if let Some(present) = &present {
            if !is_mirror(present) {
                let pod = spec::described(&pod);
                tracing::warn!(pod, "another pod has the name of a static one");
                done = false;
                continue;
            }
            if mirrors(present, &pod) && !api::pod::is_terminating(present) {
                continue;
            }
            if !tell(present, "deleted", delete(kubelet, present).await) {
                done = false;
                continue;
            }
        }
        if kubelet.static_pods.is_ending(&pod) {
            // It gets no new one for its last moments.
            continue;
        }
        done &= match kubelet.node() {
            Some(node) if node.metadata.deletion_timestamp.is_none() => {
                tell(&pod, "made", create(kubelet, &pod, &node).await)
            }
            _ => false,
        };
    }
    done
}

fn tell(pod: &Pod, what: &str, outcome: Result<(), ClientError>) -> bool {
    if let Err(error) = &outcome {
        let (pod, error) = (spec::described(pod), telemetry::Chain(error));
        tracing::warn!(pod, %error, "mirror pod not {what}, trying again");
    }
    outcome.is_ok()
}

async fn create(kubelet: &Kubelet, pod: &Pod, node: &Node) -> Result<(), ClientError> {
    let mut mirror = pod.clone();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    if let Some(hash) = annotations.get(manifest::HASH).cloned() {
        annotations.insert(MIRROR.to_owned(), hash);
    }
    mirror.metadata.uid = None;
    mirror.status = None;
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: kubelet.config.node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let api = kubelet.deps.client.api::<Pod>(spec::namespace(pod));
    match api.create(&mirror).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => {
            // It may be the one that was just made.
            let present = api.get(spec::name(pod)).await?;
            if hash_of(&present) == hash_of(&mirror) { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// Deletes at once: nothing ends with it.
async fn delete(kubelet: &Kubelet, mirror: &Pod) -> Result<(), ClientError> {
    let api = kubelet.deps.client.api::<Pod>(spec::namespace(mirror));
    let options = DeleteOptions {
        grace_period_secs: Some(0),
        uid: Some(spec::uid(mirror).to_owned()),
        ..DeleteOptions::default()
    };
    match api.delete(spec::name(mirror), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
