//! Imports archives: OCI layouts in a tar, and what `docker save` writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use tar::{Archive, EntryType};

use crate::config::{
    self, Descriptor, DockerManifest, Document, Index, MEDIA_TYPE_CONFIG, MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST, Manifest,
};
use crate::digest::DigestReader;
use crate::layer::decompress;
use crate::session::{Layer, NewImage, Session};
use crate::store::Store;
use crate::unpack::Allowance;
use crate::{Digest, Image, ImageError, Limits, Reference};

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
    names: Vec<(Reference, Digest)>,
    digest: Digest,
    document: Vec<u8>,
    manifest: Manifest,
}

/// Answers the images.
pub(crate) fn import(
    store: &Store,
    archive: impl Read + Send,
    options: &ImportOptions,
) -> Result<Vec<Image>, ImageError> {
    let session = Session::begin(store)?;
    let staging = Staging::read(&session, archive, options.limits)?;
    let mut found = if staging.files.contains_key("index.json") {
        staging.oci_images()?
    } else if staging.files.contains_key("manifest.json") {
        staging.docker_images()?
    } else {
        return Err(ImageError::UnrecognizedArchive);
    };
    if let (Some(name), [only]) = (&options.name, found.as_mut_slice()) {
        only.names = vec![(Reference::parse(name)?, only.digest.clone())];
    }
    if found.is_empty() {
        return Err(ImageError::NoPlatform(format!("linux/{}", config::architecture())));
    }
    if found.iter().any(|image| image.names.is_empty()) {
        return Err(ImageError::Unnamed);
    }
    // Names come last and all together, so that a damaged archive leaves none.
    let images = staging.install(&found, options.limits)?;
    // What is not there any more need not be written to the disk with the rest.
    staging.remove()?;
    session.commit(&images)
}

/// The archive's files, each under a name of its own; they go with the session at the latest.
struct Staging<'a> {
    session: &'a Session,
    files: BTreeMap<String, Staged>,
}

#[derive(Clone)]
struct Staged {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl<'a> Staging<'a> {
    fn read(
        session: &'a Session,
        archive: impl Read + Send,
        limits: Limits,
    ) -> Result<Self, ImageError> {
        let mut staging = Self { session, files: BTreeMap::new() };
        let mut links = Vec::new();
        let mut bytes = 0u64;
        let allowance = Allowance::default();
        let stream = decompress(archive).map_err(ImageError::Archive)?;
        let mut archive = Archive::new(allowance.limit(stream));
        let mut entries = archive.entries().map_err(ImageError::Archive)?;
        for number in 0.. {
            allowance.headers();
            let Some(entry) = entries.next() else { break };
            let entry = entry.map_err(ImageError::Archive)?;
            allowance.contents();
            bytes = bytes.saturating_add(entry.size());
            if bytes > limits.bytes {
                return Err(ImageError::Limit { what: "size of archive", limit: limits.bytes });
            }
            if u64::try_from(number).unwrap_or(u64::MAX) >= limits.entries {
                let what = "number of files in the archive";
                return Err(ImageError::Limit { what, limit: limits.entries });
            }
            staging.session.require_space(entry.size())?;
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
        let path = self.session.directory().join(number.to_string());
        let mut file = File::create_new(&path).map_err(ImageError::io("create", &path))?;
        let mut reader = DigestReader::new(contents);
        // The archive is the likelier culprit than the disk, and the cause says which it was.
        io::copy(&mut reader, &mut file).map_err(ImageError::Archive)?;
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
            let names = names(&descriptor)?;
            if let Some((digest, document, manifest)) =
                self.manifest(&descriptor, INDEX_DEPTH_MAX)?
            {
                found.push(Found { names, digest, document, manifest });
            }
        }
        Ok(merged(found))
    }

