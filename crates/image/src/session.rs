//! A change of the store under way: what a pull or an import brings before an image names it.
//!
//! Sessions of several threads and processes go on beside each other and beside the collector.
//! What a session says it needs stays from then on; what it has not finished lies in a directory
//! of its own, which goes with it. The owner file there is locked as long as the session lives, so
//! that the collector knows the leftovers of a process that was killed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::digest::DigestReader;
use crate::layer::{chain_id, decompress};
use crate::lock::{self, Lock};
use crate::pipe;
use crate::space::Space;
use crate::store::{ImageRecord, Lease};
use crate::unpack::unpack;
use crate::{Digest, Image, ImageError, Limits, Reference, Store};

/// The most layers of an image: what overlayfs takes, less the container's own.
pub const LAYERS_MAX: usize = 499;

/// The name of the file that a living session has locked.
pub(crate) const OWNER: &str = "owner";
/// What a session needs of the store.
pub(crate) const LEASE: &str = "lease.json";

/// What is being brought into the store. Dropping it leaves no unfinished files.
#[derive(Debug)]
pub struct Session {
    store: Store,
    directory: PathBuf,
    /// Opened before anything is written, so that it tells of every write that failed since.
    disk: File,
    _owner: Lock,
}

/// One layer of an image that is brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its tar stream.
    pub diff_id: Digest,
    /// The identifier of its directory, which depends on the layers below.
    pub chain: Digest,
}

/// The layers of an image, the lowest first.
///
/// # Errors
/// When there are more than can be mounted.
pub(crate) fn layers(diff_ids: &[Digest]) -> Result<Vec<Layer>, ImageError> {
    if diff_ids.len() > LAYERS_MAX {
        let limit = u64::try_from(LAYERS_MAX).unwrap_or(u64::MAX);
        return Err(ImageError::Limit { what: "number of layers", limit });
    }
    let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let chain = chain_id(layers.last().map(|below| &below.chain), diff_id);
        layers.push(Layer { diff_id: diff_id.clone(), chain });
    }
    Ok(layers)
}

/// An image all of whose blobs and layers are in the store.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// The digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The identifiers of its layers, the lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of its manifest, configuration and layers as they came.
    pub size: u64,
    /// Its names, and what each pointed to where it came from: the manifest, or an index.
    pub names: Vec<(Reference, Digest)>,
}

