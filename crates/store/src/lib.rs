//! Revisions, watch and the write-ahead log.
