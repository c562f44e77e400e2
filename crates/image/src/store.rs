//! The store on disk.
//!
//! ```text
//! <dir>/blobs/sha256/<digest>     manifests, configurations, layers as they came
//! <dir>/layers/<chain id>/        a layer unpacked, as overlayfs reads it
//! <dir>/images/<image id>.json    an image: its manifest and its layers
//! <dir>/names/<hash>.json         a name: the image it points to
//! <dir>/leases/<owner>.json       layers that a container uses
//! <dir>/tmp/<session>/            what is not complete yet
//! <dir>/boot                      in which run of the machine the store was last opened
//! <dir>/lock, <dir>/collect.lock  held by whoever changes any of the above
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::archive::{self, ImportOptions};
use crate::lock::{self, Lock};
use crate::usage::{Usage, entries, measure_into};
use crate::{Digest, ImageConfig, ImageError, Reference, digest, session};

/// The images of a node. Cheap to clone; safe to share between threads and processes.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Names with a tag, sorted.
    pub repo_tags: Vec<String>,
    /// Names with a digest, sorted.
    pub repo_digests: Vec<String>,
    /// Bytes of its manifest, configuration and layers as they came.
    pub size: u64,
    layers: Vec<Digest>,
}

/// `images/<image id>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageRecord {
    pub(crate) manifest: Digest,
    /// Every blob of it, its manifest too.
    pub(crate) blobs: Vec<Digest>,
    /// Chain identifiers, the lowest layer first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) size: u64,
}

/// `names/<hash>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NameRecord {
    name: String,
    image: Digest,
    /// What the name pointed to where it came from: the image's manifest, or an index.
    manifest: Digest,
}

/// `leases/<owner>.json`, and what a session needs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lease {
    #[serde(default)]
    pub(crate) blobs: Vec<Digest>,
    pub(crate) layers: Vec<Digest>,
}

