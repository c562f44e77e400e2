//! Tests against real programs: `cargo xtask test --real` installs what they need.

#[cfg(test)]
mod kubectl;
