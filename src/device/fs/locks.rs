//! Locks on files that others lock as well: for each owner inside, a descriptor that holds its locks on the host.
//!
//! The host's kernel decides who gets a lock: between containers that share a volume, and the host's own processes. A
//! POSIX owner inside (a process) becomes an open file description with OFD locks outside; they conflict with the
//! host's POSIX locks as POSIX locks do, and die with the descriptor, so with the machine at the latest. A flock's
//! owner is an open file inside and an open file outside.
//!
//! Only the table is here; the calls are in `server/locks.rs`. What each owner has is written down (`ranges`), so that it
//! can be had again after a restore.

use super::handles::Fh;
use super::inodes::NodeId;
use super::ranges::{Range, Ranges};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The most owners at a time. Their descriptors come on top of the others; beyond it the guest is told `ENOLCK`.
pub const MAX_OWNERS: usize = 384;

/// The two kinds of locks, which do not see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockClass {
    /// fcntl: ranges of bytes.
    Posix,
    /// flock: the whole file.
    Flock,
}

/// Whose locks on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockKey {
    /// The file.
    pub node: NodeId,
    /// The guest's name for the owner.
    pub owner: u64,
    /// Which kind.
    pub class: LockClass,
}

/// The table.
#[derive(Default)]
pub struct Locks {
    by_key: HashMap<LockKey, Holder>,
}

/// What holds an owner's locks.
struct Holder {
    descriptor: Arc<OwnedFd>,
    /// Through which handle it asked first.
    fh: Fh,
    /// The process inside that asked last.
    pid: u32,
    ranges: Ranges,
}

/// An owner, as it can be saved.
pub struct Owner<'a> {
    /// Who, and on what.
    pub key: LockKey,
    /// Through which handle it asked first.
    pub fh: Fh,
    /// The process inside that asked last.
    pub pid: u32,
    /// What it has.
    pub ranges: &'a [Range],
}

impl Locks {
    /// All owners that have something.
    pub fn owners(&self) -> impl Iterator<Item = Owner<'_>> {
        self.by_key
            .iter()
            .map(|(key, held)| Owner {
                key: *key,
                fh: held.fh,
                pid: held.pid,
                ranges: held.ranges.as_slice(),
            })
            .filter(|owner| !owner.ranges.is_empty())
    }

    /// Whether an owner may have one more range.
    pub fn has_room_for_range(&self, key: LockKey) -> bool {
        self.by_key.get(&key).is_none_or(|holder| holder.ranges.has_room())
    }

    /// Notes what an owner has from `start` to `end` now: a lock for writing, one for reading, or none.
    pub fn note(&mut self, key: LockKey, (start, end): (u64, u64), write: Option<bool>) {
        if let Some(holder) = self.by_key.get_mut(&key) {
            holder.ranges.set(start, end, write);
        }
    }

    /// Notes that an owner has nothing.
    pub fn note_none(&mut self, key: LockKey) {
        if let Some(holder) = self.by_key.get_mut(&key) {
            holder.ranges.clear();
        }
    }

    /// The descriptor that holds an owner's locks, if it has asked for any.
    pub fn get(&mut self, key: LockKey) -> Option<Arc<OwnedFd>> {
        Some(self.by_key.get(&key)?.descriptor.clone())
    }

    /// Whether there is room for one more owner.
    pub fn has_room(&self) -> bool {
        self.by_key.len() < MAX_OWNERS
    }

    /// Takes in an owner; `ENOLCK` when there are too many.
    pub fn add(&mut self, key: LockKey, descriptor: Arc<OwnedFd>, fh: Fh, pid: u32) -> Result<(), Errno> {
        if !self.has_room() {
            return Err(Errno::NOLCK);
        }
        self.by_key.insert(key, Holder { descriptor, fh, pid, ranges: Ranges::default() });
        Ok(())
    }

    /// Drops all locks of an owner on a file. Whether there may have been any.
    pub fn remove(&mut self, key: LockKey) -> bool {
        self.by_key.remove(&key).is_some()
    }

    /// Drops the POSIX locks that were set through a handle that is closed for good. A process's own are gone by then;
    /// but an open file inside can be an owner, too (OFD locks), and Linux says nothing else when it goes.
    pub fn remove_set_through(&mut self, node: NodeId, fh: Fh) -> bool {
        let before = self.by_key.len();
        self.by_key
            .retain(|key, holder| key.node != node || key.class != LockClass::Posix || holder.fh != fh);
        self.by_key.len() < before
    }

    /// Drops everything on files of which `doomed` is true.
    pub fn remove_all(&mut self, doomed: impl Fn(NodeId) -> bool) {
        self.by_key.retain(|key, _| !doomed(key.node));
    }

    /// Which process inside holds POSIX locks on a file, apart from one owner's: 0 unless it can be but one.
    pub fn other_pid(&self, key: LockKey) -> u32 {
        let mut others = self
            .by_key
            .iter()
            .filter(|(held, _)| held.node == key.node && held.class == key.class && held.owner != key.owner)
            .map(|(_, holder)| holder.pid);
        match (others.next(), others.next()) {
            (Some(pid), None) => pid,
            _ => 0,
        }
    }
}
