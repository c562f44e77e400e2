//! Logs, metrics and error chains.
//!
//! Start reading at [`init`]. Metrics are registered by each component in the
//! [`prometheus::Registry`] it is given, those that all have by [`describe`]; nothing here is global
//! but the log subscriber.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod chain;
mod component;
mod log;
mod process;

pub use chain::Chain;
pub use component::{Gate, VERSION, describe, platform};
pub use log::{Format, init};
pub use prometheus::Registry;
