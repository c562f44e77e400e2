//! How components speak to the API server.
//!
//! Controllers, scheduler, kubelet, proxy and DNS know the API only through this crate, although
//! they may share a process with the server. A [`Transport`] carries requests: [`Remote`] over
//! HTTP/2 and TLS, another one, chosen in the binary, by a call into the server of the same process.
//!
//! Start reading at [`Client`] and [`Api`]; then [`Informer`], the cached view that every
//! reconciler works on, and [`WorkQueue`], which decides when it runs.
//!
//! Invariants: cached objects are never changed; an [`Informer`] delivers every object's changes in
//! the order of their resource versions; a key is never handled by two workers of a [`WorkQueue`]
//! at once.
//!
//! It does not retry writes: whoever wrote knows whether the write may be repeated.
//!
//! Tested by unit tests with a scripted transport, and by the tests of every component above it.

#![forbid(unsafe_code)]

mod account_tokens;
mod api;
mod backoff;
mod error;
mod event_recorder;
mod informer;
mod kubeconfig;
mod leader_election;
mod list_options;
mod patch;
mod refusal;
mod remote;
mod rest_metrics;
mod transport;
mod watch_decoder;
mod work_queue;

pub use account_tokens::{AccountTokens, TokenSource};
pub use api::{Api, Client, Created, DeleteOptions, Propagation, ResourcePath};
pub use backoff::Backoff;
pub use error::ClientError;
pub use event_recorder::{EventRecorder, EventType, Regarding};
pub use informer::{Change, Informer, InformerConfig, Lister};
pub use kubeconfig::{Credentials, KubeConfig, KubeConfigError};
pub use leader_election::{LeaderElection, LeaderElectionError, LeaseLost, lead};
pub use list_options::ListOptions;
pub use patch::Patch;
pub use remote::{Remote, tls_config};
pub use rest_metrics::RestMetrics;
pub use transport::{ObjectList, Transport, WatchStream};
pub use work_queue::{AtWork, Outcome, QueueObserver, WorkQueue, WorkQueueConfig};
