//! Relay: sockets and FIFOs of the host, from now on.

use super::{Outcome, refused};
use crate::agent::Agent;
use crate::relay;
use husk_protocol::Answer;

/// Begins to relay.
pub fn call(agent: &mut Agent, port: u32) -> Outcome {
    relay::start(agent, port).map_err(|error| refused("relay sockets", error))?;
    Ok(Some(Answer::Done))
}
