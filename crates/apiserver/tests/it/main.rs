//! The server as its clients see it: over TLS, and in process.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod aggregated_process;
#[cfg(test)]
mod aggregation;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod custom_resources;
#[cfg(test)]
mod field_selectors;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod flow_control;
#[cfg(test)]
mod hostile_clients;
#[cfg(test)]
mod hostile_extensions;
#[cfg(test)]
mod https;
#[cfg(test)]
mod identity_lease;
#[cfg(test)]
mod in_process;
#[cfg(test)]
mod managed_fields;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod over_tls;
#[cfg(test)]
mod proxied_pages;
#[cfg(test)]
mod proxying;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod secret_tokens;
#[cfg(test)]
mod service_ranges;
#[cfg(test)]
mod service_repairs;
