//! Server-side apply and managed fields.
//!
//! What it is: pure functions over objects and the tables of `schema`: sets of fields, what differs
//! between two objects, a configuration merged into a live object, and who owns what afterwards.
//!
//! Start reading at [`Write`] (`owners.rs`), then [`Write::record_update`] and
//! [`Write::apply_config`] in `object.rs`; [`FieldSet`] is what both speak in.
//!
//! Invariants: live objects come in and go out as working forms, and what Go always prints counts as
//! there; configurations are taken as they are sent, with their nulls and zeros; names, order and
//! error texts are upstream's; nothing here knows a kind by name.
//!
//! What it deliberately does not do: it does not decode, default or store.
//!
//! Tested by unit and property tests beside the code, and by the conformance corpus.

#![forbid(unsafe_code)]

mod check;
mod compare;
mod configuration;
mod created;
mod element;
mod fields_of;
mod fields_v1;
mod filter;
mod managed;
mod merge;
mod names;
mod object;
mod owners;
mod scalar;
mod scale;
mod set;
mod shape;

pub use check::misfit;
pub use compare::{Comparison, compare};
pub use configuration::merged;
pub use element::Element;
pub use fields_v1::FieldsError;
pub use filter::Filter;
pub use managed::{Entry, Fields, Managed, Manager, is_reset, is_same_but_for_times};
pub use names::{NAME_MAX, is_printable, manager_name};
pub use object::{applier, managed_fields, put_managed_fields, take_managed_fields, updater};
pub use owners::{ApplyError, Conflict, Unconverted, Versions, Write};
pub use scale::{from_scale, to_scale};
pub use set::FieldSet;

#[cfg(test)]
mod tests;
