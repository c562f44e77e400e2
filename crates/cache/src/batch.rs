//! Changes as watchers see them, selected and put into bytes once for all who see the same.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use meta::GroupVersionKind;

use super::{Selected, Selection};

/// Batches kept for others of a crowd.
const KEPT: usize = 8;
/// Bytes of objects in kept batches.
const KEPT_BYTES: usize = 1 << 20;

/// Changes, in their order.
#[derive(Debug)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Selected>,
    /// How the first watcher wanted them; mostly all want the same.
    written: OnceLock<(u32, GroupVersionKind, Bytes)>,
}

impl Batch {
    /// Nobody has written them yet.
    pub fn new(changes: Vec<Selected>) -> Self {
        Self { changes, written: OnceLock::new() }
    }

    /// The bytes of all changes in this form and as this kind, made by `write` if nobody has yet.
    /// The form is a number of the caller's own.
    pub fn written(
        &self,
        (form, kind): (u32, &GroupVersionKind),
        write: impl FnOnce() -> Bytes,
    ) -> Bytes {
        match self.written.get() {
            Some((known, of, bytes)) if *known == form && of == kind => bytes.clone(),
            Some(_) => write(),
            None => {
                let bytes = write();
                // Somebody else may have been faster, with the same or with another form.
                self.written.set((form, kind.clone(), bytes.clone())).ok();
                bytes
            }
        }
    }

    fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.object().json().len()).sum()
    }
}

/// The newest batches of a resource.
#[derive(Default)]
pub(crate) struct Batches {
    kept: VecDeque<Kept>,
    bytes: usize,
}

/// A batch and what it is made of.
pub(crate) struct Kept {
    /// The revision of the first change looked at, whether it was selected or not.
    pub(crate) first: u64,
    /// The revision of the last.
    pub(crate) last: u64,
    /// Whether the ring held more changes.
    pub(crate) more: bool,
    pub(crate) selection: Selection,
    pub(crate) batch: Arc<Batch>,
}

impl Batches {
    pub(crate) fn find(&self, first: u64, selection: &Selection) -> Option<&Kept> {
        self.kept.iter().rev().find(|kept| kept.first == first && kept.selection == *selection)
    }

    pub(crate) fn keep(&mut self, kept: Kept) {
        self.bytes += kept.batch.bytes();
        self.kept.push_back(kept);
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.batch.bytes();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
