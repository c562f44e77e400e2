//! Typed views of the built-in kinds.
