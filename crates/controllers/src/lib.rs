//! Reconcilers, one per file.
