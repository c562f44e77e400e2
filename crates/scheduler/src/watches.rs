//! What the scheduler follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Typed;
use client::{Change, Informer, InformerConfig, ListOptions, Lister};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use meta::{LabelSelector, MalformedObject, Object, ObjectKey};
use stdx::interner::Interner;
use stdx::shutdown::Shutdown;

use crate::framework::ClusterEvent;
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, selector};
use crate::scheduler::Scheduler;
use crate::snapshot::Budget;
use crate::volumes::{Capacity, Volumes};

/// Starts the informers and returns when all first lists are in the scheduler's state.
pub(crate) async fn follow(scheduler: &Arc<Scheduler>, shutdown: &Shutdown) {
    let watches = Watches { scheduler, shutdown };
    let services = watches.services();
    let budgets = watches.budgets();
    let namespaces = watches.namespaces();
    let replica_sets = watches.workloads::<ReplicaSet>(|o| {
        let set = ReplicaSet::of(o)?;
        Ok((set.metadata.uid, selector(set.spec.as_ref().map(|spec| &spec.selector))))
    });
    let stateful_sets = watches.workloads::<StatefulSet>(|o| {
        let set = StatefulSet::of(o)?;
        Ok((set.metadata.uid, selector(set.spec.as_ref().map(|spec| &spec.selector))))
    });
    let controllers = watches.workloads::<ReplicationController>(|o| {
        let controller = ReplicationController::of(o)?;
        let labels = controller.spec.and_then(|spec| spec.selector).unwrap_or_default();
        Ok((controller.metadata.uid, LabelSelector::from_labels(labels)))
    });
    let claims = watches.storage::<PersistentVolumeClaim>(|volumes, key, claim| match claim {
        Some(claim) => drop(volumes.claims.insert(key.clone(), claim)),
        None => drop(volumes.claims.remove(key)),
    });
    let persistent = watches.storage::<PersistentVolume>(|volumes, key, volume| {
        volumes.set_volume(&key.name, volume);
    });
    let classes = watches.storage::<StorageClass>(|volumes, key, class| match class {
        Some(class) => drop(volumes.classes.insert(key.name.clone(), class)),
        None => drop(volumes.classes.remove(&key.name)),
    });
    let drivers = watches.storage::<CSIDriver>(|volumes, key, driver| match driver {
        Some(driver) => drop(volumes.drivers.insert(key.name.clone(), driver)),
        None => drop(volumes.drivers.remove(&key.name)),
    });
    let capacities = watches.capacities();
    let limits = watches.limits();
    let device_claims = watches.device_claims();
    let attachments = watches.attachments();
    let nodes = watches.nodes();
    let pods = watches.pods();
    tokio::join!(
        services.synced(),
        budgets.synced(),
        namespaces.synced(),
        replica_sets.synced(),
        stateful_sets.synced(),
        controllers.synced(),
        claims.synced(),
        persistent.synced(),
        classes.synced(),
        drivers.synced(),
        capacities.synced(),
        limits.synced(),
        device_claims.synced(),
        attachments.synced(),
        nodes.synced(),
        pods.synced(),
    );
}

struct Watches<'a> {
    scheduler: &'a Arc<Scheduler>,
    shutdown: &'a Shutdown,
}

