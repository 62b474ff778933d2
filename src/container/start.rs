//! `start`: lets the program of a created container run.

use super::error::ContainerError;
use super::state::Stage;
use super::{Container, Status, hooks};
use crate::host::fault;
use crate::machine::control::Command;

impl Container {
    /// Starts it, with runc's words for every other status.
    pub fn start(&mut self) -> Result<(), ContainerError> {
        let refused = |text: &str| Err(ContainerError::WrongStatus(text.to_owned()));
        match self.status() {
            Status::Created => self.start_created(),
            Status::Stopped => refused("cannot start a container that has stopped"),
            Status::Running => refused("cannot start an already running container"),
            other => refused(&format!("cannot start a container in the {other} state")),
        }
    }

    /// Starts it, knowing that it is created.
    pub fn start_created(&mut self) -> Result<(), ContainerError> {
        fault::point("to be started");
        self.ask_with_hooks(&Command::Start, &self.state.hooks.start_container)?;
        fault::point("started");
        self.state.stage = Stage::Started;
        // For a time when the machine cannot be asked; if this fails, the machine's word still counts.
        if let Err(error) = self.state.write(&self.directory) {
            tracing::debug!("cannot note the start: {error}");
        }
        if self.state.hooks.poststart.is_empty() {
            return Ok(());
        }
        let ran =
            hooks::run("poststart", &self.state.hooks.poststart, &self.oci_state(Status::Running), None);
        if ran.is_err() {
            // As the spec has it: the container is stopped and the error told.
            let _ = self.kill_and_wait();
        }
        ran
    }
}
