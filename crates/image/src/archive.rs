//! Imports archives: OCI layouts in a tar, and what `docker save` writes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use tar::{Archive, EntryType};

use crate::config::{
    self, Descriptor, DockerManifest, ImageConfig, Index, MEDIA_TYPE_CONFIG, MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST, Manifest, Platform,
};
use crate::digest::DigestReader;
use crate::layer::{chain_id, decompress};
use crate::store::{ImageRecord, Store};
use crate::unpack::unpack;
use crate::{Digest, ImageError, Limits, Reference};

/// Annotations that carry an image's name, the better one first.
const NAME_ANNOTATIONS: [&str; 2] =
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Larger documents are not manifests; registries refuse them too.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Indexes may point to indexes; nobody nests them deeper.
const INDEX_DEPTH_MAX: usize = 4;

/// How an archive is imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Names the image when the archive holds one and does not name it.
    pub name: Option<String>,
    /// What is allowed at most.
    pub limits: Limits,
}

/// An image of the archive, before it is unpacked.
struct Found {
    names: Vec<Reference>,
    digest: Digest,
    manifest: Manifest,
}

/// With the store's lock held. Answers the identifiers of the images.
pub(crate) fn import(
    store: &Store,
    archive: impl Read,
    options: &ImportOptions,
) -> Result<Vec<Digest>, ImageError> {
    let staging = Staging::read(store, archive, options.limits)?;
    let mut found = if staging.files.contains_key("index.json") {
        staging.oci_images()?
    } else if staging.files.contains_key("manifest.json") {
        staging.docker_images()?
    } else {
        return Err(ImageError::UnrecognizedArchive);
    };
    if let (Some(name), [only]) = (&options.name, found.as_mut_slice()) {
        only.names = vec![Reference::parse(name)?];
    }
    if found.is_empty() {
        return Err(ImageError::NoPlatform(format!("linux/{}", config::architecture())));
    }
    if found.iter().any(|image| image.names.is_empty()) {
        return Err(ImageError::Unnamed);
    }
    // Names come last and all together, so that a damaged archive leaves none.
    let ids: Result<Vec<_>, _> =
        found.iter().map(|image| staging.install(image, options.limits)).collect();
    let ids = ids?;
    for (image, id) in found.iter().zip(&ids) {
        for name in &image.names {
            store.set_name(name, id)?;
        }
    }
    Ok(ids)
}

/// The archive's files, each under a name of its own, removed when this is dropped.
struct Staging<'a> {
    store: &'a Store,
    directory: PathBuf,
    files: BTreeMap<String, Staged>,
}

#[derive(Clone)]
struct Staged {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // The collector removes what cannot be removed now.
        fs::remove_dir_all(&self.directory).ok();
    }
}

