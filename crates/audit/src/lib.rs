//! Audit events: which requests are recorded, what of them, and where to.
//!
//! What it is: the audit policy, the events of a request on its way through the server, and the
//! back ends that write events to a file or post them to another server.
//!
//! Start reading at [`Auditor::begin`], which asks the [`Policy`]; then [`AuditContext`], one
//! request; then [`Backend`], where its events go.
//!
//! Invariants: a request that is not recorded costs the evaluation of the policy and nothing more;
//! bodies are shared, never copied, and are not looked at below the level that records them; events
//! are printed by the back ends, off the request's task; every queue is bounded in events and in
//! bytes, and what does not fit is counted; a back end that is slow or gone harms no request, unless
//! its mode says that requests wait for it.
//!
//! What it deliberately does not do: it knows no HTTP request and no kind of the API; which requests
//! are long-running, and what their objects are, is for the server to say.
//!
//! Tested by unit tests beside the code, and with a whole server by the tests of `apiserver`.

#![forbid(unsafe_code)]

mod auditor;
mod backend;
mod buffer;
mod context;
mod event;
mod file;
mod log;
mod metrics;
mod options;
mod policy;
mod print;
mod source_ips;
mod webhook;

pub use auditor::{Auditor, Sinks, StartError};
pub use backend::Backend;
pub use context::{AuditContext, NotStored};
pub use event::{
    Event, Facts, Level, Media, ObjectReference, Recorded, ResponseStatus, Stage, Stages,
};
pub use options::{
    BatchOptions, Format, LogOptions, Mode, OptionsError, TruncateOptions, WebhookOptions,
    WebhookTarget,
};
pub use policy::{Asked, Decision, Policy, PolicyError};
pub use source_ips::source_ips;
pub use webhook::TargetError;
