//! Who the users of pods with `hostUsers: false` are on the node: each such pod has a range of
//! numbers to itself, and keeps it for as long as it has a directory, in which it is noted.
//!
//! Ranges and the file are upstream's `userns_manager.go`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use cri::{IdMapping, UserNamespace};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::kubelet::lock;
use crate::pod::spec;

/// Users of one pod: upstream `userNsLength`.
const LENGTH: u32 = 65536;
/// Pods with users of their own. Upstream has as many as a node takes pods; those that have ended
/// keep theirs until they are deleted here.
const RANGES_MAX: u32 = 1024;
const FILE: &str = "userns";

/// The ranges of all pods.
pub(crate) struct Users {
    pods_dir: PathBuf,
    /// The first number of each pod's range by uid, once the directories were read.
    given: Mutex<Option<BTreeMap<String, u32>>>,
}

/// The file, as upstream writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Users {
    /// Those of the pods below a directory.
    pub(crate) fn new(pods_dir: PathBuf) -> Self {
        Self { pods_dir, given: Mutex::new(None) }
    }

    /// The users of a pod; `None` when they are the node's. The error is the end of a
    /// `FailedCreatePodSandBox` event.
    pub(crate) fn of(&self, pod: &Pod) -> Result<Option<UserNamespace>, String> {
        if spec::spec(pod).host_users != Some(false) {
            return Ok(None);
        }
        let first = self.range(spec::uid(pod))?;
        let mapping = IdMapping { host_id: first, container_id: 0, length: LENGTH };
        Ok(Some(UserNamespace { uids: vec![mapping], gids: vec![mapping] }))
    }

    /// The pod's range is free again.
    pub(crate) fn release(&self, uid: &str) {
        if let Some(given) = &mut *lock(&self.given) {
            given.remove(uid);
        }
    }

    fn range(&self, uid: &str) -> Result<u32, String> {
        let mut given = lock(&self.given);
        let given = given.get_or_insert_with(|| self.noted());
        if let Some(first) = given.get(uid) {
            return Ok(*first);
        }
        let free = (1..=RANGES_MAX).map(|n| n * LENGTH).find(|first| {
            // One that was noted by another hand may lie anywhere.
            given.values().all(|other| other.abs_diff(*first) >= LENGTH)
        });
        let first = free.ok_or("could not find an empty slot to allocate a user namespace")?;
        self.note(uid, first).map_err(|error| {
            format!("failed to note the user namespace of pod {uid:?}: {error}")
        })?;
        given.insert(uid.to_owned(), first);
        Ok(first)
    }

    /// What is in the directories. A file that cannot be read is of a pod that has no sandbox yet,
    /// and so no processes.
    fn noted(&self) -> BTreeMap<String, u32> {
        let entries = std::fs::read_dir(&self.pods_dir).into_iter().flatten().flatten();
        let noted = entries.filter_map(|entry| {
            let bytes = std::fs::read(entry.path().join(FILE)).ok()?;
            let noted: Noted = serde_json::from_slice(&bytes).ok()?;
            Some((entry.file_name().into_string().ok()?, noted.uid_mappings.first()?.host_id))
        });
        noted.collect()
    }

    fn note(&self, uid: &str, first: u32) -> std::io::Result<()> {
        let mapping = || vec![Mapping { host_id: first, container_id: 0, length: LENGTH }];
        let noted = Noted { uid_mappings: mapping(), gid_mappings: mapping() };
        let directory = self.pods_dir.join(uid);
        std::fs::create_dir_all(&directory)?;
        let bytes = serde_json::to_vec(&noted)?;
        stdx::atomic_file::write(&directory.join(FILE), &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::fixture;

    fn pod(uid: &str) -> Pod {
        let mut pod = fixture::pod("Always", vec![], vec![fixture::container("a")]);
        pod.metadata.uid = Some(uid.to_owned());
        pod.spec.as_mut().unwrap().host_users = Some(false);
        pod
    }

    #[test]
    fn every_pod_has_a_range_of_its_own_that_outlives_the_kubelet() {
        let dir = tempfile::tempdir().unwrap();
        let users = Users::new(dir.path().to_path_buf());
        let first = |users: &Users, uid: &str| {
            let found = users.of(&pod(uid)).unwrap().unwrap();
            assert_eq!(found.uids, found.gids);
            assert_eq!((found.uids[0].container_id, found.uids[0].length), (0, 65536));
            found.uids[0].host_id
        };
        assert_eq!((first(&users, "a"), first(&users, "b")), (65536, 131_072));
        assert_eq!(first(&users, "a"), 65536, "it stays the same");
        let again = Users::new(dir.path().to_path_buf());
        assert_eq!((first(&again, "c"), first(&again, "b")), (196_608, 131_072));
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        again.release("a");
        assert_eq!(first(&again, "d"), 65536);
        let mut plain = pod("e");
        plain.spec.as_mut().unwrap().host_users = None;
        assert_eq!(again.of(&plain), Ok(None));
    }
}
