//! A kubelet with an API and a runtime in memory.

#[cfg(test)]
mod api_server;
#[cfg(test)]
mod fake_runtime;
#[cfg(test)]
mod images;
#[cfg(test)]
mod node;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod server;
#[cfg(test)]
mod world;
