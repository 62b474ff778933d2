//! The host's end of the conversation with the agent in the guest.
//!
//! [`Conversation`] speaks [`husk_protocol`] over one stream socket, whose other end is a vsock stream into the guest.
//! It knows frames, requests, answers and events, and nothing of what they mean: [`crate::container::conductor`] does.
//!
//! The agent is the guest's, and so hostile: whatever it sends, the worst that happens is that the conversation ends.

mod conversation;
mod error;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
mod inbox;

pub use conversation::{Conversation, Hear};
pub use error::CallError;
