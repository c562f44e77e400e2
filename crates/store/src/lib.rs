//! Revisions, compare-and-swap, watch, and the write-ahead log that makes them durable.
//!
//! Start reading at [`Store`], the contract the API server is written against, then at
//! [`LogStore`], the embedded implementation: an ordered index in memory, one writer thread, and a
//! segmented log with one `fdatasync` per batch of concurrent writes. Which writes a batch holds is
//! decided in `gather`.
//!
//! Invariants: a write is acknowledged only after its frame is durable; a frame is one batch and is
//! either replayed whole or not at all; revisions are dense and only grow; readers never wait for
//! the disk.
//!
//! It does not know objects, resources or JSON: keys and values are bytes. Values are kept in
//! memory, as the index is.
//!
//! Tested by unit tests, property tests against a model, and by cutting the log at every byte.

#![forbid(unsafe_code)]

mod api;
mod frame;
mod gather;
mod history;
mod index;
mod lock;
mod log;
mod log_store;
mod metrics;
mod recovery;
mod snapshot;
mod writer;

pub use api::{
    Committed, Event, EventBatch, Expect, KeyValue, Note, Outcome, Range, RangeResult, Revision,
    Store, StoreError, WatchStream, Write,
};
pub use log_store::{LogStore, OpenError, Options};
