//! What the parts of a kubelet share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{EventRecorder, EventType, Lister, Regarding};
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::ObjectKey;
use stdx::shutdown::Shutdown;
use tokio::sync::Notify;

use crate::cgroups::PodCgroups;
use crate::config::{Config, Deps};
use crate::image::PulledRecords;
use crate::image::puller::Puller;
use crate::metrics::Metrics;
use crate::node::host::Capacity;
use crate::pod::admission::{self, Lack};
use crate::pod::allocation::Allocation;
use crate::pod::env::ServiceInfo;
use crate::pod::host_rules;
use crate::pod::preemption::{self, Candidate};
use crate::pod::spec::{self, Kind};
use crate::pod::status::Verdict;
use crate::pod::workers::Workers;
use crate::static_pods::{self, StaticPods};
use crate::volume::Volumes;

/// One kubelet.
pub(crate) struct Kubelet {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) capacity: Capacity,
    pub(crate) cgroups: PodCgroups,
    pub(crate) metrics: Metrics,
    pub(crate) recorder: EventRecorder,
    pub(crate) shutdown: Shutdown,
    pub(crate) volumes: Volumes,
    pub(crate) services: Lister<ServiceInfo>,
    pub(crate) pods: Lister<Pod>,
    pub(crate) static_pods: StaticPods,
    pub(crate) workers: Arc<Workers>,
    pub(crate) puller: Puller,
    pub(crate) pulled: PulledRecords,
    /// Told when a pull found the disk full.
    pub(crate) disk_full: Notify,
    /// The node object as it was last seen.
    node: Mutex<Option<Arc<Node>>>,
    /// The pods that the node has taken, by uid, with the resources it has granted them.
    admitted: Mutex<BTreeMap<String, Arc<Pod>>>,
    /// Those that wait for room to be resized, or to begin.
    cramped: Mutex<BTreeSet<String>>,
    /// Those that were told to make room for others, until they have.
    leaving: Mutex<BTreeSet<String>>,
}

/// What becomes of a pod that wants to run here.
pub(crate) enum Admission {
    /// It may, with these resources.
    Granted(Arc<Pod>),
    /// It may not.
    Refused(Verdict),
    /// It may when others are gone, which were told to go.
    MakesRoom,
}

impl Kubelet {
    #[expect(clippy::too_many_arguments, reason = "called once, where everything is made")]
    pub(crate) fn new(
        config: Config,
        deps: Deps,
        recorder: EventRecorder,
        shutdown: Shutdown,
        volumes: Volumes,
        services: Lister<ServiceInfo>,
        pods: Lister<Pod>,
        workers: Arc<Workers>,
        metrics: Metrics,
    ) -> Self {
        let capacity = Capacity::read(&config.root_dir);
        let puller = Puller::new(&config.images, &deps.clock);
        let policy = config.images.credentials_policy.clone();
        let pulled = PulledRecords::new(&config.root_dir, policy);
        let most = u64::try_from(config.pod_pids_limit).ok();
        let cgroups = PodCgroups::new(&config.cgroup_mount, &config.cgroup_root, most);
        Self {
            config,
            deps,
            capacity,
            cgroups,
            metrics,
            recorder,
            shutdown,
            volumes,
            services,
            pods,
            static_pods: StaticPods::default(),
            workers,
            puller,
            pulled,
            disk_full: Notify::new(),
            node: Mutex::default(),
            admitted: Mutex::default(),
            cramped: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// The pod of this name that runs here.
    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        let of_api = || self.pods.get(key).filter(|pod| !static_pods::is_mirror(pod));
        self.static_pods.get(key).or_else(of_api)
    }

    /// The pods that run here; mirror pods are none.
    pub(crate) fn own_pods(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list();
        pods.retain(|pod| !static_pods::is_mirror(pod));
        pods.extend(self.static_pods.list());
        pods
    }

    /// The pod of the API that shows this static pod.
    pub(crate) fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let found = self.pods.get(&ObjectKey::new(spec::namespace(pod), spec::name(pod)))?;
        static_pods::mirrors(&found, pod).then_some(found)
    }

