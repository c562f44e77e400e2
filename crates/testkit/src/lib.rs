//! What tests share: hosts of their own, clusters on them, and images without a registry.
//!
//! Start reading at [`Host`], a set of namespaces that stands for a machine, and [`Cluster`],
//! `ironclad up` on one. The program `testkit-pod` is what the tests' pods run, and
//! `testkit-extension` what extends the API in them.
//!
//! Invariants: what a test makes is in namespaces and directories of its own and goes with it,
//! also after a failure; nothing is ended but by the pid that was started here.
//!
//! It knows nothing of a single component.
//!
//! Tested by the tests that use it.

#![forbid(unsafe_code)]

mod authority;
mod clients;
mod cluster;
mod command;
mod connection;
mod docker_registry;
mod host;
mod images;
mod pod_image;

pub use authority::Authority;
pub use clients::real_clients;
pub use cluster::{Cluster, Options, remove_cgroup};
pub use command::command;
pub use connection::{connect, websocket};
pub use docker_registry::{DockerRegistry, Pushed, REGISTRY_PACKAGE};
pub use host::Host;
pub use images::ImageBuilder;
pub use pod_image::{EXTENSION_IMAGE, POD_IMAGE, extension_image, pod_image, pod_image_to_push};
