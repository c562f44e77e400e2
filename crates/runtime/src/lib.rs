//! The embedded container runtime and its shim.