    /// The node object as it was last seen.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        lock(&self.node).clone()
    }

    /// Notes the node object.
    pub(crate) fn set_node(&self, node: Arc<Node>) {
        *lock(&self.node) = Some(node);
        self.static_pods.look_at_mirrors();
    }

    /// Takes the pod, unless it does not fit beside the others, and answers it with what it is
    /// granted. `running` says that it was taken before a restart of the kubelet.
    pub(crate) fn admit(&self, pod: &Arc<Pod>, running: bool) -> Admission {
        let node = self.node();
        let uid = spec::uid(pod);
        let mut admitted = lock(&self.admitted);
        let mut pod = Arc::clone(pod);
        if running {
            let before = Allocation::load(&self.volumes.pod_dir(uid));
            if let Some(before) = before.filter(|before| *before != Allocation::of(&pod)) {
                pod = Arc::new(before.apply(&pod));
            }
        } else {
            match self.decide(&pod, node.as_deref(), &others(&admitted, uid)) {
                Ok(true) => {}
                Ok(false) => {
                    lock(&self.cramped).insert(uid.to_owned());
                    return Admission::MakesRoom;
                }
                Err(verdict) => return Admission::Refused(verdict),
            }
        }
        lock(&self.cramped).remove(uid);
        admitted.insert(uid.to_owned(), Arc::clone(&pod));
        self.granted(&pod, &admitted);
        Admission::Granted(pod)
    }

    /// Whether the pod fits; not yet, when others make room for it.
    fn decide(&self, pod: &Pod, node: Option<&Node>, others: &[&Pod]) -> Result<bool, Verdict> {
        host_rules::admit(pod, &self.config.allowed_unsafe_sysctls)?;
        let critical = self.candidate(pod);
        let Some(node) = node.filter(|_| critical.is_critical()) else {
            return admission::admit(pod, node, others).map(|()| true);
        };
        admission::admit_anyway(pod, Some(node), others)?;
        if admission::lacks(pod, node, others).is_empty() {
            return Ok(true);
        }
        let mut leaving = lock(&self.leaving);
        let staying: Vec<&Pod> =
            others.iter().filter(|other| !leaving.contains(spec::uid(other))).copied().collect();
        let lacks = admission::lacks(pod, node, &staying);
        let staying: Vec<Candidate<'_>> = staying.iter().map(|pod| self.candidate(pod)).collect();
        let victims = preemption::victims(critical, &lacks, &staying).map_err(no_room)?;
        for victim in victims {
            let (reason, message) = (preemption::PREEMPTING.into(), preemption::MESSAGE.into());
            leaving.insert(spec::uid(victim).to_owned());
            if let Some(worker) = self.workers.get(spec::uid(victim)) {
                worker.evict(Verdict { reason, message });
            }
        }
        Ok(false)
    }

    fn candidate<'a>(&self, pod: &'a Pod) -> Candidate<'a> {
        Candidate { pod, is_static: self.static_pods.has(pod) }
    }

    /// Grants a pod that was taken the resources that its spec has now, if there is room.
    pub(crate) fn resize(&self, pod: &Arc<Pod>) -> Result<(), Verdict> {
        let node = self.node();
        let uid = spec::uid(pod);
        let mut admitted = lock(&self.admitted);
        let fits = admission::resize(pod, node.as_deref(), &others(&admitted, uid));
        fits.inspect_err(|refused| {
            if refused.reason == admission::DEFERRED {
                lock(&self.cramped).insert(uid.to_owned());
            }
        })?;
        lock(&self.cramped).remove(uid);
        admitted.insert(uid.to_owned(), Arc::clone(pod));
        self.granted(pod, &admitted);
        drop(admitted);
        self.wake_cramped();
        Ok(())
    }

    /// What the pod was given is free again.
    pub(crate) fn forget(&self, uid: &str) {
        lock(&self.cramped).remove(uid);
        lock(&self.leaving).remove(uid);
        let mut admitted = lock(&self.admitted);
        if admitted.remove(uid).is_some() {
            self.weigh(&admitted);
            drop(admitted);
            self.wake_cramped();
        }
    }

    /// Pods that wait for room may have it now.
    fn wake_cramped(&self) {
        for uid in lock(&self.cramped).iter() {
            if let Some(worker) = self.workers.get(uid) {
                worker.wake();
            }
        }
    }

    fn granted(&self, pod: &Pod, admitted: &BTreeMap<String, Arc<Pod>>) {
        self.weigh(admitted);
        if let Err(error) = Allocation::of(pod).save(&self.volumes.pod_dir(spec::uid(pod))) {
            tracing::warn!(pod = spec::described(pod), %error, "resources of a pod not noted");
        }
    }

    fn weigh(&self, admitted: &BTreeMap<String, Arc<Pod>>) {
        if let Err(error) = self.cgroups.weigh(admitted.values().map(|pod| &**pod)) {
            let error = telemetry::Chain(&error).to_string();
            tracing::warn!(error, "the weight of burstable pods is not set");
        }
    }

    /// Records an event about a pod.
    pub(crate) fn pod_event(&self, pod: &Pod, kind: EventType, reason: &str, text: &str) {
        self.recorder.record(&Regarding::object(pod), kind, reason, text);
    }

    /// Records an event about a container.
    pub(crate) fn container_event(
        &self,
        pod: &Pod,
        container: (Kind, &str),
        kind: EventType,
        reason: &str,
        text: &str,
    ) {
        let mut regarding = Regarding::object(pod);
        regarding.field_path = spec::field_path(container.0, container.1);
        self.recorder.record(&regarding, kind, reason, text);
    }

    /// What the node gives to pods, in thousandths of a CPU and bytes.
    pub(crate) fn allocatable(&self) -> BTreeMap<&'static str, i64> {
        let has = &self.capacity;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let memory =
            has.memory_bytes.saturating_sub(self.config.eviction_hard.memory_available_bytes);
        BTreeMap::from([
            ("cpu", number(has.cpus * 1000)),
            ("memory", number(memory)),
            ("ephemeral-storage", number(has.storage_bytes)),
        ])
    }
}

/// Nobody may be sent away, or it would not be enough.
fn no_room(lacks: Vec<Lack>) -> Verdict {
    let lacks: String =
        lacks.iter().map(|lack| format!("(res: {}, q: {}), ", lack.name, lack.amount)).collect();
    Verdict {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error \
             finding a set of pods to preempt: no set of running pods found to reclaim resources: \
             [{lacks}]"
        ),
    }
}

fn others<'a>(admitted: &'a BTreeMap<String, Arc<Pod>>, uid: &str) -> Vec<&'a Pod> {
    admitted.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| &**pod).collect()
}

/// A lock whose holder may have panicked: what it guards is whole at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
