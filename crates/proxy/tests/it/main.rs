//! Tests against the kernel, each in a network namespace that it makes for itself.

#[cfg(test)]
mod traffic;
