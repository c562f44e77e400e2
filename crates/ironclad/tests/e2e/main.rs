//! End-to-end tests: whole clusters, each in namespaces of its own.

#[cfg(test)]
mod extension;
#[cfg(test)]
mod gated;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod parts;

#[cfg(test)]
mod alone;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod drivers;
#[cfg(test)]
mod extended_apis;
#[cfg(test)]
mod hostile_pods;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod joined;
#[cfg(test)]
mod killed_agent;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod local_path;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod placed;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod reboot;
#[cfg(test)]
mod recycling;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod services;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod stateful;
#[cfg(test)]
mod static_pods;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod users;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod workloads;
#[cfg(test)]
mod wrong_input;
