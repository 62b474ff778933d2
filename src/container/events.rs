//! `events`: what a machine tells of its container without being asked each time.

use super::Container;
use super::error::ContainerError;
use crate::machine::control::client::{ClientError, Connection};
use crate::machine::control::wire::WireError;
use crate::machine::control::{Command, Outcome};
use std::time::Duration;

/// A connection on which a machine tells.
pub struct Events {
    connection: Connection,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The guest's kernel killed for memory.
    OutOfMemory,
    /// The container has ended; there will be no more.
    Ended,
    /// Nothing, in the time that was given.
    Nothing,
}

impl Container {
    /// Asks its machine to tell.
    pub fn watch(&self) -> Result<Events, ContainerError> {
        let mut connection = Connection::open(&self.control())?;
        connection.send(&Command::Watch, &[])?;
        Ok(Events { connection })
    }
}

impl Events {
    /// Waits up to `within` for the next.
    pub fn next(&mut self, within: Duration) -> Result<Happening, ContainerError> {
        loop {
            return match self.connection.receive(Some(within)) {
                Ok(Outcome::OutOfMemory) => Ok(Happening::OutOfMemory),
                Ok(Outcome::Exited(_)) | Err(ClientError::Gone) => Ok(Happening::Ended),
                Err(ClientError::Wire(WireError::TimedOut)) => Ok(Happening::Nothing),
                Err(error) => Err(error.into()),
                // That it listens now; or news of a later version.
                Ok(_) => continue,
            };
        }
    }
}
