//! A kubelet with an API and a runtime in memory.

#[cfg(test)]
mod api_server;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod fake_runtime;
#[cfg(test)]
mod images;
#[cfg(test)]
mod manifest_url;
#[cfg(test)]
mod node;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod preemption;
#[cfg(test)]
mod probes;
#[cfg(test)]
mod resize;
#[cfg(test)]
mod server;
#[cfg(test)]
mod static_pods;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod world;