impl Watches<'_> {
    fn spawn<P: Send + Sync + 'static>(
        &self,
        config: InformerConfig,
        project: impl Fn(&Object) -> Result<P, MalformedObject> + Send + Sync + 'static,
    ) -> Lister<P> {
        let Scheduler { client, clock, .. } = &**self.scheduler;
        Informer::spawn(client, clock, config, self.shutdown, project)
    }

    fn pods(&self) -> Lister<PodInfo> {
        // Pods that have ended take no room.
        let running = "status.phase!=Succeeded,status.phase!=Failed";
        let config = InformerConfig {
            options: ListOptions::fields(running),
            ..InformerConfig::all::<Pod>()
        };
        let label_sets = Interner::default();
        let pods = self.spawn(config, move |object| {
            let mut pod = PodInfo::new(&Pod::of(object)?);
            pod.labels = label_sets.share(Arc::unwrap_or_clone(pod.labels));
            Ok(pod)
        });
        let scheduler = Arc::clone(self.scheduler);
        pods.on_change(move |_, change| {
            let Scheduler { scheduler_name, plugins, clock, .. } = &*scheduler;
            let now = clock.monotonic();
            let retry = scheduler.lock().pod_changed(change, scheduler_name, plugins, now);
            scheduler.wake_if(retry);
        });
        pods
    }

    fn nodes(&self) -> Lister<NodeInfo> {
        let nodes = self
            .spawn(InformerConfig::all::<Node>(), |object| Ok(NodeInfo::from(&Node::of(object)?)));
        let scheduler = Arc::clone(self.scheduler);
        nodes.on_change(move |_, change| {
            let now = scheduler.clock.monotonic();
            let retry = scheduler.lock().node_changed(change, &scheduler.plugins, now);
            scheduler.wake_if(retry);
        });
        nodes
    }

    fn storage<K>(
        &self,
        take: impl Fn(&mut Volumes, &ObjectKey, Option<Arc<K>>) + Send + Sync + 'static,
    ) -> Lister<K>
    where
        K: k8s_openapi::Resource + Typed + Send + Sync + 'static,
    {
        let objects = self.spawn(InformerConfig::all::<K>(), |object| K::of(object));
        self.take(&objects, ClusterEvent::Volumes, take);
        objects
    }

    fn take<P: Send + Sync + 'static>(
        &self,
        objects: &Lister<P>,
        event: ClusterEvent,
        take: impl Fn(&mut Volumes, &ObjectKey, Option<Arc<P>>) + Send + Sync + 'static,
    ) {
        let scheduler = Arc::clone(self.scheduler);
        objects.on_change(move |key, change| {
            let object = current(&change).cloned();
            let now = scheduler.clock.monotonic();
            let mut cluster = scheduler.lock();
            let take = |volumes: &mut Volumes| take(volumes, key, object);
            let retry = cluster.volumes_changed(take, event, &scheduler.plugins, now);
            drop(cluster);
            scheduler.volumes_changed.notify_waiters();
            scheduler.wake_if(retry);
        });
    }

    fn capacities(&self) -> Lister<Capacity> {
        let capacities = self.spawn(InformerConfig::all::<CSIStorageCapacity>(), |object| {
            let found = CSIStorageCapacity::of(object)?;
            let size = found.maximum_volume_size.or(found.capacity);
            Ok(Capacity {
                class: found.storage_class_name,
                nodes: match &found.node_topology {
                    None => LabelSelector::nothing(),
                    nodes => selector(nodes.as_ref()),
                },
                size: size.and_then(|size| size.0.parse().ok()),
            })
        });
        self.take(&capacities, ClusterEvent::Volumes, |volumes, key, found| match found {
            Some(found) => drop(volumes.capacities.insert(key.clone(), (*found).clone())),
            None => drop(volumes.capacities.remove(key)),
        });
        capacities
    }

    fn device_claims(&self) -> Lister<ResourceClaim> {
        let claims = self.spawn(InformerConfig::all::<ResourceClaim>(), ResourceClaim::of);
        let scheduler = Arc::clone(self.scheduler);
        claims.on_change(move |key, change| {
            let claim = current(&change).cloned();
            let now = scheduler.clock.monotonic();
            let mut cluster = scheduler.lock();
            let retry = cluster.device_claim_changed(key, claim, &scheduler.plugins, now);
            drop(cluster);
            scheduler.wake_if(retry);
        });
        claims
    }

    fn limits(&self) -> Lister<BTreeMap<String, i64>> {
        let limits = self.spawn(InformerConfig::all::<CSINode>(), |object| {
            let drivers = CSINode::of(object)?.spec.drivers.into_iter();
            let limits = drivers
                .filter_map(|driver| Some((driver.name, i64::from(driver.allocatable?.count?))));
            Ok(limits.collect::<BTreeMap<_, _>>())
        });
        self.take(&limits, ClusterEvent::VolumeLimits, |volumes, key, found| match found {
            Some(found) => drop(volumes.limits.insert(key.name.clone(), (*found).clone())),
            None => drop(volumes.limits.remove(&key.name)),
        });
        limits
    }

    fn attachments(&self) -> Lister<Attached> {
        let attachments = self.spawn(InformerConfig::all::<VolumeAttachment>(), |object| {
            let spec = VolumeAttachment::of(object)?.spec;
            let volume = spec.source.persistent_volume_name.unwrap_or_default();
            Ok((spec.node_name, spec.attacher, volume))
        });
        self.take(&attachments, ClusterEvent::VolumeLimits, |volumes, key, found| {
            volumes.set_attachment(&key.name, found.as_deref());
        });
        attachments
    }

    fn namespaces(&self) -> Lister<BTreeMap<String, String>> {
        let namespaces = self.spawn(InformerConfig::all::<Namespace>(), |object| {
            let labels = object.header().labels.iter();
            let labels = labels.map(|(key, value)| (key.to_string(), value.to_string()));
            Ok(labels.collect::<BTreeMap<_, _>>())
        });
        let scheduler = Arc::clone(self.scheduler);
        namespaces.on_change(move |key, change| {
            let labels = current(&change).map(|labels| (**labels).clone());
            let now = scheduler.clock.monotonic();
            let mut cluster = scheduler.lock();
            let retry = cluster.namespace_changed(&key.name, labels, &scheduler.plugins, now);
            drop(cluster);
            scheduler.wake_if(retry);
        });
        namespaces
    }

    fn budgets(&self) -> Lister<Budget> {
        let budgets = self.spawn(InformerConfig::all::<PodDisruptionBudget>(), |object| {
            let budget = PodDisruptionBudget::of(object)?;
            let status = budget.status.unwrap_or_default();
            Ok(Budget {
                selector: selector(budget.spec.and_then(|spec| spec.selector).as_ref()),
                allowed: status.disruptions_allowed.unwrap_or(0),
                disrupted: status.disrupted_pods.unwrap_or_default().into_keys().collect(),
            })
        });
        let scheduler = Arc::clone(self.scheduler);
        budgets.on_change(move |key, change| {
            let budget = current(&change).map(|budget| (**budget).clone());
            let key = (key.namespace.clone(), key.name.clone());
            scheduler.lock().budget_changed(key, budget);
        });
        budgets
    }

    fn services(&self) -> Lister<Option<LabelSelector>> {
        let services = self.spawn(InformerConfig::all::<Service>(), |object| {
            let service = Service::of(object)?;
            let labels = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
            Ok((!labels.is_empty()).then(|| LabelSelector::from_labels(labels)))
        });
        let scheduler = Arc::clone(self.scheduler);
        services.on_change(move |key, change| {
            let selector = current(&change).and_then(|selector| (**selector).clone());
            let key = (key.namespace.clone(), key.name.clone());
            scheduler.lock().service_changed(key, selector);
        });
        services
    }

    fn workloads<K: k8s_openapi::Resource>(
        &self,
        project: impl Fn(&Object) -> Result<Workload, MalformedObject> + Send + Sync + 'static,
    ) -> Lister<Workload> {
        let workloads = self.spawn(InformerConfig::all::<K>(), project);
        let scheduler = Arc::clone(self.scheduler);
        workloads.on_change(move |_, change| {
            let gone = matches!(change, Change::Deleted(_));
            let (Change::Added(workload)
            | Change::Updated { new: workload, .. }
            | Change::Deleted(workload)) = change;
            let (uid, selector) = (**workload).clone();
            let selector = (!gone).then_some(selector);
            scheduler.lock().workload_changed(uid.unwrap_or_default(), selector);
        });
        workloads
    }
}

/// Node, driver and volume of an attachment.
type Attached = (String, String, String);

/// Uid and selector of a workload.
type Workload = (Option<String>, LabelSelector);

fn current<'a, P>(change: &Change<'a, P>) -> Option<&'a Arc<P>> {
    match change {
        Change::Added(object) | Change::Updated { new: object, .. } => Some(object),
        Change::Deleted(_) => None,
    }
}

impl Scheduler {
    fn wake_if(&self, something_to_do: bool) {
        if something_to_do {
            self.wake.notify_one();
        }
    }
}
