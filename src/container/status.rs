//! A container's status: what the machine says while it lives, and `stopped` after that.

use crate::host::pidfd::PidFd;
use crate::machine::control::client::{ClientError, Connection};
use crate::machine::control::{Address, Command, Outcome, Phase};
use std::fmt;
use std::time::Duration;

use super::state::{Stage, State};

/// How long a machine may take to tell its phase. It answers without its guest, so more means that it is stuck, and then
/// what the state file says has to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// The OCI runtime spec's words (and runc's `paused`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` has not finished.
    Creating,
    /// It has; `start` has not been called.
    Created,
    /// The program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The status of the container with this state, and its machine process, held, if it lives.
pub fn of(state: &State, control: &Address) -> (Status, Option<PidFd>) {
    let Some(machine) = super::held(state) else { return (Status::Stopped, None) };
    if state.stage == Stage::Creating {
        return (Status::Creating, Some(machine));
    }
    let phase = match ask(control) {
        // It has ended in a machine that lives on.
        Err(ClientError::Refused(_)) if state.sandbox.is_some() => return (Status::Stopped, None),
        answer => answer.ok(),
    };
    let status = match (phase, state.stage) {
        (Some(Phase::Creating), _) => Status::Creating,
        (Some(Phase::Created), _) => Status::Created,
        (Some(Phase::Running), _) => Status::Running,
        (Some(Phase::Paused), _) => Status::Paused,
        (None, Stage::Started) => Status::Running,
        (None, _) => Status::Created,
    };
    // It may have ended while it was asked.
    match super::held(state) {
        Some(machine) => (status, Some(machine)),
        None => (Status::Stopped, None),
    }
}

fn ask(control: &Address) -> Result<Phase, ClientError> {
    let mut connection = Connection::open(control)?;
    connection.send(&Command::Status, &[])?;
    match connection.receive(Some(PATIENCE))? {
        Outcome::Status(phase) => Ok(phase),
        _ => Err(ClientError::Unexpected),
    }
}
