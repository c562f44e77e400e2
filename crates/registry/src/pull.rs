//! A pull: resolve the name, choose the manifest, bring the layers, name the image.
//!
//! ```text
//!   layer 1   ████ download ▒▒▒▒ unpack
//!   layer 2   ███████ download  ···· ▒▒▒ unpack       a layer is unpacked while it arrives, but
//!   layer 3   █████████████ download ···· ▒▒▒▒▒       not before those below it
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::SharedClock;
use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use image::{
    Descriptor, Digest, Document, Image, ImageError, Layer, Limits, NewImage, Reference, Session,
    Store,
};
use tokio::sync::{mpsc, watch};

use crate::auth::Credentials;
use crate::download::Download;
use crate::error::PullError;
use crate::flight::Flights;
use crate::hosts::HostsDirectory;
use crate::progress::Progress;
use crate::proxy::Proxies;
use crate::repository::{Manifest, Repository};
use crate::spool::{SpoolReader, spool};
use crate::wire::Wire;

/// Layers of one image on their way at once: containerd's `max_concurrent_downloads`.
const PARALLEL_LAYERS: usize = 3;
/// A layer of so many bytes is written to the disk while the next ones are unpacked.
const LAYER_BYTES_LARGE: u64 = 8 << 20;
/// How long a registry may bring nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Indexes may point to indexes; nobody nests them deeper.
const INDEX_DEPTH_MAX: usize = 4;

/// More manifests than an index has for one platform.
const CANDIDATES_MAX: usize = 64;

/// How images are pulled.
#[derive(Clone, Debug)]
pub struct Config {
    /// Mirrors and settings of registries.
    pub hosts: HostsDirectory,
    /// Through whom requests go.
    pub proxies: Arc<Proxies>,
    /// Layers of one image on their way at once.
    pub parallel_layers: usize,
    /// What is allowed at most.
    pub limits: Limits,
    /// How long a registry may bring nothing, or next to nothing.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: HostsDirectory::default(),
            proxies: Arc::default(),
            parallel_layers: PARALLEL_LAYERS,
            limits: Limits::default(),
            patience: PATIENCE,
        }
    }
}

/// Brings images from registries into a store. Clones are the same one: what two of their pulls
/// need is downloaded once.
#[derive(Clone)]
pub struct Registry {
    config: Config,
    store: Store,
    clock: SharedClock,
    flights: Flights,
}

/// What a pull has open. Threads that work for it may live a little longer than its future.
pub(crate) struct Work {
    pub(crate) session: Session,
    /// Dropped after the session.
    _alive: mpsc::Sender<()>,
}

/// The image that a name points to.
struct Found {
    /// What the name points to: the manifest, or an index that leads to it.
    target: Digest,
    manifest: Manifest,
    parsed: image::Manifest,
    config: Bytes,
    layers: Vec<Layer>,
}

impl Registry {
    /// Pulls into `store`.
    pub fn new(config: Config, store: Store, clock: SharedClock) -> Self {
        Self { config, store, clock, flights: Flights::default() }
    }

