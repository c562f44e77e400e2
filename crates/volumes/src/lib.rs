//! The node's part of volumes that are its directories: it says where they are, and removes those
//! that the provisioner names in the node's annotations. See `docs/adr/0009-local-volumes.md`.
//!
//! Start reading at [`run`].
//!
//! Invariants: nothing is removed but directories directly below the configured one whose names
//! begin with that of a volume that is named; a volume is called removed only when its directory
//! is gone. Doing it again changes nothing.
//!
//! It does not make directories (the kubelet does), measure them, or know the volumes' objects.
//!
//! Tested by unit tests, and by the end-to-end test of a claim without a class.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::Typed;
use api::volumes::{
    LOCAL_PATH_DIRECTORY, LOCAL_PATH_REMOVE, LOCAL_PATH_REMOVED, Labels, annotation,
};
use client::{Client, ClientError, Informer, InformerConfig, ListOptions, Patch};
use clock::SharedClock;
use k8s_openapi::api::core::v1::Node;
use meta::ObjectKey;
use serde_json::json;
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;
use tokio::sync::Notify;

/// After this time something that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// Below which directory the volumes are.
    pub directory: PathBuf,
}

/// What it works with.
pub struct Deps {
    /// The API as the node.
    pub client: Client,
    /// Time.
    pub clock: SharedClock,
}

/// Follows the node's own object until `shutdown`.
///
/// # Errors
/// None; what fails is tried again.
pub async fn run(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let (Config { node_name: node, directory }, Deps { client, clock }) = (config, deps);
    let options = ListOptions::fields(format!("metadata.name={node}"));
    let only = InformerConfig { options, ..InformerConfig::all::<Node>() };
    let nodes = Informer::spawn(&client, &clock, only, &shutdown, |object| {
        Ok(Node::of(object)?.metadata.annotations.unwrap_or_default())
    });
    let changed = Arc::new(Notify::new());
    let told = Arc::clone(&changed);
    nodes.on_change(move |_, _| told.notify_one());
    ready.set();
    loop {
        let known = nodes.get(&ObjectKey::new("", &node));
        let result = match &known {
            Some(known) => follow(&client, &node, &directory, known).await,
            None => Ok(()),
        };
        let pause = async {
            match &result {
                Ok(()) => changed.notified().await,
                Err(error) => {
                    let error = telemetry::Chain(error).to_string();
                    tracing::warn!(error, "local volumes are not kept");
                    clock.sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = pause => {}
            () = shutdown.begun() => return Ok(()),
        }
    }
}

/// What keeps directories from being removed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{} cannot be removed", .0.display())]
    Remove(PathBuf, #[source] io::Error),
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("the node's annotations cannot be written")]
    Write(#[source] ClientError),
}

async fn follow(
    client: &Client,
    node: &str,
    directory: &Path,
    known: &Labels,
) -> Result<(), Error> {
    let named = annotation(Some(known), LOCAL_PATH_REMOVE).unwrap_or_default().to_owned();
    let root = directory.to_owned();
    let names = named.clone();
    // Directories may be large.
    let removal = tokio::task::spawn_blocking(move || remove(&root, &names)).await;
    removal.map_err(|error| Error::Remove(directory.to_owned(), io::Error::other(error)))??;
    let place = directory.to_str();
    let done = (!named.is_empty()).then_some(&*named);
    let is_told = annotation(Some(known), LOCAL_PATH_DIRECTORY) == place
        && annotation(Some(known), LOCAL_PATH_REMOVED) == done;
    if is_told {
        return Ok(());
    }
    let annotations = json!({ LOCAL_PATH_DIRECTORY: place, LOCAL_PATH_REMOVED: done });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    client.api::<Node>("").patch(node, &patch).await.map(drop).map_err(Error::Write)
}

/// Removes the directories of the volumes that are named, and nothing else: a directory is a
/// volume's by the part of its name before the first `_`.
fn remove(root: &Path, names: &str) -> Result<(), Error> {
    let names: BTreeSet<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::Read(root.to_owned(), error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::Read(root.to_owned(), error))?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some((volume, _)) = name.to_str().and_then(|name| name.split_once('_')) else {
            continue;
        };
        // A link is somebody else's.
        if names.contains(volume) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Remove(path, error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_removed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        for name in ["pvc-a_n_c", "pvc-b_n_c", "pvc-a", "pvc-aa_n_c"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::write(outside.path().join("file"), "kept").unwrap();
        let inner = root.path().join("pvc-a_n_c/link");
        std::os::unix::fs::symlink(outside.path(), inner).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("pvc-a_link")).unwrap();
        remove(root.path(), "pvc-a,../x,").unwrap();
        let mut left: Vec<_> = std::fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["pvc-a", "pvc-a_link", "pvc-aa_n_c", "pvc-b_n_c"]);
        assert!(outside.path().join("file").exists());
        remove(&root.path().join("absent"), "pvc-a").unwrap();
    }
}
