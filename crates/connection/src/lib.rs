//! HTTP connections of the API server, in both directions.
//!
//! What it is: accepting connections, their TLS and their limits; the bodies of requests and of
//! answers, compressed or not; and single requests to other servers. It is a crate of its own so that
//! the HTTP library is compiled for these types beside the rest of the server, not within it.
//!
//! Start reading at [`listener::serve`], then [`Body`]; [`outbound`] is the other direction.
//!
//! Invariants: every peer has limits of time, of headers and of bytes; an answer is never copied as a
//! whole; a connection that ends takes nothing else with it.
//!
//! What it deliberately does not do: it knows no API, no user and no path.
//!
//! Tested by unit tests beside the code, and over real sockets by the tests of `apiserver`.

#![forbid(unsafe_code)]

mod body;
pub mod compress;
pub mod listener;
pub mod outbound;

pub use body::{Body, BodyError, REQUEST_BYTES, RequestBody};
