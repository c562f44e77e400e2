//! Logs, metrics and error chains.
//!
//! Start reading at [`init`]. Metrics are registered by each component in the
//! [`prometheus::Registry`] it is given; nothing here is global but the log subscriber.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod chain;
mod log;

pub use chain::Chain;
pub use log::{Format, init};
pub use prometheus::Registry;
