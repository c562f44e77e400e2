//! Component tests: all controllers together on an API in memory.

#[cfg(test)]
mod attachments;
#[cfg(test)]
mod autoscaler;
#[cfg(test)]
mod deployments;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod disruption;
#[cfg(test)]
mod events;
#[cfg(test)]
mod gated;
#[cfg(test)]
mod hand_over;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod late;
#[cfg(test)]
mod memory_api;
#[cfg(test)]
mod memory_directories;
#[cfg(test)]
mod metric_sources;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod owners;
#[cfg(test)]
mod provisioning;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod reclaiming;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
mod stateful_sets;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod told;
#[cfg(test)]
mod topology;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod workloads;
