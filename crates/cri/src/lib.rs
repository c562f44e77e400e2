//! The container runtime interface as Rust traits.