impl<'a> Staging<'a> {
    fn read(store: &'a Store, archive: impl Read, limits: Limits) -> Result<Self, ImageError> {
        let directory = store.temporary();
        fs::create_dir(&directory).map_err(ImageError::io("create", &directory))?;
        let mut staging = Self { store, directory, files: BTreeMap::new() };
        let mut links = Vec::new();
        let mut bytes = 0u64;
        let mut archive = Archive::new(decompress(archive).map_err(ImageError::Archive)?);
        for (number, entry) in archive.entries().map_err(ImageError::Archive)?.enumerate() {
            let entry = entry.map_err(ImageError::Archive)?;
            bytes = bytes.saturating_add(entry.size());
            if bytes > limits.bytes {
                return Err(ImageError::Limit { what: "size of archive", limit: limits.bytes });
            }
            if u64::try_from(number).unwrap_or(u64::MAX) >= limits.entries {
                let what = "number of files in the archive";
                return Err(ImageError::Limit { what, limit: limits.entries });
            }
            let name = normalise(&entry.path_bytes());
            match entry.header().entry_type() {
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    let hard = entry.header().entry_type() == EntryType::Link;
                    links.push((name, normalise(&target), hard));
                }
                EntryType::Regular | EntryType::Continuous => {
                    staging.stage(name, number, entry)?;
                }
                _ => {}
            }
        }
        staging.resolve_links(links);
        Ok(staging)
    }

    fn stage(
        &mut self,
        name: String,
        number: usize,
        contents: impl Read,
    ) -> Result<(), ImageError> {
        let path = self.directory.join(number.to_string());
        let mut file = File::create_new(&path).map_err(ImageError::io("create", &path))?;
        let mut reader = DigestReader::new(contents);
        // The archive is the likelier culprit than the disk, and the cause says which it was.
        io::copy(&mut reader, &mut file).map_err(ImageError::Archive)?;
        file.sync_data().map_err(ImageError::io("write", &path))?;
        let (digest, size) = reader.finish();
        self.files.insert(name, Staged { path, digest, size });
        Ok(())
    }

    /// Older archives name a layer that two images share by a link to its first place.
    fn resolve_links(&mut self, links: Vec<(String, String, bool)>) {
        for (name, target, hard) in links {
            let target = if hard { target } else { beside(&name, &target) };
            if let Some(staged) = self.files.get(&target).cloned() {
                self.files.insert(name, staged);
            }
        }
    }

    fn oci_images(&self) -> Result<Vec<Found>, ImageError> {
        let index: Index = self.document("index.json")?;
        let mut found = Vec::new();
        for descriptor in index.manifests {
            let names = names(&descriptor.annotations)?;
            if let Some((digest, manifest)) = self.manifest(&descriptor, INDEX_DEPTH_MAX)? {
                found.push(Found { names, digest, manifest });
            }
        }
        Ok(merged(found))
    }

    /// The manifest for this machine that a descriptor leads to.
    fn manifest(
        &self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<(Digest, Manifest)>, ImageError> {
        if descriptor.platform.as_ref().is_some_and(|platform| !runs_here(platform)) {
            return Ok(None);
        }
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        self.verify(&name, &descriptor.digest)?;
        if !config::is_index(&descriptor.media_type) {
            return Ok(Some((descriptor.digest.clone(), self.document(&name)?)));
        }
        if depth == 0 {
            let limit = u64::try_from(INDEX_DEPTH_MAX).unwrap_or(0);
            return Err(ImageError::Limit { what: "depth of index", limit });
        }
        let index: Index = self.document(&name)?;
        for inner in &index.manifests {
            // A part of an index may be left out of an archive made for one platform.
            let present = self.files.contains_key(&format!("blobs/sha256/{}", inner.digest.hex()));
            if let (true, Some(found)) = (present, self.manifest(inner, depth - 1)?) {
                return Ok(Some(found));
            }
        }
        Err(ImageError::NoPlatform(format!("linux/{}", config::architecture())))
    }

    fn docker_images(&self) -> Result<Vec<Found>, ImageError> {
        let entries: Vec<DockerManifest> = self.document("manifest.json")?;
        let mut found = Vec::new();
        for entry in entries {
            let descriptor = |name: &str, media_type: &str| {
                let staged = self.staged(&normalise(name.as_bytes()))?;
                Ok::<_, ImageError>(Descriptor {
                    media_type: media_type.to_owned(),
                    digest: staged.digest.clone(),
                    size: staged.size,
                    platform: None,
                    annotations: BTreeMap::new(),
                })
            };
            let layers: Result<Vec<_>, _> =
                entry.layers.iter().map(|name| descriptor(name, MEDIA_TYPE_LAYER)).collect();
            let manifest = Manifest {
                schema_version: 2,
                media_type: MEDIA_TYPE_MANIFEST.to_owned(),
                config: descriptor(&entry.config, MEDIA_TYPE_CONFIG)?,
                layers: layers?,
            };
            // Such an archive has no manifest of the registry's form: it gets one.
            let bytes = serde_json::to_vec(&manifest).map_err(ImageError::parse("manifest"))?;
            let digest = Digest::of(&bytes);
            let path = self.store.blob_path(&digest);
            stdx::atomic_file::write(&path, &bytes, 0o600)
                .map_err(ImageError::io("write", &path))?;
            let names: Result<Vec<_>, _> =
                entry.repo_tags.unwrap_or_default().iter().map(|t| Reference::parse(t)).collect();
            found.push(Found { names: names?, digest, manifest });
        }
        Ok(merged(found))
    }

    /// Moves an image's blobs into the store and unpacks its layers.
    fn install(&self, image: &Found, limits: Limits) -> Result<Digest, ImageError> {
        let id = image.manifest.config.digest.clone();
        let mut blobs = vec![image.digest.clone(), id.clone()];
        blobs.extend(image.manifest.layers.iter().map(|layer| layer.digest.clone()));
        for blob in &blobs {
            self.move_blob(blob)?;
        }
        let path = self.store.blob_path(&id);
        let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(ImageError::parse(format!("config {id}")))?;
        if !config.architecture.is_empty() && config.architecture != config::architecture() {
            return Err(ImageError::NoPlatform(format!("linux/{}", config::architecture())));
        }
        let (layers, diff_ids) = (&image.manifest.layers, &config.rootfs.diff_ids);
        if layers.len() != diff_ids.len() {
            let (manifest, config) = (layers.len(), diff_ids.len());
            return Err(ImageError::LayerCount { manifest, config });
        }
        let mut chain: Vec<Digest> = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            chain.push(self.install_layer(layer, diff_id, &chain, limits)?);
        }
        let manifest = fs::metadata(self.store.blob_path(&image.digest)).map_or(0, |m| m.len());
        let size =
            manifest + image.manifest.config.size + layers.iter().map(|l| l.size).sum::<u64>();
        let record = ImageRecord { manifest: image.digest.clone(), blobs, layers: chain, size };
        self.store.set_image(&id, &record)?;
        Ok(id)
    }

    fn move_blob(&self, digest: &Digest) -> Result<(), ImageError> {
        let to = self.store.blob_path(digest);
        if to.exists() {
            return Ok(());
        }
        let staged = self
            .files
            .values()
            .find(|staged| staged.digest == *digest)
            .ok_or_else(|| ImageError::Missing(format!("blob {digest}")))?;
        // The file may have been moved for another image of the archive, and stays as it is.
        fs::rename(&staged.path, &to).map_err(ImageError::io("create", &to))?;
        let parent = self.store.dir().join("blobs/sha256");
        File::open(&parent).and_then(|d| d.sync_all()).map_err(ImageError::io("sync", &parent))
    }

    fn install_layer(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        below: &[Digest],
        limits: Limits,
    ) -> Result<Digest, ImageError> {
        let chain = chain_id(below.last(), diff_id);
        let to = self.store.layer_path(&chain);
        if to.is_dir() {
            return Ok(chain);
        }
        let blob = self.store.blob_path(&layer.digest);
        let file = File::open(&blob).map_err(ImageError::io("open", &blob))?;
        let stream = decompress(file).map_err(ImageError::io("read", &blob))?;
        let mut reader = DigestReader::new(stream);
        let root = self.directory.join(format!("layer-{}", chain.hex()));
        fs::create_dir(&root).map_err(ImageError::io("create", &root))?;
        let parents: Vec<PathBuf> = below.iter().rev().map(|c| self.store.layer_path(c)).collect();
        unpack(&mut reader, &root, &parents, limits)?;
        // The digest covers the padding behind the last entry too.
        io::copy(&mut reader, &mut io::sink()).map_err(ImageError::Archive)?;
        let (got, _) = reader.finish();
        if got != *diff_id {
            let name = format!("layer {}", layer.digest);
            return Err(ImageError::DigestMismatch { name, want: diff_id.clone(), got });
        }
        let handle = File::open(&root).map_err(ImageError::io("open", &root))?;
        rustix::fs::syncfs(&handle).map_err(|e| ImageError::io("sync", &root)(e.into()))?;
        fs::rename(&root, &to).map_err(ImageError::io("create", &to))?;
        let parent = self.store.dir().join("layers");
        File::open(&parent).and_then(|d| d.sync_all()).map_err(ImageError::io("sync", &parent))?;
        Ok(chain)
    }

    fn verify(&self, name: &str, want: &Digest) -> Result<(), ImageError> {
        let got = &self.staged(name)?.digest;
        if got == want {
            return Ok(());
        }
        let (name, want, got) = (name.to_owned(), want.clone(), got.clone());
        Err(ImageError::DigestMismatch { name, want, got })
    }

    fn staged(&self, name: &str) -> Result<&Staged, ImageError> {
        self.files.get(name).ok_or_else(|| ImageError::Missing(name.to_owned()))
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, ImageError> {
        let staged = self.staged(name)?;
        if staged.size > DOCUMENT_BYTES_MAX {
            return Err(ImageError::Limit { what: "size of document", limit: DOCUMENT_BYTES_MAX });
        }
        let bytes = fs::read(&staged.path).map_err(ImageError::io("read", &staged.path))?;
        serde_json::from_slice(&bytes).map_err(ImageError::parse(name))
    }
}

/// One image with two names is one image.
fn merged(found: Vec<Found>) -> Vec<Found> {
    let mut merged: Vec<Found> = Vec::new();
    for image in found {
        match merged.iter_mut().find(|other| other.digest == image.digest) {
            Some(other) => other.names.extend(image.names),
            None => merged.push(image),
        }
    }
    merged
}

fn names(annotations: &BTreeMap<String, String>) -> Result<Vec<Reference>, ImageError> {
    for key in NAME_ANNOTATIONS {
        match annotations.get(key) {
            // A bare tag does not say of what.
            Some(name) if name.contains(['/', ':']) || key == NAME_ANNOTATIONS[0] => {
                return Ok(vec![Reference::parse(name)?]);
            }
            _ => {}
        }
    }
    Ok(Vec::new())
}

fn runs_here(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == config::architecture()
}

/// A name in the archive without the leading `./` or `/`.
fn normalise(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    text.trim_start_matches("./").trim_start_matches('/').to_owned()
}

/// What a link in the archive points to.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}
