//! Exec, attach and port-forward over websockets and SPDY/3.1, the server's end.
//!
//! Start reading at [`Upgrade::negotiate`], which looks at a request and makes the answer that
//! switches protocols; then at [`serve_process`] and [`serve_ports`], which work on the connection
//! that follows.
//!
//! ```text
//!  websocket v1–v5 ──▶ channels ─┐
//!                                ├─▶ serve_process ──▶ Process (exec, attach)
//!  SPDY ──▶ streams ─────────────┤
//!  websocket tunnel ──▶ SPDY ────┴─▶ serve_ports ────▶ Dial (port-forward)
//! ```
//!
//! Invariants: a frame, a header block and the number of streams have limits, above which the
//! connection ends; what a peer does not read is not read from the process either.
//!
//! It deliberately does not open processes or ports, and has no client's end. It does not use
//! SPDY's flow control, which the peers of this protocol do not use either.
//!
//! Tested by unit and property tests of the decoders, and by clients in memory.

#![forbid(unsafe_code)]

mod process;
mod sink;
mod spdy;
mod spdy_frame;
mod spdy_headers;
mod upgrade;
mod websocket;

mod port_forward;

pub use port_forward::{Dial, Duplex, serve_ports};
pub use process::{Outcome, Process, Start, TerminalSize, Wanted, serve_process};
pub use upgrade::{Purpose, Refused, Upgrade};