    /// Makes sure that the image is here as the registry has it now, and answers it. The registry
    /// is asked even when the image is here, so that it can refuse.
    ///
    /// Dropping the future ends the pull; whole layers stay until the collector comes.
    ///
    /// # Errors
    /// When no host gives the image, or what it gives is damaged, hostile or too large.
    pub fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        credentials: Option<&'a Credentials>,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Image, PullError>> {
        // Boxed, so that the HTTP library is compiled here and not within the caller.
        self.pull_now(reference, credentials, progress).boxed()
    }

    async fn pull_now(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Image, PullError> {
        let sources = self.sources(reference, credentials)?;
        if let Some(image) = self.unchanged(&sources, reference).await? {
            return Ok(image);
        }
        let found = self.find(&sources, reference).await?;
        let (alive, mut ended) = mpsc::channel(1);
        let session = self.blocking(|store| Session::begin(&store)).await?;
        let work = Arc::new(Work { session, _alive: alive });
        let brought = self.bring(&sources, &found, &work, progress).await;
        let image = match brought {
            Ok(()) => self.name(reference, found, Arc::clone(&work)).await,
            Err(error) => Err(error),
        };
        drop(work);
        if let Err(error) = &image {
            // The threads notice soon; what they have open goes with the last of them.
            ended.recv().await;
            if let PullError::Image(ImageError::NoSpace { .. } | ImageError::NoInodes { .. }) =
                error
            {
                // Nothing is left of what did not fit, not even whole layers.
                self.blocking(|store| store.gc()).await?;
            }
        }
        image
    }

    fn sources(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<Repository>, PullError> {
        let hosts = self.config.hosts.hosts(reference.domain()).map_err(PullError::Hosts)?;
        let repositories = hosts.into_iter().map(|host| {
            let wire = Wire::new(&host, &self.config.proxies, self.config.patience, &self.clock)?;
            Repository::new(host, wire, reference.path(), credentials)
        });
        repositories.collect()
    }

    /// The image that is here, when the registry says that it is still what the name points to.
    async fn unchanged(
        &self,
        sources: &[Repository],
        reference: &Reference,
    ) -> Result<Option<Image>, PullError> {
        let wanted = reference.clone();
        let present = self.blocking(move |store| store.pointed(&wanted)).await?;
        let Some((target, image)) = present else { return Ok(None) };
        let name = pointer(reference);
        let told = match first(sources, reference, |source| source.head(&name)).await {
            // Some know no `HEAD`; what they think of a `GET` follows.
            Err(PullError::Status { .. }) => None,
            told => told?,
        };
        Ok((told.as_ref() == Some(&target)).then_some(image))
    }

    async fn find(
        &self,
        sources: &[Repository],
        reference: &Reference,
    ) -> Result<Found, PullError> {
        let (name, want) = (pointer(reference), reference.digest());
        let top = first(sources, reference, |source| source.manifest(&name, want)).await?;
        let target = top.digest.clone();
        let no_platform = || ImageError::NoPlatform(format!("linux/{}", image::architecture()));
        // What is still to be looked at, the best last.
        let mut waiting = vec![(top, 0)];
        let mut descriptors: Vec<(Descriptor, usize)> = Vec::new();
        loop {
            let (manifest, depth) = match (waiting.pop(), descriptors.pop()) {
                (Some(next), None) => next,
                (None, Some((descriptor, depth))) => {
                    (self.by_digest(sources, &descriptor).await?, depth)
                }
                _ => return Err(no_platform().into()),
            };
            match Document::parse(&manifest.bytes, &manifest.media_type)? {
                Document::Index(_) if depth == INDEX_DEPTH_MAX => {
                    let limit = u64::try_from(INDEX_DEPTH_MAX).unwrap_or(0);
                    return Err(ImageError::Limit { what: "depth of index", limit }.into());
                }
                Document::Index(index) => {
                    let better = index.candidates().into_iter().rev();
                    descriptors.extend(better.map(|d| (d.clone(), depth + 1)));
                    let excess = descriptors.len().saturating_sub(CANDIDATES_MAX);
                    descriptors.drain(..excess);
                }
                Document::Manifest(parsed) => {
                    let config = self.config_of(sources, &parsed).await?;
                    match parsed.layers_by(&config) {
                        // An index need not tell the platform; the configuration does.
                        Err(ImageError::NoPlatform(_)) if !descriptors.is_empty() => {}
                        Err(error) => return Err(error.into()),
                        Ok(layers) => {
                            return Ok(Found { target, manifest, parsed, config, layers });
                        }
                    }
                }
            }
        }
    }

    async fn by_digest(
        &self,
        sources: &[Repository],
        descriptor: &Descriptor,
    ) -> Result<Manifest, PullError> {
        let (name, want) = (descriptor.digest.to_string(), Some(&descriptor.digest));
        let mut manifest = any(sources, |source| source.manifest(&name, want)).await?;
        if manifest.media_type.is_empty() {
            manifest.media_type.clone_from(&descriptor.media_type);
        }
        Ok(manifest)
    }

    async fn config_of(
        &self,
        sources: &[Repository],
        manifest: &image::Manifest,
    ) -> Result<Bytes, PullError> {
        any(sources, |source| source.small_blob(&manifest.config)).await
    }

    /// Brings the layers that are not here.
    async fn bring(
        &self,
        sources: &[Repository],
        found: &Found,
        work: &Arc<Work>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), PullError> {
        let blobs = vec![found.manifest.digest.clone(), found.parsed.config.digest.clone()];
        let chains: Vec<Digest> = found.layers.iter().map(|layer| layer.chain.clone()).collect();
        let keeper = Arc::clone(work);
        self.blocking(move |_| keeper.session.keep(&blobs, &chains)).await?;
        let missing: Vec<&Descriptor> = found
            .layers
            .iter()
            .zip(&found.parsed.layers)
            .filter(|(layer, _)| !work.session.has_layer(&layer.chain))
            .map(|(_, descriptor)| descriptor)
            .collect();
        let bytes = missing.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        let (digest, layers) = (found.target.clone(), found.layers.len());
        progress(Progress::Resolved { digest, layers, missing: missing.len(), bytes });
        // What is unpacked takes at least as much.
        work.session.require_space(bytes)?;
        let ready = watch::Sender::new(0);
        let bringing = Bringing { registry: self, sources, found, work, progress, ready: &ready };
        let layers = (0..found.layers.len()).map(|number| bringing.layer(number));
        // Boxed: what is awaited of a stream of these would name their whole type.
        let layers = layers.map(FutureExt::boxed).collect::<Vec<_>>();
        stream::iter(layers)
            .buffered(self.config.parallel_layers.max(1))
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    async fn name(
        &self,
        reference: &Reference,
        found: Found,
        work: Arc<Work>,
    ) -> Result<Image, PullError> {
        // A tag beside a digest says nothing.
        let name = match reference.digest() {
            Some(digest) => reference.pinned(digest.clone()),
            None => reference.clone(),
        };
        let committed = self.blocking(move |_| {
            let id = work.session.add_blob(&found.config)?;
            let manifest = work.session.add_blob(&found.manifest.bytes)?;
            let own = u64::try_from(found.manifest.bytes.len()).unwrap_or(0);
            let image = NewImage {
                id,
                manifest,
                layers: found.layers.into_iter().map(|layer| layer.chain).collect(),
                size: found.parsed.size().saturating_add(own),
                names: vec![(name, found.target)],
            };
            work.session.commit(std::slice::from_ref(&image))
        });
        let images = committed.await?;
        images.into_iter().next().ok_or(PullError::Aborted)
    }

    /// Work on the disk, which must not hold up other tasks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, PullError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(store)).await;
        done.map_err(|_| PullError::Aborted)?.map_err(PullError::from)
    }
}

/// Bringing the layers of one image.
struct Bringing<'a> {
    registry: &'a Registry,
    sources: &'a [Repository],
    found: &'a Found,
    work: &'a Arc<Work>,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    /// How many layers, from the lowest on, are unpacked.
    ready: &'a watch::Sender<usize>,
}

