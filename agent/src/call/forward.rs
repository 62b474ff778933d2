//! Forward: a connection of the host's, to somebody who listens at localhost.

use super::{Outcome, refused};
use crate::agent::Agent;
use crate::relay;
use husk_protocol::Answer;

/// Connects, and has the bytes carried.
pub fn call(agent: &mut Agent, port: u32, to: u16) -> Outcome {
    relay::port::forward(agent, port, to)
        .map_err(|error| refused(&format!("connect to port {to} of localhost"), error))?;
    Ok(Some(Answer::Done))
}
