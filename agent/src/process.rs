//! Processes that the host asked for, as the agent remembers them.
//!
//! ```text
//!                    Prepared (first)            Start                 channel ends
//!   Preparing{request} ---------> Created ---------------> Starting{request} ---> Running
//!       |                                                   ^     |
//!       |  Prepared (exec) ---------------------------------'     |
//!       '--------- Failed ------------> Failed{request} <---------' Failed (exec)
//! ```
//!
//! Only [`crate::settle`] moves it. A process that was answered for (Created and later) is reported when it ends. One that
//! failed before is not: its failure is the answer, given when it has ended and nothing of it is left.

use crate::channel::AgentEnd;
use crate::poll::Poll;
use crate::stream::{StreamId, Streams};
use husk_protocol::{ContainerKey, Failure, ProcessKey, TerminalSize};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

/// All processes that the host asked for, by number and by pid.
#[derive(Default)]
pub struct Processes {
    by_key: BTreeMap<ProcessKey, ProcessState>,
    by_pid: HashMap<i32, ProcessKey>,
}

/// One process.
pub struct ProcessState {
    /// Its container.
    pub container: ContainerKey,
    /// Its pid in the guest.
    pub pid: i32,
    /// Names it even when its pid is another's.
    pub pidfd: OwnedFd,
    /// How far it is.
    pub phase: Phase,
    /// While it is being set up.
    pub channel: Option<AgentEnd>,
    /// Its streams.
    pub streams: ProcessStreams,
    /// It is its container's first process.
    pub first: bool,
    /// Hooks run when it is started: until it says that they are done, the end of its channel is a death.
    pub hooked: bool,
}

/// How far a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Being set up, for this request.
    Preparing {
        /// Create or Exec.
        request: u32,
    },
    /// A first process that waits to be started.
    Created,
    /// About to execute its program, for this request.
    Starting {
        /// Start or Exec.
        request: u32,
    },
    /// Executing its program.
    Running,
    /// It never comes to be: the host is told when it is gone.
    Failed {
        /// Create or Exec.
        request: u32,
        /// Why.
        failure: Failure,
    },
}

/// The streams of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessStreams {
    /// Host to process.
    pub stdin: Option<StreamId>,
    /// Process to host, or the terminal.
    pub stdout: Option<StreamId>,
    /// Process to host.
    pub stderr: Option<StreamId>,
    /// `stdout` is a terminal; the size it was last told before it was made.
    pub terminal: Option<TerminalSize>,
}

impl ProcessStreams {
    /// The process has ended: bytes that it wrote to stdout (or its terminal) and to stderr.
    pub fn release(&self, poll: &Poll, streams: &mut Streams) -> (u64, u64) {
        if let Some(stdin) = self.stdin {
            streams.release(poll, stdin);
        }
        let mut count = |stream: Option<StreamId>| stream.map_or(0, |stream| streams.release(poll, stream));
        (count(self.stdout), count(self.stderr))
    }

    /// The process never came to be.
    pub fn drop_all(&self, streams: &mut Streams) {
        for stream in [self.stdin, self.stdout, self.stderr].into_iter().flatten() {
            streams.drop_stream(stream);
        }
    }
}

impl Processes {
    /// Remembers a process.
    pub fn add(&mut self, key: ProcessKey, process: ProcessState) {
        self.by_pid.insert(process.pid, key);
        self.by_key.insert(key, process);
    }

    /// Finds one.
    pub fn get(&self, key: ProcessKey) -> Option<&ProcessState> {
        self.by_key.get(&key)
    }

    /// Finds one to change it.
    pub fn get_mut(&mut self, key: ProcessKey) -> Option<&mut ProcessState> {
        self.by_key.get_mut(&key)
    }

    /// Which process has this pid.
    pub fn key_of(&self, pid: i32) -> Option<ProcessKey> {
        self.by_pid.get(&pid).copied()
    }

    /// Forgets one.
    pub fn remove(&mut self, key: ProcessKey) -> Option<ProcessState> {
        let process = self.by_key.remove(&key)?;
        self.by_pid.remove(&process.pid);
        Some(process)
    }

    /// All of a container.
    pub fn of(&self, container: ContainerKey) -> impl Iterator<Item = (ProcessKey, &ProcessState)> {
        self.by_key
            .iter()
            .filter(move |(_, process)| process.container == container)
            .map(|(key, process)| (*key, process))
    }
}
