//! Which services a pod belongs to, and on which ports it serves them: shared by the endpoints and
//! the endpointslice controller.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use client::{Change, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::{LabelSelector, ObjectKey};

use crate::context::Context;
use crate::pod_view::PodView;

/// Handles a service's key whenever the service, its pods or the zones of nodes change.
pub(crate) fn follow(ctx: &Context, queue: &WorkQueue<ObjectKey>) {
    let services = queue.clone();
    ctx.informers.services.on_change(move |key, _| services.add(key.clone()));
    let (this, pods) = (ctx.clone(), queue.clone());
    ctx.informers.pods.on_change(move |_, change| {
        let versions: Vec<&PodView> = match &change {
            Change::Added(pod) | Change::Deleted(pod) => vec![pod],
            Change::Updated { old, new } if serves_alike(old, new) => return,
            Change::Updated { old, new } => vec![old, new],
        };
        let namespace = &versions[0].key.namespace;
        for service in this.informers.services.list_namespace(namespace) {
            let Some(selector) = selector_of(&service) else { continue };
            if versions.iter().any(|pod| pod.matches(&selector)) {
                pods.add(crate::selection::key_of(&service.metadata));
            }
        }
    });
}

/// The selector by which a controller finds the service's pods; `None` when someone else says what
/// its endpoints are.
pub(crate) fn selector_of(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    Some(LabelSelector::from_labels(labels.clone()))
}

/// The pods of a service that have an address and have not ended.
pub(crate) fn pods_of(ctx: &Context, service: &Service) -> Vec<Arc<PodView>> {
    let Some(selector) = selector_of(service) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut pods = ctx.informers.pods.list_namespace(namespace);
    pods.retain(|pod| pod.matches(&selector) && !pod.is_terminal() && !pod.ips.is_empty());
    pods
}

/// Whether the service has no address of its own.
pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// The number of the pod's port that a service port stands for.
pub(crate) fn target_port(port: &ServicePort, pod: &PodView) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let named = pod.ports.iter().find(|(n, p, _)| n == name && p == protocol);
            named.map(|(_, _, number)| *number)
        }
    }
}

/// The host name by which DNS knows the pod within the service.
pub(crate) fn hostname(service: &Service, pod: &PodView) -> Option<String> {
    let name = service.metadata.name.as_deref()?;
    let hostname = pod.hostname.as_deref().filter(|hostname| !hostname.is_empty())?;
    (pod.subdomain == name).then(|| hostname.to_owned())
}

/// The reference of an endpoint to its pod.
pub(crate) fn target_ref(pod: &PodView) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

fn serves_alike(old: &PodView, new: &PodView) -> bool {
    old.ips == new.ips
        && old.ready == new.ready
        && old.deleted == new.deleted
        && old.phase == new.phase
        && old.labels == new.labels
        && old.node == new.node
        && old.hostname == new.hostname
        && old.subdomain == new.subdomain
        && old.ports == new.ports
}

/// When the change happened that an endpoints object reflects, so that others can measure how
/// long it took to reach them: upstream `TriggerTimeTracker`.
#[derive(Default)]
pub(crate) struct TriggerTimes {
    known: Mutex<HashMap<ObjectKey, Known>>,
}

#[derive(Default)]
struct Known {
    service: Option<Timestamp>,
    pods: BTreeMap<String, Timestamp>,
}

impl TriggerTimes {
    /// The earliest change since the last call, if there was one.
    pub(crate) fn next(&self, service: &Service, pods: &[Arc<PodView>]) -> Option<Timestamp> {
        let key = crate::selection::key_of(&service.metadata);
        let current = Known {
            service: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pods: pods
                .iter()
                .map(|pod| (pod.uid.clone(), pod.ready_changed.unwrap_or(pod.created)))
                .collect(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(key).or_default();
        let new_service = current.service.filter(|time| before.service != Some(*time));
        let changed = current.pods.iter().filter(|(uid, time)| before.pods.get(*uid) != Some(time));
        let earliest = changed.map(|(_, time)| *time).chain(new_service).min();
        *before = current;
        earliest
    }

    /// The service is gone.
    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }
}