impl Bringing<'_> {
    async fn layer(&self, number: usize) -> Result<(), PullError> {
        let chain = &self.found.layers[number].chain;
        let flight = self.registry.flights.board(chain).await;
        if !self.work.session.has_layer(chain) {
            self.fetch(number).await?;
            if self.found.parsed.layers[number].size >= LAYER_BYTES_LARGE {
                self.write_out();
            }
        }
        drop(flight);
        self.below(number).await;
        self.ready.send_replace(number + 1);
        Ok(())
    }

    /// Begins to write to the disk what is there. Nobody waits for it before the end.
    fn write_out(&self) {
        let work = Arc::clone(self.work);
        drop(tokio::task::spawn_blocking(move || work.session.write_out()));
    }

    /// Waits until the layers below are unpacked.
    async fn below(&self, number: usize) {
        // The sender outlives this.
        self.ready.subscribe().wait_for(|ready| *ready >= number).await.ok();
    }

    /// Fetches a layer. What one host gives may be damaged, and that of the next not.
    async fn fetch(&self, number: usize) -> Result<(), PullError> {
        let mut sources = self.sources;
        loop {
            let fetched = self.fetch_from(sources, number).await;
            let is_damaged = match &fetched {
                Err(PullError::Content { .. }) => true,
                Err(PullError::Image(error)) => error.is_of_the_image(),
                _ => false,
            };
            match sources {
                [host, rest @ ..] if is_damaged && !rest.is_empty() => {
                    let host = host.host.authority.as_str();
                    tracing::warn!(host, "a host gives a damaged layer, asking the next");
                    sources = rest;
                }
                _ => return fetched,
            }
        }
    }

    async fn fetch_from(&self, sources: &[Repository], number: usize) -> Result<(), PullError> {
        let layer = &self.found.parsed.layers[number];
        let path = self.work.session.directory().join(format!("spool-{number}"));
        let (writer, reader) =
            spool(&path).map_err(|source| ImageError::Io { operation: "create", path, source })?;
        let state = reader.state();
        let download = Download {
            sources,
            layer,
            work: self.work,
            clock: &self.registry.clock,
            progress: self.progress,
        };
        let download = std::pin::pin!(download.run(writer));
        let unpack = std::pin::pin!(self.unpack(number, reader));
        match select(download, unpack).await {
            Either::Left((Ok(()), unpack)) => unpack.await?,
            // Its thread sees the end of the spool.
            Either::Left((Err(error), _)) => return Err(error),
            Either::Right((Ok(()), download)) => download.await?,
            Either::Right((Err(error), download)) => {
                if state.is_broken() {
                    download.await?;
                }
                return Err(error);
            }
        }
        (self.progress)(Progress::Unpacked { layer: layer.digest.clone() });
        Ok(())
    }

    async fn unpack(&self, number: usize, reader: SpoolReader) -> Result<(), PullError> {
        self.below(number).await;
        let layers = self.found.layers[..=number].to_vec();
        let (work, limits) = (Arc::clone(self.work), self.registry.config.limits);
        self.registry.blocking(move |_| work.session.add_layer(reader, &layers, limits)).await
    }
}

