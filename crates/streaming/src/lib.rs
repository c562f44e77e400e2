//! Exec, attach, port-forward and logs over websockets and SPDY/3.1.
