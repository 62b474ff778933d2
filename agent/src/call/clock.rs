//! SetClock: the wall clock, when the host's and ours may have parted.

use super::{Outcome, refused};
use crate::agent::Agent;
use husk_protocol::Answer;

/// Sets it.
pub fn call(agent: &mut Agent, nanoseconds: u64) -> Outcome {
    agent.clock.set(nanoseconds).map_err(|error| refused("set the clock", error))?;
    Ok(Some(Answer::Done))
}
