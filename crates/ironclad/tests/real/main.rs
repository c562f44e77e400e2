//! Tests against real programs: `cargo xtask test --real` installs what they need.

#[cfg(test)]
#[path = "../e2e/harness.rs"]
mod harness;

#[cfg(test)]
mod application;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod images;
#[cfg(test)]
mod kube_client;
#[cfg(test)]
mod kubectl;
#[cfg(test)]
mod languages;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod streams;
