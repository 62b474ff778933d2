//! Streams between guest and host.
