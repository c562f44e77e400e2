//! The files of static pods, and following them.
//!
//! Changes are told by the kernel and looked at once; all files are looked at from time to time
//! besides. A file that cannot be used keeps the pod that it last gave until the next of those
//! looks, so that nothing ends because a file is seen while it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;

use super::manifest::Origin;
use super::{Source, key, manifest};
use crate::kubelet::Kubelet;
use crate::pod::spec;

/// Files of a directory that are read.
const FILES_MAX: usize = 1000;
/// Upstream `maxConfigLength`.
const FILE_BYTES_MAX: u64 = 10 << 20;

/// Reads the files, starts their pods, and follows both until the kubelet ends. Answers after the
/// first look.
pub(crate) async fn follow(kubelet: &Arc<Kubelet>) {
    let Some(path) = kubelet.config.pod_manifest_path.clone() else { return };
    let watch = Watch::new(&path);
    let manifests = Manifests::new(&path, &kubelet.config.node_name);
    let manifests = look(kubelet, manifests, true).await;
    let kubelet = Arc::clone(kubelet);
    drop(stdx::task::spawn("static-pods", async move {
        go_on(&kubelet, manifests, watch).await;
    }));
}

async fn go_on(kubelet: &Arc<Kubelet>, mut manifests: Manifests, watch: Watch) {
    let clock = Arc::clone(&kubelet.deps.clock);
    let mut timer = clock.sleep(kubelet.config.file_check_frequency);
    loop {
        tokio::select! {
            () = watch.changed() => manifests = look(kubelet, manifests, false).await,
            () = &mut timer => {
                timer = clock.sleep(kubelet.config.file_check_frequency);
                // The directory may be another one of the same name.
                watch.renew();
                manifests = look(kubelet, manifests, true).await;
            }
            () = kubelet.shutdown.begun() => return,
        }
    }
}

async fn look(kubelet: &Arc<Kubelet>, mut manifests: Manifests, complete: bool) -> Manifests {
    let now = kubelet.deps.clock.now();
    let path = manifests.path.clone();
    // Reading waits for the disk.
    let looked = tokio::task::spawn_blocking(move || {
        let outcome = manifests.look(now, complete);
        (manifests, outcome)
    });
    let Ok((manifests, outcome)) = looked.await else {
        return Manifests::new(&path, &kubelet.config.node_name);
    };
    match outcome {
        Ok(()) => {
            kubelet.static_pods.want(Source::Files, manifests.pods());
            kubelet.static_pods.apply(kubelet);
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "manifests of static pods not listed");
        }
    }
    manifests
}

/// What the files last said.
struct Manifests {
    path: PathBuf,
    node_name: String,
    files: BTreeMap<PathBuf, File>,
}

/// One file.
#[derive(Default)]
struct File {
    /// Of its content.
    hash: Option<String>,
    pod: Option<Arc<Pod>>,
    error: Option<String>,
}

impl Manifests {
    fn new(path: &Path, node_name: &str) -> Self {
        Self { path: path.to_owned(), node_name: node_name.to_owned(), files: BTreeMap::new() }
    }

    /// Reads what changed. A `complete` look lets go of the pods of files that cannot be used.
    fn look(&mut self, now: Timestamp, complete: bool) -> io::Result<()> {
        let (paths, is_directory) = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => (below(&self.path)?, true),
            Ok(_) => (vec![self.path.clone()], false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), true),
            Err(error) => return Err(error),
        };
        let mut before = std::mem::take(&mut self.files);
        for path in paths {
            let mut file = before.remove(&path).unwrap_or_default();
            if self.take(&path, &mut file, now)
                && let Some(error) = &file.error
            {
                tracing::warn!(file = %path.display(), error, "manifest of a static pod not used");
            }
            if complete && is_directory && file.error.is_some() {
                file.pod = None;
            }
            self.files.insert(path, file);
        }
        Ok(())
    }

    /// Reads one file; answers whether it is another than before.
    fn take(&self, path: &Path, file: &mut File, now: Timestamp) -> bool {
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let error = Some(error.to_string());
                let is_new = file.error != error;
                (file.hash, file.error) = (None, error);
                return is_new;
            }
        };
        let hash = Some(manifest::hash(&bytes));
        if file.hash == hash {
            return false;
        }
        file.hash = hash;
        file.error = None;
        match manifest::read(&bytes, Origin::File(path), &self.node_name, now) {
            // Something else was written in another way.
            Ok(pod) if file.pod.as_ref().is_some_and(|old| is_same(old, &pod)) => {}
            Ok(pod) => file.pod = Some(Arc::new(pod)),
            Err(error) => file.error = Some(error.to_string()),
        }
        true
    }

    /// The pods, by the names of their files; of several that cannot be told apart the first.
    fn pods(&self) -> Vec<Arc<Pod>> {
        let (mut keys, mut uids) = (BTreeSet::new(), BTreeSet::new());
        let mut pods = Vec::new();
        for (path, pod) in
            self.files.iter().filter_map(|(path, file)| Some((path, file.pod.as_ref()?)))
        {
            if keys.insert(key(pod)) & uids.insert(spec::uid(pod).to_owned()) {
                pods.push(Arc::clone(pod));
            } else {
                let (file, pod) = (path.display(), spec::described(pod));
                tracing::warn!(%file, pod, "another file has a static pod of this name or uid");
            }
        }
        pods
    }
}

/// Whether two readings are the same pod, apart from when they were read.
pub(super) fn is_same(old: &Pod, new: &Pod) -> bool {
    let plain = |pod: &Pod| {
        let mut pod = pod.clone();
        if let Some(annotations) = &mut pod.metadata.annotations {
            annotations.remove(manifest::SEEN);
        }
        pod
    };
    plain(old) == plain(new)
}

/// The files of a directory that are not hidden, by name.
fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links are followed.
        let is_directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if !is_hidden && !is_directory {
            paths.push(entry.path());
        }
    }
    paths.sort();
    if paths.len() > FILES_MAX {
        let directory = directory.display();
        tracing::warn!(%directory, max = FILES_MAX, "too many manifests of static pods");
        paths.truncate(FILES_MAX);
    }
    Ok(paths)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // What is no file may never end, or wait to be opened.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// The kernel's word that files changed; without it they are looked at from time to time only.
struct Watch {
    path: PathBuf,
    inotify: Option<pipe::Receiver>,
}

impl Watch {
    fn new(path: &Path) -> Self {
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            // It is read as a pipe is.
            .and_then(|fd| pipe::Receiver::from_file_unchecked(fs::File::from(fd)));
        let inotify = opened
            .inspect_err(|error| tracing::warn!(%error, "manifests of static pods not watched"))
            .ok();
        let watch = Self { path: path.to_owned(), inotify };
        watch.renew();
        watch
    }

    fn renew(&self) {
        let Some(inotify) = &self.inotify else { return };
        // A file may be replaced, which only its directory tells.
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = if self.path.is_dir() { Some(self.path.as_path()) } else { parent };
        let events = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        if let Err(error) = inotify::add_watch(inotify, directory.unwrap_or(Path::new(".")), events)
        {
            tracing::debug!(path = %self.path.display(), %error, "directory not watched");
        }
    }

    /// Resolves when something changed. Safe to drop.
    async fn changed(&self) {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        let mut buffer = [0; 4096];
        loop {
            if inotify.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut is_told = false;
            // What exactly changed does not matter: everything is read.
            while inotify.try_read(&mut buffer).is_ok_and(|len| len > 0) {
                is_told = true;
            }
            if is_told {
                // The path itself may have come.
                self.renew();
                return;
            }
        }
    }
}