impl Session {
    /// Begins.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn begin(store: &Store) -> Result<Self, ImageError> {
        let disk = open(store.dir())?;
        // Between the directory and its lock the collector must not look.
        let _lock = Lock::acquire(store.dir(), lock::COLLECT)?;
        let directory = store.temporary();
        fs::create_dir(&directory).map_err(ImageError::io("create", &directory))?;
        let owner = Lock::acquire(&directory, OWNER)?;
        Ok(Self { store: store.clone(), directory, disk, _owner: owner })
    }

    /// A directory for unfinished files, on the disk of the store.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Refuses when so many bytes more would leave too little of the disk.
    ///
    /// # Errors
    /// [`ImageError::NoSpace`] and [`ImageError::NoInodes`].
    pub fn require_space(&self, bytes: u64) -> Result<(), ImageError> {
        Space::of(&self.directory).require(bytes)
    }

    /// From now on these stay, or are still absent, until the session ends.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn keep(&self, blobs: &[Digest], layers: &[Digest]) -> Result<(), ImageError> {
        let lease = Lease { blobs: blobs.to_vec(), layers: layers.to_vec() };
        let bytes = serde_json::to_vec(&lease).map_err(ImageError::parse("lease"))?;
        let path = self.directory.join(LEASE);
        let _lock = Lock::acquire(self.store.dir(), lock::COLLECT)?;
        fs::write(&path, bytes).map_err(ImageError::io("write", &path))
    }

    /// Whether a layer is there.
    pub fn has_layer(&self, chain: &Digest) -> bool {
        self.store.layer_path(chain).is_dir()
    }

    /// Puts a small document into the store.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_blob(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        let to = self.store.blob_path(&digest);
        if !to.exists() {
            let from = self.directory.join(digest.hex());
            fs::write(&from, bytes).map_err(ImageError::io("write", &from))?;
            fs::set_permissions(&from, fs::Permissions::from_mode(0o600))
                .map_err(ImageError::io("change the mode of", &from))?;
            fs::rename(&from, &to).map_err(ImageError::io("create", &to))?;
        }
        Ok(digest)
    }

    /// Unpacks the last of `layers` from its tar stream, compressed or not; those below it are
    /// there. A layer that is there already is left alone, and its contents are not read.
    ///
    /// # Errors
    /// When the stream is damaged, hostile or not what its digest says, or the disk is full.
    pub fn add_layer(
        &self,
        contents: impl Read + Send,
        layers: &[Layer],
        limits: Limits,
    ) -> Result<(), ImageError> {
        let Some((layer, below)) = layers.split_last() else { return Ok(()) };
        let to = self.store.layer_path(&layer.chain);
        if to.is_dir() {
            return Ok(());
        }
        // Of its own: an attempt that was given up may not have ended yet.
        let root = self.directory.join(format!("layer-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&root).map_err(ImageError::io("create", &root))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
            .map_err(ImageError::io("change the mode of", &root))?;
        let parents: Vec<PathBuf> =
            below.iter().rev().map(|below| self.store.layer_path(&below.chain)).collect();
        let unpacked = self.unpack(contents, layer, &root, &parents, limits);
        if let Err(error) = unpacked {
            fs::remove_dir_all(&root).ok();
            return Err(error);
        }
        match fs::rename(&root, &to) {
            // Somebody else was faster with the same layer.
            Err(_) if to.is_dir() => {
                fs::remove_dir_all(&root).map_err(ImageError::io("remove", &root))
            }
            other => other.map_err(ImageError::io("create", &to)),
        }
    }

    fn unpack(
        &self,
        contents: impl Read + Send,
        layer: &Layer,
        root: &Path,
        parents: &[PathBuf],
        limits: Limits,
    ) -> Result<(), ImageError> {
        let space = Space::of(&self.directory);
        let got = pipe::through(
            |sink| {
                // What is behind the end of the archive counts for the digest, but not without end.
                let most = limits.bytes.saturating_add(limits.entries.saturating_mul(2048));
                let stream = decompress(contents)?;
                let mut reader = DigestReader::new(stream.take(most));
                io::copy(&mut reader, sink)?;
                Ok(reader.finish().0)
            },
            |stream| unpack(stream, root, parents, limits, &space),
        )?;
        if got == layer.diff_id {
            return Ok(());
        }
        let name = format!("layer {}", layer.diff_id);
        Err(ImageError::DigestMismatch { name, want: layer.diff_id.clone(), got })
    }

    /// Writes what was brought so far to the disk, so that less is left for the end. What cannot be
    /// written is told there.
    pub fn write_out(&self) {
        // With a handle of its own: a failure is told once to each of them.
        if let Ok(disk) = open(self.store.dir()) {
            rustix::fs::syncfs(&disk).ok();
        }
    }

    /// Makes images of what was brought, and gives them their names, all together.
    ///
    /// # Errors
    /// When that cannot be written; names are the last to be.
    pub fn commit(&self, images: &[NewImage]) -> Result<Vec<Image>, ImageError> {
        // A name points only to what survives a power loss.
        let store = self.store.dir();
        rustix::fs::syncfs(&self.disk).map_err(|e| ImageError::io("sync", store)(e.into()))?;
        let _lock = Lock::acquire(store, lock::CHANGE)?;
        for image in images {
            let record = ImageRecord {
                manifest: image.manifest.clone(),
                blobs: vec![image.manifest.clone(), image.id.clone()],
                layers: image.layers.clone(),
                size: image.size,
            };
            self.store.set_image(&image.id, &record)?;
        }
        for image in images {
            for (name, target) in &image.names {
                self.store.set_name(name, &image.id, target)?;
            }
        }
        images.iter().map(|image| self.store.require(&image.id)).collect()
    }
}

fn open(store: &Path) -> Result<File, ImageError> {
    File::open(store).map_err(ImageError::io("open", store))
}

impl Drop for Session {
    fn drop(&mut self) {
        // The collector removes what cannot be removed now.
        fs::remove_dir_all(&self.directory).ok();
    }
}
