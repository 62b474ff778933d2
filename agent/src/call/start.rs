//! Start: lets a created container execute its program. The end of its channel answers.

use super::{Outcome, failure, no_container, refused};
use crate::agent::Agent;
use crate::channel::Order;
use crate::process::Phase;
use husk_protocol::{ContainerKey, FailureKind};

/// Gives the order.
pub fn call(agent: &mut Agent, request: u32, key: ContainerKey) -> Outcome {
    let container = agent.containers.get(&key).ok_or_else(|| no_container(key))?;
    let wrong = |text: &str| failure(FailureKind::InvalidState, text);
    let stopped = || wrong("cannot start a container that has stopped");
    let process = agent.processes.get_mut(container.first).ok_or_else(stopped)?;
    match process.phase {
        Phase::Created => {}
        Phase::Preparing { .. } => return Err(wrong("cannot start a container that is being created")),
        Phase::Failed { .. } => return Err(stopped()),
        Phase::Starting { .. } | Phase::Running => {
            return Err(wrong("cannot start an already running container"));
        }
    }
    let channel = process.channel.as_ref().ok_or_else(stopped)?;
    channel.order(Order::Start).map_err(|error| refused("start the container", error))?;
    process.phase = Phase::Starting { request };
    Ok(None)
}
