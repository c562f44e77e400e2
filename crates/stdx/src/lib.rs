//! Small extensions of the standard library that know nothing of Kubernetes.
//!
//! Start reading at [`task::spawn`], through which every background task starts, and
//! [`shutdown`], by which every component learns that it should end.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

pub mod atomic_file;
pub mod interner;
pub mod ready;
pub mod shutdown;
pub mod task;
pub mod tls;