/// How a registry is asked for a name.
fn pointer(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// Asks those hosts that may say what a name means, until one answers.
async fn first<'a, T, F>(
    sources: &'a [Repository],
    reference: &Reference,
    ask: impl Fn(&'a Repository) -> F,
) -> Result<T, PullError>
where
    F: Future<Output = Result<T, PullError>>,
{
    let by_digest = reference.digest().is_some();
    let may = |source: &&Repository| if by_digest { source.host.pull } else { source.host.resolve };
    ask_all(sources.iter().filter(may), ask).await.map_err(|error| match error {
        PullError::NotFound(_) => PullError::NotFound(reference.to_string()),
        other => other,
    })
}

/// Asks those hosts that have content, until one answers.
async fn any<'a, T, F>(
    sources: &'a [Repository],
    ask: impl Fn(&'a Repository) -> F,
) -> Result<T, PullError>
where
    F: Future<Output = Result<T, PullError>>,
{
    ask_all(sources.iter().filter(|source| source.host.pull), ask).await
}

/// The error is the last host's: that is the registry itself.
async fn ask_all<'a, T, F>(
    sources: impl Iterator<Item = &'a Repository>,
    ask: impl Fn(&'a Repository) -> F,
) -> Result<T, PullError>
where
    F: Future<Output = Result<T, PullError>>,
{
    let mut last = None;
    for source in sources {
        match ask(source).await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                let host = source.host.authority.as_str();
                tracing::debug!(host, error = error.chain(), "a host does not answer for an image");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| PullError::NotFound("no host may be asked".to_owned())))
}
