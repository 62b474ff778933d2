//! One container of the machine, as its conductor knows it.
//!
//! The one that the machine was started for is there from the beginning, and its end is the machine's. Every number is
//! the conductor's to give, and none is given twice: what a guest or a caller says of a number that is not known, or
//! not known any more, concerns nobody.

use super::{State, deadline, raise, refused};
use crate::config::hook;
use crate::error::ErrorKind;
use crate::machine::control::Phase;
use crate::machine::order::Failed;
use husk_protocol::{Container, ContainerKey, ProcessKey};
use nix::sys::eventfd::EventFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is known of it.
pub(super) struct Member {
    /// Its first process.
    pub first: ProcessKey,
    pub phase: Phase,
    /// Held by a verb that moves the phase, so that two of them take turns.
    pub turn: Arc<Mutex<()>>,
    /// How long `Start` may take: it depends on which hooks run then.
    pub start_within: Duration,
    /// Woken for what concerns the container as a whole.
    pub watchers: Vec<Arc<EventFd>>,
    /// How often the guest killed for memory, by what its agent says.
    pub out_of_memory: u64,
    /// When somebody first asked for SIGKILL.
    pub killed: Option<Instant>,
    /// Its memory limit in bytes, if it counts for those that join: 0 for none.
    pub memory: u64,
    /// The status with which it has ended, once that may be told.
    pub ended: Option<u8>,
}

impl Member {
    /// One that is being made.
    pub fn new(first: ProcessKey, start_within: Duration) -> Member {
        Member {
            first,
            phase: Phase::Creating,
            turn: Arc::default(),
            start_within,
            watchers: Vec::new(),
            out_of_memory: 0,
            killed: None,
            memory: 0,
            ended: None,
        }
    }

    /// Wakes all who wait for something about it.
    pub fn wake_watchers(&self) {
        self.watchers.iter().for_each(|watcher| raise(watcher));
    }
}

impl State {
    /// The container `key`, or what runc says of one that is none.
    pub fn member(&self, key: ContainerKey) -> Result<&Member, Failed> {
        self.members.get(&key).ok_or_else(gone)
    }

    /// The same, to be changed.
    pub fn member_mut(&mut self, key: ContainerKey) -> Result<&mut Member, Failed> {
        self.members.get_mut(&key).ok_or_else(gone)
    }

    /// Whether the container's first process has ended, or the machine is about to.
    pub fn has_ended(&self, key: ContainerKey) -> bool {
        let ended = |member: &Member| {
            let first = self.processes.get(&member.first);
            member.ended.is_some() || first.is_some_and(|first| first.ended.is_some())
        };
        self.ending.is_some() || self.members.get(&key).is_none_or(ended)
    }
}

/// How long `Start` of this container may take, with the hooks that run then.
pub(super) fn start_within(container: &Container) -> Duration {
    let hooks = container.start_hooks.hooks.iter().map(|hook| hook.timeout.map(Duration::from_millis));
    deadline::EXECUTE.saturating_add(hook::patience(hooks).unwrap_or(deadline::HOOK))
}

fn gone() -> Failed {
    refused(ErrorKind::NotFound, "container not running")
}
