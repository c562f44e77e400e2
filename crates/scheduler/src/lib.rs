//! The scheduler and its plugins.
