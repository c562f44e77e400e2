//! Routes, links and nftables without an external program.
