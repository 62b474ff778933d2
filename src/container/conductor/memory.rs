//! How much memory the machine has, and how it comes to have more: for the container that it was started for, if it is a copy
//! of a smaller one; for one that joins; for one whose limit is raised.
//!
//! ```text
//!   limits, and what the kernel needs beside them --more than there is--> plugged by the machine --> taken by the agent
//! ```
//! Containers without a limit share what is there. The machine never has less than before: a guest gives back by itself
//! what it does not use.

use super::{Conductor, State, deadline, failed, refused};
use crate::error::ErrorKind;
use crate::machine::order::Failed;
use husk_protocol::{Answer, Call, ContainerKey, Resources};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of a machine, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// What its guest has seen from its beginning.
    pub begun_mib: u32,
    /// What it may have.
    pub most_mib: u32,
    /// What limits are to leave to the guest's kernel and agent.
    pub headroom_mib: u32,
}

/// The machine's memory.
pub(super) struct Memory {
    size: Size,
    /// Bytes that the guest has. Whoever changes it, or counts on it, holds it meanwhile, and may wait for the guest.
    now: Mutex<u64>,
}

impl Memory {
    pub fn new(size: Size) -> Memory {
        Memory { size, now: Mutex::new(bytes(size.begun_mib)) }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much there is to be when limits come to this, if there is `now`.
    fn wanted(&self, limits: u64, now: u64) -> u64 {
        let wanted = limits.saturating_add(bytes(self.size.headroom_mib));
        wanted.min(bytes(self.size.most_mib)).max(now)
    }
}

impl Conductor {
    /// Gives the machine as much as it was to have.
    pub(super) fn grow_to(self: &Arc<Self>, mib: u32) -> Result<(), Failed> {
        self.grow(&mut self.memory.lock(), bytes(mib))
    }

    /// Makes room for a container with this limit (0 for none): one that is to join, or `of`, whose limit changes. What is
    /// returned has to be held until the limit counts.
    pub(super) fn make_room(
        self: &Arc<Self>,
        of: Option<ContainerKey>,
        limit: u64,
    ) -> Result<MutexGuard<'_, u64>, Failed> {
        let mut now = self.memory.lock();
        if limit == 0 {
            return Ok(now);
        }
        let others = self.lock().limits_but(of);
        let limits = limit.saturating_add(others);
        let wanted = self.memory.wanted(limits, *now);
        self.check(limit, others, wanted)?;
        match self.grow(&mut now, wanted) {
            // It is enough, if only just.
            Err(failed) if limits <= *now => {
                tracing::warn!(error = failed.message, "the machine does not get more memory");
            }
            grown => grown?,
        }
        Ok(now)
    }

    /// How much memory the machine is going to have when this container has this limit, in MiB.
    pub(super) fn size_with(&self, container: ContainerKey, limit: u64) -> Result<u32, Failed> {
        let now = self.memory.lock();
        let others = self.lock().limits_but(Some(container));
        let wanted = self.memory.wanted(limit.saturating_add(others), *now);
        self.check(limit, others, wanted)?;
        Ok(u32::try_from(wanted.div_ceil(MIB)).unwrap_or(u32::MAX))
    }

    fn check(&self, limit: u64, others: u64, all: u64) -> Result<(), Failed> {
        if limit.saturating_add(others) <= all {
            return Ok(());
        }
        let message = match others {
            0 => format!(
                "linux.resources.memory.limit: {limit} is more than the {all} bytes that the machine can have"
            ),
            _ => format!(
                "linux.resources.memory.limit: {limit} bytes for this container and {others} for the others of its \
                 pod are more than the {all} that their machine can have"
            ),
        };
        Err(refused(ErrorKind::Unsupported, message))
    }

    /// Waits until the guest has so many bytes, or whole blocks of memory more.
    fn grow(self: &Arc<Self>, now: &mut u64, to: u64) -> Result<(), Failed> {
        if to <= *now {
            return Ok(());
        }
        let begun = bytes(self.memory.size.begun_mib);
        let wanted = to.saturating_sub(begun);
        let wanted = wanted.checked_next_multiple_of(BLOCK).unwrap_or(wanted);
        let slot = self.guest.plug_memory(wanted).map_err(|error| failed(&error))?;
        match self.call(Call::TakeMemory { slot, bytes: wanted }, deadline::MEMORY) {
            Ok(Answer::Done) => {}
            Ok(_) => {
                return Err(refused(ErrorKind::Guest, "the guest answers something else than it was asked"));
            }
            Err(error) => {
                let Failed { kind, message } = failed(&error);
                return Err(refused(kind, format!("cannot plug memory into the guest: {message}")));
            }
        }
        *now = begun.saturating_add(wanted);
        tracing::debug!(mib = *now >> 20, "the guest has more memory");
        Ok(())
    }
}

impl State {
    /// What the limits of all containers but this come to.
    fn limits_but(&self, key: Option<ContainerKey>) -> u64 {
        let others = self.members.iter().filter(|(other, _)| Some(**other) != key);
        others.map(|(_, member)| member.memory).fold(0, u64::saturating_add)
    }
}

/// The memory limit that these set: in bytes, 0 for none; nothing if they leave it as it is.
pub(super) fn memory_limit(resources: &Resources) -> Option<u64> {
    let limits = resources.files.iter().filter(|(name, _)| name == "memory.max");
    limits.map(|(_, value)| value.trim().parse().unwrap_or(0)).next_back()
}

fn bytes(mib: u32) -> u64 {
    u64::from(mib).saturating_mul(MIB)
}

const MIB: u64 = 1 << 20;
/// What is plugged is whole blocks.
const BLOCK: u64 = crate::device::mem::BLOCK;
