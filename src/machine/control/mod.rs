//! The control socket of a machine: what other `husk` commands ask of it.
//!
//! A stream socket, mode 0600, in the state directory of the container that the machine was started for; the peer's uid
//! must be ours or root's (SO_PEERCRED). Each [`Request`] names the container that it is for. One connection carries one
//! [`Command`] and its [`Outcome`]; a connection with an exec or a join goes on until the process has ended. Frames are a 4-byte big-endian length and that many bytes of JSON (so that a newer `husk` can talk to a
//! machine that an older one started); descriptors come with the first frame by SCM_RIGHTS.
//!
//! - [`wire`]: the frames.
//! - [`client`]: a command's end.
//! - [`server`]: the machine's end: who may speak, and how long. What a command *does* is its [`server::Conduct`]'s
//!   business, which joins the machine and the agent.

mod address;
pub mod client;
pub mod server;
#[allow(unsafe_code)] // descriptors that arrive are raw numbers until they are owned
pub mod wire;

pub use address::listen_at;

use super::order::{Failed, Joining};
use husk_protocol::{ContainerKey, GuestProcess, Process, Resources, Stats, TerminalSize};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a container can be asked for: its machine's control socket, and its number in that machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The socket, by a path of any length.
    pub socket: PathBuf,
    /// The number. The first is of the container that the machine was started for.
    pub container: ContainerKey,
}

impl Address {
    /// Of the container that the machine behind `socket` was started for.
    pub fn of_first(socket: &Path) -> Address {
        Address { socket: socket.to_owned(), container: ContainerKey(0) }
    }
}

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// For which container.
    pub container: ContainerKey,
    /// What is asked.
    pub command: Command,
}

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Answered at once, without the guest: [`Outcome::Status`].
    Status,
    /// Executes the container's program. [`Outcome::Done`].
    Start,
    /// Runs one more process; stdin, stdout and stderr (or one terminal) come as descriptors. [`Outcome::Done`] when
    /// it runs; then the connection accepts [`Command::Signal`] and [`Command::Resize`] for it, and ends with
    /// [`Outcome::Exited`]. If the connection is closed before, the process is killed.
    Exec {
        /// What to run; stream ports are filled in by the machine.
        process: Box<Process>,
        /// Whether the descriptor is a terminal, and its size.
        terminal: Option<TerminalSize>,
    },
    /// Makes one more container in the machine, from what comes as descriptors: a tree for each export, then the streams
    /// of its first process. [`Outcome::Joined`] when it is made; from then on as for an exec, but that the container is
    /// asked for by its number. If the connection is closed before its end, it is killed.
    Join(Box<Joining>),
    /// Sends a signal to the container's first process (on an exec's connection: to that process).
    /// SIGKILL never needs the guest: if the agent does not answer, the machine ends itself.
    Signal {
        /// Number.
        signal: i32,
        /// To every process of the container.
        all: bool,
    },
    /// The size of the container's (on an exec's connection: that process's) terminal has changed.
    Resize(TerminalSize),
    /// [`Outcome::Processes`].
    Processes,
    /// [`Outcome::Stats`].
    Stats,
    /// Freezes the container's processes.
    Pause,
    /// Thaws them.
    Resume,
    /// New limits. The machine gets more memory first, if a container with its limit is to have it.
    Update(Box<Resources>),
    /// How much memory the machine is going to have when the container has this memory limit: [`Outcome::Memory`].
    Memory {
        /// Bytes.
        limit: u64,
    },
    /// [`Outcome::OutOfMemory`] each time the guest kernel kills for memory, until the container's end
    /// ([`Outcome::Exited`]).
    Watch,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The container's state.
    Status(Phase),
    /// A container was made, and has this number.
    Joined(ContainerKey),
    /// An exec (or, for [`Command::Watch`], the container) has ended, with this status (128 + N for signal N).
    Exited(u8),
    /// The container's processes.
    Processes(Vec<GuestProcess>),
    /// The container's counters.
    Stats(Box<Stats>),
    /// The machine's memory, in MiB.
    Memory(u32),
    /// The guest kernel killed for memory.
    OutOfMemory,
    /// It could not be done.
    Failed(Failed),
}

/// The life of a container, as its machine knows it: created -> running <-> paused -> (the machine ends).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Being made.
    Creating,
    /// Made, not started.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Phase::Creating => "creating",
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Paused => "paused",
        })
    }
}
