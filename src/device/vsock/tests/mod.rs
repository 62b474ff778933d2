//! Stories at packet level: a mock driver plays the guest's kernel, pipes and sockets play the callers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod guest;
mod hostile;
mod random;
mod stories;
mod waiting;
