//! Pulls from registries of the tests' own.

#[cfg(test)]
mod fake_registry;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod tokens;
