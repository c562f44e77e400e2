//! API priority and fairness: which request is worked on when there are too many.
//!
//! What it is: requests are matched to flows and priority levels by `FlowSchema`s; every level has
//! its part of the server's seats and lends what it does not need; within a level, flows wait in
//! queues that are served fairly. It is kept which flows have more than their share of the
//! processors.
//!
//! Start reading at [`FlowControl`], then `queue_set.rs`, the queues of one level,
//! `borrowing.rs`, how seats move between levels, and [`Shares`].
//!
//! Invariants: a level's requests never hold more seats than its limit, but for one request that
//! alone needs more; a request that is admitted gives its seats back when its [`Seats`] are dropped,
//! and one that stops waiting leaves its queue; nothing here waits for longer than the limit that it
//! is given. `queue_set` and `borrowing` take time as an argument and know no threads.
//!
//! It does not read or write API objects: it is given them, and tells what they should be.
//!
//! Tested by simulations with seeds over the queues, and by unit tests beside the code. Upstream:
//! `apiserver/pkg/util/flowcontrol`.

#![forbid(unsafe_code)]

mod controller;

mod config;
mod matching;

mod borrowing;
mod queue_set;
mod shares;
mod shuffle;

mod dump;
mod metrics;
mod objects;
mod watches;
mod width;

pub use config::{FlowSchema, PriorityLevel};
pub use controller::{Classified, Flow, FlowControl, Rejection, Seats};
pub use matching::Digest;
pub use objects::{AUTO_UPDATE, Wanted, dangling_condition, wanted};
pub use shares::Shares;
pub use watches::{Part, Watched, Watches};
pub use width::{ListSize, Width};