    /// The manifest for this machine that a descriptor leads to.
    fn manifest(
        &self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<(Digest, Vec<u8>, Manifest)>, ImageError> {
        let top = Index { manifests: vec![descriptor.clone()] };
        if top.candidates().is_empty() {
            return Ok(None);
        }
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        self.verify(&name, &descriptor.digest)?;
        let bytes = self.bytes(&name)?;
        let index = match Document::parse(&bytes, &descriptor.media_type)? {
            Document::Manifest(manifest) => {
                return Ok(Some((descriptor.digest.clone(), bytes, manifest)));
            }
            Document::Index(index) => index,
        };
        if depth == 0 {
            let limit = u64::try_from(INDEX_DEPTH_MAX).unwrap_or(0);
            return Err(ImageError::Limit { what: "depth of index", limit });
        }
        for inner in index.candidates() {
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
            let tags = entry.repo_tags.unwrap_or_default();
            let names: Result<Vec<_>, _> =
                tags.iter().map(|tag| Ok((Reference::parse(tag)?, digest.clone()))).collect();
            found.push(Found { names: names?, digest, document: bytes, manifest });
        }
        Ok(merged(found))
    }

    /// Puts what belongs to the images into the store.
    fn install(&self, found: &[Found], limits: Limits) -> Result<Vec<NewImage>, ImageError> {
        let mut planned = Vec::with_capacity(found.len());
        for image in found {
            let config = self.blob(&image.manifest.config.digest)?;
            if config.size > DOCUMENT_BYTES_MAX {
                return Err(too_large());
            }
            let config = fs::read(&config.path).map_err(ImageError::io("read", &config.path))?;
            let layers = image.manifest.layers_by(&config)?;
            planned.push((image, config, layers));
        }
        let (mut blobs, mut chains) = (Vec::new(), Vec::new());
        for (image, _, layers) in &planned {
            blobs.extend([image.digest.clone(), image.manifest.config.digest.clone()]);
            chains.extend(layers.iter().map(|layer| layer.chain.clone()));
        }
        self.session.keep(&blobs, &chains)?;
        planned.iter().map(|planned| self.install_one(planned, limits)).collect()
    }

    /// Removes the files.
    fn remove(self) -> Result<(), ImageError> {
        let paths: BTreeSet<&PathBuf> = self.files.values().map(|staged| &staged.path).collect();
        paths
            .into_iter()
            .try_for_each(|path| fs::remove_file(path).map_err(ImageError::io("remove", path)))
    }

    fn install_one(
        &self,
        (image, config, layers): &(&Found, Vec<u8>, Vec<Layer>),
        limits: Limits,
    ) -> Result<NewImage, ImageError> {
        for (number, descriptor) in image.manifest.layers.iter().enumerate() {
            let staged = self.blob(&descriptor.digest)?;
            let file = File::open(&staged.path).map_err(ImageError::io("open", &staged.path))?;
            self.session.add_layer(file, &layers[..=number], limits)?;
        }
        let id = self.session.add_blob(config)?;
        let manifest = self.session.add_blob(&image.document)?;
        Ok(NewImage {
            id,
            manifest,
            layers: layers.iter().map(|layer| layer.chain.clone()).collect(),
            size: image.manifest.size() + u64::try_from(image.document.len()).unwrap_or(0),
            names: image.names.clone(),
        })
    }

    /// The file of the archive with this digest.
    fn blob(&self, digest: &Digest) -> Result<&Staged, ImageError> {
        self.files
            .values()
            .find(|staged| staged.digest == *digest)
            .ok_or_else(|| ImageError::Missing(format!("blob {digest}")))
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
        serde_json::from_slice(&self.bytes(name)?).map_err(ImageError::parse(name))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let staged = self.staged(name)?;
        if staged.size > DOCUMENT_BYTES_MAX {
            return Err(too_large());
        }
        fs::read(&staged.path).map_err(ImageError::io("read", &staged.path))
    }
}

fn too_large() -> ImageError {
    ImageError::Limit { what: "size of document", limit: DOCUMENT_BYTES_MAX }
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

fn names(descriptor: &Descriptor) -> Result<Vec<(Reference, Digest)>, ImageError> {
    for key in NAME_ANNOTATIONS {
        match descriptor.annotations.get(key) {
            // A bare tag does not say of what.
            Some(name) if name.contains(['/', ':']) || key == NAME_ANNOTATIONS[0] => {
                return Ok(vec![(Reference::parse(name)?, descriptor.digest.clone())]);
            }
            _ => {}
        }
    }
    Ok(Vec::new())
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
