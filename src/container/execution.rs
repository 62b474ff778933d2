//! A process, or a whole container, that is in a guest for as long as somebody on the host holds the connection that it was asked for on.
//!
//! ```text
//!   begin --> (runs) -- signal, resize --> ... -- its status, after its last byte
//!                \---- dropped: the machine kills it
//! ```
//! Whoever holds one stands for the process: a stand-in ([`super::stand_in`]), or a containerd shim, which lives as long
//! as its containers and needs no process more for each.

use crate::machine::control::client::{ClientError, Connection};
use crate::machine::control::{Address, Command, Outcome};
use crate::machine::order::Joining;
use crate::process::exit;
use husk_protocol::{ContainerKey, Process, TerminalSize};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the machine may take until the process runs: longer than it gives the guest.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A process that runs.
pub struct Execution {
    pub(super) connection: Connection,
}

/// Speaks to it.
pub struct Remote(Mutex<Connection>);

/// Waits for it.
pub struct Ending(Connection);

impl Execution {
    /// Has the machine at `control` run a process on `descriptors`; returns when it runs.
    pub fn begin(
        control: &Address,
        process: Box<Process>,
        terminal: Option<TerminalSize>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Execution, ClientError> {
        let mut connection = Connection::open(control)?;
        match connection.send(&Command::Exec { process, terminal }, descriptors) {
            // It refused before it had read everything: its words are still to be had.
            Ok(()) | Err(ClientError::Gone) => {}
            Err(error) => return Err(error),
        }
        match connection.receive(Some(PATIENCE))? {
            Outcome::Done => Ok(Execution { connection }),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has the machine at `control` make a container, from a tree for each of its exports and the descriptors of its first
    /// process; returns when it is made, with its number.
    pub fn join(
        control: &Address,
        joining: Box<Joining>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Execution, ContainerKey), ClientError> {
        let mut connection = Connection::open(control)?;
        match connection.send(&Command::Join(joining), descriptors) {
            Ok(()) | Err(ClientError::Gone) => {}
            Err(error) => return Err(error),
        }
        match connection.receive(Some(PATIENCE))? {
            Outcome::Joined(container) => Ok((Execution { connection }, container)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// For one who only waits for it.
    pub fn into_ending(self) -> Ending {
        Ending(self.connection)
    }

    /// For one who speaks to it and another who waits for it. The process lives until both are dropped.
    pub fn split(self) -> std::io::Result<(Remote, Ending)> {
        let other = self.connection.try_clone()?;
        Ok((Remote(Mutex::new(other)), Ending(self.connection)))
    }
}

impl Remote {
    /// Sends it a signal. [`ClientError::Gone`] when it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), ClientError> {
        self.say(&Command::Signal { signal, all: false })
    }

    /// Its terminal has a new size.
    pub fn resize(&self, size: TerminalSize) -> Result<(), ClientError> {
        self.say(&Command::Resize(size))
    }

    fn say(&self, command: &Command) -> Result<(), ClientError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).send(command, &[])
    }
}

impl Ending {
    /// Waits for its end; its status (128 + N for signal N), which for a machine that is gone is that of a kill.
    pub fn wait(mut self) -> Result<u8, ClientError> {
        match self.0.receive(None) {
            Ok(Outcome::Exited(status)) => Ok(status),
            Ok(_) => Err(ClientError::Unexpected),
            Err(ClientError::Gone) => Ok(exit::KILLED),
            Err(error) => Err(error),
        }
    }
}
