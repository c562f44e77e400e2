//! The real `kubectl`.
