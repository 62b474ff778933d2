//! Resize: a terminal's size.

use super::{Outcome, failure, no_process, refused};
use crate::agent::Agent;
use crate::sys;
use husk_protocol::{Answer, FailureKind, ProcessKey, TerminalSize};
use nix::errno::Errno;

/// Sets it, or remembers it for a terminal that is still being made.
pub fn call(agent: &mut Agent, key: ProcessKey, size: TerminalSize) -> Outcome {
    let process = agent.processes.get_mut(key).ok_or_else(|| no_process(key))?;
    let (Some(stream), Some(remembered)) = (process.streams.stdout, process.streams.terminal.as_mut()) else {
        return Err(failure(FailureKind::InvalidState, "the process has no terminal"));
    };
    *remembered = size;
    match agent.streams.resize(stream, size) {
        Ok(()) => Ok(Some(Answer::Done)),
        Err(sys::Error(Errno::ENOTTY)) if process.channel.is_some() => Ok(Some(Answer::Done)),
        Err(error) => Err(refused("resize the terminal", error)),
    }
}
