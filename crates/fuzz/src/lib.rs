//! Coverage-guided fuzzing of everything that decodes bytes from outside.
//!
//! What it is: a small engine ([`fuzz`]) that changes inputs, keeps those that reach new code, and
//! reports those on which a decoder panics, breaks its promise, or takes more memory or time than
//! the input is worth; and a target per decoder ([`targets`]). `cargo xtask fuzz` builds it with the
//! compiler's coverage counters and runs it.
//!
//! Start reading at [`fuzz`], then [`Target`].
//!
//! Invariants: a run is decided by its seed, target and number of executions when there are no
//! counters; with counters, also by what was compiled. Seeds are made from the project's own tables.
//! What is measured is the thread's own processor time and this process's own allocations, so that
//! a busy machine finds nothing that is not there.
//!
//! What it deliberately does not do: it runs no code in parallel and keeps no state between targets.
//! The public fuzzers were not taken: the compiler needed for one is not stable, its runtime is not
//! under a licence this project uses, and the other brings over a hundred packages.
//!
//! Tested by a short run of every target without counters, and by a target with a known fault.

mod coverage;
mod engine;
mod memory;
mod mutate;
mod random;
pub mod seeds;
pub mod targets;
mod watch;

pub use engine::{Finding, Limit, Outcome, fuzz, replay};
pub use memory::Counting;
pub use targets::{Target, prepare};
