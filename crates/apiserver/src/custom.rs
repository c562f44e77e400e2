//! Custom resources: what definitions mean for the server.
//!
//! ```text
//!   store ──pump──▶ definitions ──▶ Served: resources, storages    (served.rs, definitions.rs)
//!   request ──▶ decode ──▶ the generic path ──▶ convert ──▶ store  (decode.rs, convert.rs)
//!   conditions, clean-up: tasks that follow definitions like any client
//! ```
//! What a definition means is served before anybody can read that it is established. Crate `custom`
//! has what is done with objects.

pub(crate) mod cleanup;
pub(crate) mod conditions;
pub(crate) mod conversions;
pub(crate) mod convert;
pub(crate) mod decode;
pub(crate) mod definitions;
mod kind;
mod naming;
mod open_api;
pub(crate) mod patch;
pub(crate) mod requests;
pub(crate) mod scale;
pub(crate) mod selection;
mod served;
pub(crate) mod table;
pub(crate) mod write;

pub(crate) use conversions::Conversions;
pub(crate) use kind::{CustomKind, CustomVersion};
pub(crate) use served::Served;
