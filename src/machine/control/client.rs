//! A command's end of the control socket: connect, say what is wanted, hear what came of it.

use super::address;
use super::wire::{self, WireError};
use super::{Address, Command, Outcome, Request};
use crate::error::{ErrorKind, Kind};
use crate::machine::order::Failed;
use husk_protocol::ContainerKey;
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long [`ask`] waits. Longer than everything that the machine itself waits for ([`super`]), so that its words
/// arrive rather than ours.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What can go wrong with a request to a machine.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens behind the socket, or it went away before it answered: the container has ended.
    #[error("container not running")]
    Gone,
    /// The machine's own words.
    #[error("{}", .0.message)]
    Refused(Failed),
    /// The connection failed.
    #[error("cannot talk to the container's machine")]
    Wire(#[source] WireError),
    /// The socket cannot be reached.
    #[error("cannot connect to the container's machine")]
    Connect(#[source] std::io::Error),
    /// An answer that does not belong to the question.
    #[error("the container's machine gave an answer that does not fit")]
    Unexpected,
}

impl Kind for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Gone => ErrorKind::NotFound,
            ClientError::Refused(failed) => failed.kind,
            ClientError::Wire(error) => error.kind(),
            ClientError::Connect(_) | ClientError::Unexpected => ErrorKind::Host,
        }
    }
}

/// One connection to a machine.
pub struct Connection {
    socket: UnixStream,
    /// For which container commands on it are.
    container: ContainerKey,
}

impl Connection {
    /// Connects, to speak of the container at `address`.
    pub fn open(address: &Address) -> Result<Connection, ClientError> {
        match address::connect_to(&address.socket) {
            Ok(socket) => Ok(Connection { socket, container: address.container }),
            Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => Err(ClientError::Gone),
            Err(error) => Err(ClientError::Connect(error.into())),
        }
    }

    /// Another hold on the same connection.
    pub fn try_clone(&self) -> std::io::Result<Connection> {
        Ok(Connection { socket: self.socket.try_clone()?, container: self.container })
    }

    /// Sends a command; copies of `descriptors` go with it.
    pub fn send(&mut self, command: &Command, descriptors: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let request = Request { container: self.container, command: command.clone() };
        wire::send_frame(&self.socket, &request, descriptors).map_err(of_wire)
    }

    /// Receives the next outcome. [`Outcome::Failed`] arrives as [`ClientError::Refused`].
    pub fn receive(&mut self, within: Option<Duration>) -> Result<Outcome, ClientError> {
        match wire::receive_frame(&self.socket, within).map_err(of_wire)? {
            (Outcome::Failed(failed), _) => Err(ClientError::Refused(failed)),
            (outcome, _) => Ok(outcome),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks one thing of a container's machine.
pub fn ask(address: &Address, command: &Command) -> Result<Outcome, ClientError> {
    ask_within(address, command, Some(PATIENCE))
}

/// The same, with a patience of the caller's: `None` waits until the machine answers or ends.
pub fn ask_within(
    address: &Address,
    command: &Command,
    within: Option<Duration>,
) -> Result<Outcome, ClientError> {
    let mut connection = Connection::open(address)?;
    // A machine that has no room for us says so and closes before it has read what we say: its words are worth more
    // than the broken pipe.
    match connection.send(command, &[]) {
        Ok(()) | Err(ClientError::Gone) => connection.receive(within),
        Err(error) => Err(error),
    }
}

fn of_wire(error: WireError) -> ClientError {
    match error {
        WireError::Closed => ClientError::Gone,
        error => ClientError::Wire(error),
    }
}
