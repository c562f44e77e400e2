//! The embedded container runtime and its shim.
//!
//! Start reading at [`Runtime`], which implements the CRI traits in the agent, and at
//! [`shim::main`], which is the other process. `spec` and `protocol` are what they share.
//!
//! ```text
//!  agent                          shim, one per pod            container
//!  Runtime ── socket, protocol ──▶ Shim::run ── fork, child ──▶ program
//!     │                              │   ▲                        │
//!     └─ sandbox.json, container.json│   └──── stdout, stderr ────┘
//!                state.json, the log ◀
//! ```
//!
//! Invariants:
//! - A shim has one thread, and is the only one who knows whether a container runs. The agent asks
//!   it after a restart; what the agent wrote down is what it wants, not what is.
//! - Everything about a sandbox is below its directory. A directory without its record was not
//!   finished, or was being removed, and goes when the runtime is opened.
//! - Mounts are made in the containers' own mount namespaces only, or in one that ends before the
//!   container begins, so none can be left behind.
//! - A shim stays among the node's users. What belongs to a pod with users of its own is made by
//!   processes that have entered them (`shim::users`).
//! - A cgroup, a lease on image layers and network addresses are released before the record of
//!   what they belonged to.
//!
//! It deliberately does not pull images, does not speak to systemd, and has no pause image. A
//! service manager that is to leave pods running must end the agent's process only, not its cgroup.
//!
//! Tested by unit tests beside the code, and by `tests/it` with real containers, which needs the
//! rights of root. The tests' image holds the test program itself and its libraries.

mod runtime;

mod image_service;
mod runtime_service;

mod container_ops;
mod sandbox_ops;
mod streams;

mod container;
mod etc;
mod handle;
mod plan;
mod record;
mod sandbox;
mod stats;
mod tty;

pub mod shim;
mod spec;

mod protocol;

pub use handle::ShimCommand;
pub use runtime::{Config, Deps, OpenError, Runtime};
