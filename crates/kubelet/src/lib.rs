//! The node agent: runs the pods that are bound to its node and tells the API about them.
//!
//! Start reading at [`run()`], then at `pod::worker`, of which every pod has one. What a worker
//! does is decided by pure functions: `pod::lifecycle` says what is to be done, `pod::status` what
//! is to be told.
//!
//! ```text
//!  API ── pods of this node ──▶ workers ──▶ one worker per pod ── CRI ──▶ runtime
//!  files, address ── static pods ─▶ │
//!  runtime ── events ─────────▶    │         observe, plan, act, report
//!  probes, timers, ConfigMaps ────▶┘              └──▶ status writer ──▶ API
//! ```
//!
//! Invariants:
//! - A pod's containers are started and ended by its worker alone. A worker keeps nothing that it
//!   could not find out again: what runs is asked of the runtime, at every look.
//! - A pod object is removed from the API only when nothing of the pod is left on the node.
//! - A status is written only when it differs from the one before.
//!
//! It deliberately does not evict pods because the node is short of something,
//! mounts no volume of the network but those of NFS, and knows containers only through CRI.
//!
//! Tested by unit tests of the pure functions beside the code, and by `tests/it` with a scripted
//! API and a runtime in memory.

#![forbid(unsafe_code)]

mod config;
mod run;

mod cgroups;
mod eviction;
mod housekeeping;
mod http_get;
mod image;
mod kubelet;
mod labels;
mod log_rotation;
mod metrics;
mod node;
mod pod;
mod server;
mod static_pods;
mod volume;

pub use config::{Config, Deps, KubeletError, ManifestUrl, OnPodCidr, ServingTls};
pub use eviction::EvictionHard;
pub use image::{CredentialsPolicy, ImageGcPolicy, ImagesConfig};
pub use run::run;
