//! Static pods: those of files on the node, or of an address, which run whether there is an API server
//! or not.
//!
//! ```text
//!  files ────┐                                  (files.rs, manifest.rs)
//!  address ──┴▶ wanted ──▶ active ──▶ workers   (url.rs)
//!                            └──▶ mirror pods ──▶ API      (mirrors.rs)
//! ```
//!
//! Of every name one pod is active at a time: it has a worker until nothing of it is left, and
//! only then its successor begins.

mod files;
mod manifest;
mod mirrors;
mod url;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Pod;
use meta::ObjectKey;
use tokio::sync::Notify;

use crate::kubelet::{Kubelet, lock};
use crate::pod::spec;

pub(crate) use mirrors::keep as keep_mirrors;

/// On a pod that only shows a static one: the hash of that one.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The static pods of a node.
#[derive(Default)]
pub(crate) struct StaticPods {
    state: Mutex<State>,
    /// A worker ended.
    ended: Notify,
    /// Mirror pods may have to be made or deleted.
    mirrors: Notify,
}

/// Where pods come from; of several of a name or uid the first source's is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Files,
    Url,
}

#[derive(Default)]
struct State {
    /// What each source says.
    sources: BTreeMap<Source, Vec<Arc<Pod>>>,
    /// What they say together.
    wanted: BTreeMap<ObjectKey, Arc<Pod>>,
    active: BTreeMap<ObjectKey, Active>,
}

struct Active {
    pod: Arc<Pod>,
    /// Its worker was told to end it.
    ending: bool,
}

impl StaticPods {
    /// The active pod of a name.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        lock(&self.state).active.get(key).map(|active| Arc::clone(&active.pod))
    }

    /// The active pods.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        lock(&self.state).active.values().map(|active| Arc::clone(&active.pod)).collect()
    }

    /// Whether this is one of them.
    pub(crate) fn has(&self, pod: &Pod) -> bool {
        self.get(&key(pod)).is_some_and(|active| spec::uid(&active) == spec::uid(pod))
    }

    /// Whether the pod is being ended.
    fn is_ending(&self, pod: &Pod) -> bool {
        let state = lock(&self.state);
        state.active.get(&key(pod)).is_none_or(|active| active.ending)
    }

    /// A worker ended, perhaps that of a static pod.
    pub(crate) fn worker_ended(&self) {
        self.ended.notify_one();
    }

    /// The node or a mirror pod changed.
    pub(crate) fn look_at_mirrors(&self) {
        self.mirrors.notify_one();
    }

    /// Takes what a source says.
    fn want(&self, source: Source, pods: Vec<Arc<Pod>>) {
        let mut state = lock(&self.state);
        state.sources.insert(source, pods);
        let mut wanted: BTreeMap<ObjectKey, Arc<Pod>> = BTreeMap::new();
        for pod in state.sources.values().flatten() {
            let is_taken = wanted.contains_key(&key(pod))
                || wanted.values().any(|other| spec::uid(other) == spec::uid(pod));
            if is_taken {
                let pod = spec::described(pod);
                tracing::warn!(pod, "another source has a static pod of this name or uid");
            } else {
                wanted.insert(key(pod), Arc::clone(pod));
            }
        }
        state.wanted = wanted;
    }

    /// Ends and starts pods until those are active that are wanted.
    fn apply(&self, kubelet: &Arc<Kubelet>) {
        let workers = &kubelet.workers;
        let mut state = lock(&self.state);
        let State { wanted, active, .. } = &mut *state;
        active.retain(|_, active| !active.ending || workers.get(spec::uid(&active.pod)).is_some());
        for (key, active) in active.iter_mut().filter(|(_, active)| !active.ending) {
            match wanted.get(key) {
                Some(pod) if Arc::ptr_eq(pod, &active.pod) => {}
                // Its manifest names its uid: it stays the same pod.
                Some(pod) if spec::uid(pod) == spec::uid(&active.pod) => {
                    active.pod = Arc::clone(pod);
                    workers.update(kubelet, pod);
                }
                _ => {
                    active.ending = true;
                    workers.gone(spec::uid(&active.pod));
                }
            }
        }
        let mut begun = Vec::new();
        for (key, pod) in wanted.iter().filter(|(key, _)| !active.contains_key(*key)) {
            // One of another name may still have the uid.
            if workers.get(spec::uid(pod)).is_none() {
                begun.push((key.clone(), Arc::clone(pod)));
            }
        }
        for (key, pod) in &begun {
            active.insert(key.clone(), Active { pod: Arc::clone(pod), ending: false });
        }
        drop(state);
        // A worker asks whether its pod is a static one.
        for (_, pod) in &begun {
            workers.update(kubelet, pod);
        }
        self.look_at_mirrors();
    }
}

/// Reads the manifests, starts their pods, and follows both until the kubelet ends. Answers after the
/// first look at files.
pub(crate) async fn follow(kubelet: &Arc<Kubelet>) {
    let ended = Arc::clone(kubelet);
    drop(stdx::task::spawn("static-pods-ended", async move {
        loop {
            tokio::select! {
                () = ended.static_pods.ended.notified() => ended.static_pods.apply(&ended),
                () = ended.shutdown.begun() => return,
            }
        }
    }));
    files::follow(kubelet).await;
    url::follow(kubelet);
}

/// Whether a pod of the API shows a static one of some node.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    hash_of(pod).is_some()
}

/// Whether `pod`, of the API, shows this static one.
pub(crate) fn mirrors(pod: &Pod, static_pod: &Pod) -> bool {
    let hash = annotation(static_pod, manifest::HASH);
    hash.is_some() && hash_of(pod) == hash
}

fn hash_of(mirror: &Pod) -> Option<&str> {
    annotation(mirror, MIRROR)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn key(pod: &Pod) -> ObjectKey {
    ObjectKey::new(spec::namespace(pod), spec::name(pod))
}
