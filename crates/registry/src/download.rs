//! One layer from the network to the disk, over broken connections and several hosts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::SharedClock;
use image::{Descriptor, Digester, ImageError, Session};
use tokio::sync::mpsc;

use crate::error::PullError;
use crate::progress::Progress;
use crate::pull::Work;
use crate::repository::{Repository, content};
use crate::spool::SpoolWriter;

/// How often a layer is asked for without a useful amount of it having come.
const ATTEMPTS_MAX: u32 = 5;
/// What is a useful amount.
const USEFUL_BYTES: u64 = 1 << 20;
/// The pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// Pieces between the network and the disk.
const PIECES: usize = 32;
/// How much is written between two looks at the disk.
const LOOK_EVERY_BYTES: u64 = 8 << 20;

/// What a download works with.
pub(crate) struct Download<'a> {
    pub(crate) sources: &'a [Repository],
    pub(crate) layer: &'a Descriptor,
    pub(crate) work: &'a Arc<Work>,
    pub(crate) clock: &'a SharedClock,
    pub(crate) progress: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Download<'_> {
    /// Downloads into the spool. When this is dropped, whoever reads the spool fails.
    pub(crate) async fn run(&self, spool: SpoolWriter) -> Result<(), PullError> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (layer, work) = (self.layer.clone(), Arc::clone(self.work));
        // The disk may be slow, and must not hold up other tasks.
        let writer =
            tokio::task::spawn_blocking(move || write(spool, &layer, &work.session, receiver));
        let sent = self.send(&sender).await;
        if sent.is_ok() {
            // What ends without this has broken off.
            sender.send(Bytes::new()).await.ok();
        }
        drop(sender);
        let written = writer.await.unwrap_or(Err(PullError::Aborted));
        // When the disk refused, that is why nobody took the bytes.
        match (sent, written) {
            (Err(PullError::Aborted) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(())) => {
                let (layer, bytes) = (self.layer.digest.clone(), self.layer.size);
                (self.progress)(Progress::Downloaded { layer, bytes });
                Ok(())
            }
        }
    }

    /// Sends all bytes, asking again for those that did not come.
    async fn send(&self, to: &mpsc::Sender<Bytes>) -> Result<(), PullError> {
        let (mut at, mut useful_at, mut failures) = (0u64, 0u64, 0u32);
        let mut sources = self.sources.iter().filter(|source| source.host.pull);
        let none = || PullError::NotFound(format!("blob {}", self.layer.digest));
        let mut source = sources.next().ok_or_else(none)?;
        loop {
            let Err(error) = self.send_from(source, &mut at, to).await else { return Ok(()) };
            if at >= useful_at + USEFUL_BYTES {
                (useful_at, failures) = (at, 0);
            }
            failures += 1;
            if error.is_transient() && failures < ATTEMPTS_MAX {
                let layer = self.layer.digest.clone();
                (self.progress)(Progress::Retrying { layer, why: error.chain() });
                self.clock.sleep(PAUSE * 2u32.pow(failures - 1)).await;
                continue;
            }
            if matches!(error, PullError::Aborted) {
                return Err(error);
            }
            let Some(next) = sources.next() else { return Err(error) };
            tracing::debug!(error = error.chain(), "a host does not give a layer, asking the next");
            (source, failures) = (next, 0);
        }
    }

    /// Sends what a source gives from `at` on, and notes how far it came.
    async fn send_from(
        &self,
        source: &Repository,
        at: &mut u64,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<(), PullError> {
        let size = self.layer.size;
        let (mut body, start) = source.blob(self.layer, *at).await?;
        // A registry that knows no ranges begins anew.
        let mut skip = *at - start;
        while let Some(mut bytes) = body.chunk().await? {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let skipped = skip.min(length);
            skip -= skipped;
            drop(bytes.split_to(usize::try_from(skipped).unwrap_or(0)));
            if bytes.is_empty() {
                continue;
            }
            *at += length - skipped;
            if *at > size {
                let what = format!("size of blob {}", self.layer.digest);
                let (want, got) = (size.to_string(), "more".to_owned());
                return Err(PullError::Content { what, want, got });
            }
            to.send(bytes).await.map_err(|_| PullError::Aborted)?;
        }
        if *at == size {
            return Ok(());
        }
        let source = format!("{at} of {size} bytes came").into();
        Err(PullError::Body { url: body.url().to_owned(), source })
    }
}

/// Writes what comes, and compares it with the digest when it ends.
fn write(
    mut spool: SpoolWriter,
    layer: &Descriptor,
    session: &Session,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(), PullError> {
    let mut digester = Digester::new();
    let mut until_look = 0;
    while let Some(bytes) = pieces.blocking_recv() {
        if bytes.is_empty() {
            let got = digester.finish();
            if got != layer.digest {
                return Err(content(&format!("blob {}", layer.digest), &layer.digest, &got));
            }
            spool.finish();
            return Ok(());
        }
        let length = u64::try_from(bytes.len()).unwrap_or(0);
        if until_look < length {
            session.require_space(0)?;
            until_look = LOOK_EVERY_BYTES;
        }
        until_look = until_look.saturating_sub(length);
        digester.update(&bytes);
        spool.write(&bytes).map_err(|source| {
            let path = session.directory().to_path_buf();
            ImageError::Io { operation: "write", path, source }
        })?;
    }
    Err(PullError::Aborted)
}