impl Store {
    /// Opens the store in `dir`, making it if need be.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir = dir.into();
        for sub in ["blobs/sha256", "layers", "images", "names", "leases", "tmp"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(ImageError::io("create", &path))?;
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711))
            .map_err(ImageError::io("change the mode of", &dir))?;
        // Images hold devices, and programs that run as root for everybody: nobody else of this
        // machine may reach them.
        for sub in ["layers", "tmp"] {
            let path = dir.join(sub);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
                .map_err(ImageError::io("change the mode of", &path))?;
        }
        let store = Self { dir };
        store.distrust_leftovers()?;
        Ok(store)
    }

    /// Layers are synced when an image names them; of others, a power loss may have left a part.
    fn distrust_leftovers(&self) -> Result<(), ImageError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let path = self.dir.join("boot");
        if fs::read_to_string(&path).is_ok_and(|noted| noted == boot) {
            return Ok(());
        }
        self.gc()?;
        stdx::atomic_file::write(&path, boot.as_bytes(), 0o600)
            .map_err(ImageError::io("write", &path))
    }

    /// Where the store is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Imports every image of an OCI or docker archive, compressed or not, and answers them.
    ///
    /// # Errors
    /// When the archive is damaged, names nothing, or does not fit this machine; the store then
    /// has no new name.
    pub fn import(
        &self,
        archive: impl Read + Send,
        options: &ImportOptions,
    ) -> Result<Vec<Image>, ImageError> {
        archive::import(self, archive, options).inspect_err(|_| {
            // Whole layers, too, of what came to nothing. What cannot be removed now, the next
            // collection removes.
            self.gc().ok();
        })
    }

    /// Every image, by identifier.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let names = self.names()?;
        let mut images = Vec::new();
        for stem in self.stems("images")? {
            let Ok(id) = Digest::parse(&format!("sha256:{stem}")) else { continue };
            if let Some(record) = self.record(&id)? {
                images.push(assemble(id, record, &names));
            }
        }
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(images)
    }

    /// The image a user means: an identifier with or without `sha256:`, or any name.
    ///
    /// # Errors
    /// When the text is not a reference, or the store cannot be read.
    pub fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let Some(id) = self.resolve(reference)? else { return Ok(None) };
        let Some(record) = self.record(&id)? else { return Ok(None) };
        Ok(Some(assemble(id, record, &self.names()?)))
    }

    /// What a name points to where it came from, a manifest or an index, with the image that this
    /// is here; `None` when a part of it is missing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pointed(&self, reference: &Reference) -> Result<Option<(Digest, Image)>, ImageError> {
        let Some(image) = self.find(&reference.to_string())? else { return Ok(None) };
        if !image.layers.iter().all(|layer| self.layer_path(layer).is_dir()) {
            return Ok(None);
        }
        let target = match reference.digest() {
            Some(digest) => Some(digest.clone()),
            None => self
                .read::<NameRecord>(&self.name_path(&reference.to_string()))?
                .map(|name| name.manifest),
        };
        Ok(target.map(|target| (target, image)))
    }

    /// Removes the image a user means with all its names, and then what nothing needs any more.
    /// Answers whether there was one.
    ///
    /// # Errors
    /// As for [`Store::find`], and when a file cannot be removed.
    pub fn remove(&self, reference: &str) -> Result<bool, ImageError> {
        let _lock = Lock::acquire(&self.dir, lock::CHANGE)?;
        let Some(id) = self.resolve(reference)? else { return Ok(false) };
        for name in self.names()?.into_iter().filter(|name| name.image == id) {
            self.unlink(&self.name_path(&name.name))?;
        }
        self.unlink(&self.image_path(&id))?;
        self.collect()?;
        Ok(true)
    }

    /// Removes one name; the image goes with its last name. Answers whether there was one.
    ///
    /// # Errors
    /// As for [`Store::remove`].
    pub fn untag(&self, name: &str) -> Result<bool, ImageError> {
        let _lock = Lock::acquire(&self.dir, lock::CHANGE)?;
        let name = Reference::parse(name)?.to_string();
        let Some(record) = self.read::<NameRecord>(&self.name_path(&name))? else {
            return Ok(false);
        };
        self.unlink(&self.name_path(&name))?;
        if self.names()?.iter().all(|other| other.image != record.image) {
            self.unlink(&self.image_path(&record.image))?;
        }
        self.collect()?;
        Ok(true)
    }

    /// Gives an image that is present another name.
    ///
    /// # Errors
    /// When it is not present, or a name is malformed.
    pub fn tag(&self, reference: &str, name: &str) -> Result<(), ImageError> {
        let _lock = Lock::acquire(&self.dir, lock::CHANGE)?;
        let id = self
            .resolve(reference)?
            .ok_or_else(|| ImageError::Missing(format!("image {reference:?}")))?;
        let record = self.record(&id)?.ok_or_else(|| ImageError::Missing(format!("image {id}")))?;
        self.set_name(&Reference::parse(name)?, &id, &record.manifest)
    }

    /// Removes blobs, layers and leftovers that no image and no lease needs.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn gc(&self) -> Result<(), ImageError> {
        let _lock = Lock::acquire(&self.dir, lock::CHANGE)?;
        self.collect()
    }

    /// The image's configuration.
    ///
    /// # Errors
    /// When it is damaged or was removed meanwhile.
    pub fn config(&self, image: &Image) -> Result<ImageConfig, ImageError> {
        let path = self.blob_path(&image.id);
        self.read(&path)?.ok_or_else(|| ImageError::Missing(format!("configuration {}", image.id)))
    }

    /// Keeps the layers of images for `owner` until [`Store::release`], and answers for each
    /// image their directories, the uppermost first, as overlayfs wants them.
    ///
    /// # Errors
    /// When an image was removed meanwhile, or the lease cannot be written.
    pub fn lease(&self, owner: &str, images: &[Image]) -> Result<Vec<Vec<PathBuf>>, ImageError> {
        let _lock = Lock::acquire(&self.dir, lock::COLLECT)?;
        let paths = |image: &Image| -> Vec<PathBuf> {
            image.layers.iter().rev().map(|chain| self.layer_path(chain)).collect()
        };
        let layers: Vec<Vec<PathBuf>> = images.iter().map(paths).collect();
        if let Some(missing) = layers.iter().flatten().find(|layer| !layer.is_dir()) {
            return Err(ImageError::Missing(missing.display().to_string()));
        }
        let kept = images.iter().flat_map(|image| image.layers.clone()).collect();
        let lease = Lease { blobs: Vec::new(), layers: kept };
        let lease = serde_json::to_vec(&lease).map_err(ImageError::parse("lease"))?;
        // Not synced: after a power loss no container of before runs.
        let path = self.lease_path(owner);
        // Should this be interrupted, the collector finds it there.
        let begun = self.temporary();
        fs::write(&begun, lease).map_err(ImageError::io("write", &begun))?;
        fs::rename(&begun, &path).map_err(ImageError::io("write", &path))?;
        Ok(layers)
    }

    /// Ends a lease. One that does not exist is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn release(&self, owner: &str) -> Result<(), ImageError> {
        self.unlink(&self.lease_path(owner))
    }

    /// Who holds leases.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn leases(&self) -> Result<Vec<String>, ImageError> {
        self.stems("leases")
    }

    /// What the store takes on disk. Walks all of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self) -> Result<Usage, ImageError> {
        let mut usage = Usage::default();
        let mut seen = BTreeSet::new();
        for sub in ["blobs", "layers"] {
            measure_into(&self.dir.join(sub), &mut usage, &mut seen)?;
        }
        Ok(usage)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.dir.join("layers").join(chain.hex())
    }

    /// A new path under `tmp`, on the same file system as everything else.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.dir.join("tmp").join(uuid::Uuid::new_v4().to_string())
    }

    /// Writes an image's record; its blobs and layers are durable already.
    pub(crate) fn set_image(&self, id: &Digest, record: &ImageRecord) -> Result<(), ImageError> {
        self.write(&self.image_path(id), record)
    }

    /// Points a name to an image.
    ///
    /// A name that pointed to another image before leaves that one without it, perhaps without any;
    /// it is then removed like any other that nobody uses.
    pub(crate) fn set_name(
        &self,
        name: &Reference,
        id: &Digest,
        target: &Digest,
    ) -> Result<(), ImageError> {
        let name = name.to_string();
        let path = self.name_path(&name);
        self.write(&path, &NameRecord { name, image: id.clone(), manifest: target.clone() })
    }

    pub(crate) fn require(&self, id: &Digest) -> Result<Image, ImageError> {
        self.find(&id.to_string())?.ok_or_else(|| ImageError::Missing(format!("image {id}")))
    }

    fn resolve(&self, reference: &str) -> Result<Option<Digest>, ImageError> {
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        if digest::is_hex_digest(hex) {
            let id = Digest::parse(&format!("sha256:{hex}"))?;
            return Ok(self.image_path(&id).exists().then_some(id));
        }
        let wanted = Reference::parse(reference)?;
        let Some(digest) = wanted.digest() else {
            let name = self.read::<NameRecord>(&self.name_path(&wanted.to_string()))?;
            return Ok(name.map(|name| name.image));
        };
        let same_repository = |name: &NameRecord| {
            Reference::parse(&name.name).is_ok_and(|r| r.repository() == wanted.repository())
        };
        let found = self.names()?.into_iter().find(|n| n.manifest == *digest && same_repository(n));
        Ok(found.map(|name| name.image))
    }

    /// With the lock for changes held.
    fn collect(&self) -> Result<(), ImageError> {
        let _lock = Lock::acquire(&self.dir, lock::COLLECT)?;
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for stem in self.stems("images")? {
            let path = self.dir.join("images").join(format!("{stem}.json"));
            if let Some(record) = self.read::<ImageRecord>(&path)? {
                blobs.extend(record.blobs.iter().map(|d| d.hex().to_owned()));
                layers.extend(record.layers.iter().map(|d| d.hex().to_owned()));
            }
        }
        for owner in self.leases()? {
            if let Some(lease) = self.read::<Lease>(&self.lease_path(&owner))? {
                layers.extend(lease.layers.iter().map(|d| d.hex().to_owned()));
            }
        }
        let mut sessions = BTreeSet::new();
        for directory in entries(&self.dir.join("tmp"))? {
            if !Lock::is_held(&directory, session::OWNER) {
                continue;
            }
            sessions.insert(directory.file_name().unwrap_or_default().to_string_lossy().into());
            let lease: Lease = self.read(&directory.join(session::LEASE))?.unwrap_or_default();
            blobs.extend(lease.blobs.iter().map(|d| d.hex().to_owned()));
            layers.extend(lease.layers.iter().map(|d| d.hex().to_owned()));
        }
        self.sweep("blobs/sha256", &blobs)?;
        self.sweep("layers", &layers)?;
        self.sweep("tmp", &sessions)
    }

    fn sweep(&self, sub: &str, keep: &BTreeSet<String>) -> Result<(), ImageError> {
        for path in entries(&self.dir.join(sub))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if keep.contains(&name) {
                continue;
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            absent_is_fine(removed).map_err(ImageError::io("remove", &path))?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<NameRecord>, ImageError> {
        let mut names = Vec::new();
        for stem in self.stems("names")? {
            let path = self.dir.join("names").join(format!("{stem}.json"));
            names.extend(self.read::<NameRecord>(&path)?);
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn record(&self, id: &Digest) -> Result<Option<ImageRecord>, ImageError> {
        self.read(&self.image_path(id))
    }

    fn image_path(&self, id: &Digest) -> PathBuf {
        self.dir.join("images").join(format!("{}.json", id.hex()))
    }

    /// Names hold slashes, so the file is called by the hash of the name.
    fn name_path(&self, name: &str) -> PathBuf {
        self.dir.join("names").join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    fn lease_path(&self, owner: &str) -> PathBuf {
        self.dir.join("leases").join(format!("{owner}.json"))
    }

    fn stems(&self, sub: &str) -> Result<Vec<String>, ImageError> {
        let paths = entries(&self.dir.join(sub))?;
        let stems = paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
        Ok(stems
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, ImageError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(ImageError::parse(path.display().to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("read", path)(error)),
        }
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), ImageError> {
        let bytes =
            serde_json::to_vec(value).map_err(ImageError::parse(path.display().to_string()))?;
        stdx::atomic_file::write(path, &bytes, 0o600).map_err(ImageError::io("write", path))
    }

    fn unlink(&self, path: &Path) -> Result<(), ImageError> {
        absent_is_fine(fs::remove_file(path)).map_err(ImageError::io("remove", path))
    }
}

fn assemble(id: Digest, record: ImageRecord, names: &[NameRecord]) -> Image {
    let (mut repo_tags, mut repo_digests) = (Vec::new(), BTreeMap::new());
    for name in names.iter().filter(|name| name.image == id) {
        let Ok(reference) = Reference::parse(&name.name) else { continue };
        repo_digests.insert(reference.pinned(name.manifest.clone()).to_string(), ());
        if reference.tag().is_some() {
            repo_tags.push(name.name.clone());
        }
    }
    Image {
        id,
        manifest: record.manifest,
        repo_tags,
        repo_digests: repo_digests.into_keys().collect(),
        size: record.size,
        layers: record.layers,
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
