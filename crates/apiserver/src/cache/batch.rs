//! Changes as watchers see them, selected and put into bytes once for all who see the same.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use meta::GroupVersionKind;

use super::{Selected, Selection};
use crate::negotiate::Form;

/// Batches kept for others of a crowd.
const KEPT: usize = 8;
/// Bytes of objects in kept batches.
const KEPT_BYTES: usize = 1 << 20;

/// Changes, in their order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<Selected>,
    /// How the first watcher wanted them; mostly all want the same.
    written: OnceLock<(Form, GroupVersionKind, Bytes)>,
}

impl Batch {
    pub(crate) fn new(changes: Vec<Selected>) -> Self {
        Self { changes, written: OnceLock::new() }
    }

    /// The bytes of all changes in this form and as this kind, made by `write` if nobody has yet.
    pub(crate) fn written(
        &self,
        (form, kind): (Form, &GroupVersionKind),
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
pub(super) struct Batches {
    kept: VecDeque<Kept>,
    bytes: usize,
}

/// A batch and what it is made of.
pub(super) struct Kept {
    /// The revision of the first change looked at, whether it was selected or not.
    pub(super) first: u64,
    /// The revision of the last.
    pub(super) last: u64,
    /// Whether the ring held more changes.
    pub(super) more: bool,
    pub(super) selection: Selection,
    pub(super) batch: Arc<Batch>,
}

impl Batches {
    pub(super) fn find(&self, first: u64, selection: &Selection) -> Option<&Kept> {
        self.kept.iter().rev().find(|kept| kept.first == first && kept.selection == *selection)
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.bytes += kept.batch.bytes();
        self.kept.push_back(kept);
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.batch.bytes();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
