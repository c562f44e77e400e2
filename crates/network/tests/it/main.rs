//! Tests against the kernel, each in network namespaces that it makes for itself.

#[cfg(test)]
mod pods;
