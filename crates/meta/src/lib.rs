//! The vocabulary of the Kubernetes API: names, objects, selectors, quantities, status.
//!
//! Plain data and pure functions; no I/O, no async. Everything above speaks in these types.
//!
//! Start reading at [`Object`], the immutable object that the store, the watch cache, every list
//! and every watch share, then [`Status`], the only error a client of the API ever sees.
//!
//! Invariants: an [`Object`]'s header always agrees with its JSON; its JSON is canonical (fields in
//! upstream's order, one line, no trailing newline) and carries the resource version.
//!
//! It does not know any kind: typed views live in `api`, tables in `schema`.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod field_selector;
mod gvk;
mod key;
mod label_selector;
pub mod names;
mod object;
mod quantity;
mod status;
pub mod time;
mod unstructured;

pub use field_selector::{FieldOperator, FieldRequirement, FieldSelector, FieldSelectorError};
pub use gvk::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use key::ObjectKey;
pub use label_selector::{LabelOperator, LabelRequirement, LabelSelector, LabelSelectorError};
pub use object::{
    Header, MalformedObject, Object, OwnerReference, ResourceVersion, WatchEvent, read_json,
};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use status::{Cause, Reason, Status, StatusDetails};
