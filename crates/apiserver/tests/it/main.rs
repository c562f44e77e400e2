//! The server as its clients see it: over TLS, and in process.

mod fixture;
mod in_process;
mod over_tls;
mod proxying;
