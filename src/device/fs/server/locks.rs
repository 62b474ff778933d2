//! GETLK, SETLK and SETLKW: locks are the host's.
//!
//! Nobody waits in a system call here: there is one thread. A lock that somebody else holds is tried again by whoever
//! drives the server, as a [`Wait`]: when the guest itself has let go of one, and else at short intervals, because the
//! host tells nobody. The price: who has waited longest does not come first, and a circle of waiters is not found out
//! (`EDEADLK`), as with all OFD locks.
#![allow(unsafe_code, reason = "OFD locks, which no library offers")]

use super::super::Policy;
use super::super::handles::Fh;
use super::super::inodes::NodeId;
use super::super::locks::{LockClass, LockKey};
use super::super::ranges::{END, Range};
use super::super::segments::Segments;
use super::super::wire::{LK_FLOCK, LkIn, LkOut};
use super::reply::Reply;
use super::{Later, Outcome, Server, answer};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A request that waits. Whoever has it tries again with [`Server::try_again`], or gives it up.
pub struct Wait<'a> {
    /// The request's number.
    pub unique: u64,
    /// What it waits for.
    pub waiting: Waiting,
    pub(super) reply: Segments<'a>,
    /// How much of the reply is written already, after its header.
    pub(super) body: usize,
}

impl Wait<'_> {
    /// Writes the reply. How long it is.
    pub fn answer(mut self, outcome: Outcome) -> usize {
        answer(&mut self.reply, self.unique, outcome, self.body)
    }

    /// How much of the reply stands after its header already.
    #[cfg(test)]
    pub fn body(&self) -> usize {
        self.body
    }

    /// Where nobody else may wait: a lock is not to be had, and a socket is what it is.
    pub fn answer_at_once(self, no_lock: Errno) -> usize {
        let outcome = match self.waiting {
            Waiting::Lock(_) => Err(no_lock),
            Waiting::Socket(_) => Ok(()),
        };
        self.answer(outcome)
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy)]
pub enum Waiting {
    /// A lock that somebody else has.
    Lock(Wanted),
    /// Somebody who stands in for a socket.
    Socket(NodeId),
}

/// Who wants which lock.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    key: LockKey,
    lock: Lock,
    fh: Fh,
    pid: u32,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Lock {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    kind: i32,
    start: i64,
    /// 0: to the end, however far that moves.
    len: i64,
}

impl Lock {
    fn of(how: &LkIn) -> Result<Lock, Errno> {
        let kind = i32::try_from(how.kind).map_err(|_| Errno::INVAL)?;
        if ![libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK].contains(&kind) || how.end < how.start {
            return Err(Errno::INVAL);
        }
        let start = i64::try_from(how.start).map_err(|_| Errno::INVAL)?;
        let len = match i64::try_from(how.end).map_err(|_| Errno::INVAL)? {
            i64::MAX => 0,
            end => end.saturating_sub(start).saturating_add(1),
        };
        Ok(Lock { kind, start, len })
    }

    /// First and last byte.
    fn bytes(self) -> (u64, u64) {
        let start = self.start.cast_unsigned();
        match self.len {
            0 => (start, END),
            len => (start, start.saturating_add(len.cast_unsigned()).saturating_sub(1).min(END)),
        }
    }

    /// For writing, for reading, or none.
    fn writes(self) -> Option<bool> {
        match self.kind {
            libc::F_RDLCK => Some(false),
            libc::F_WRLCK => Some(true),
            _ => None,
        }
    }

    fn of_range(range: &Range) -> Lock {
        let len = if range.end == END { 0 } else { range.end.saturating_sub(range.start).saturating_add(1) };
        let kind = if range.write { libc::F_WRLCK } else { libc::F_RDLCK };
        Lock { kind, start: range.start.cast_signed(), len: len.cast_signed() }
    }

    fn as_flock(self) -> libc::flock {
        libc::flock {
            l_type: i16::try_from(self.kind).unwrap_or(0),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(0),
            l_start: self.start,
            l_len: self.len,
            l_pid: 0,
        }
    }
}

impl Server {
    pub(super) fn getlk(&mut self, id: NodeId, how: &LkIn, out: &mut Reply<'_>) -> Outcome {
        let key = self.lock_key(id, how)?;
        let mut asked = Lock::of(how)?.as_flock();
        let holder = match self.locks.get(key) {
            Some(holder) => holder,
            None => self.open_for_locks(id)?,
        };
        call(&holder, libc::F_OFD_GETLK, &mut asked)?;
        let free = i32::from(asked.l_type) == libc::F_UNLCK;
        let pid = if free { 0 } else { self.locks.other_pid(key) };
        let start = u64::try_from(asked.l_start).map_err(|_| Errno::IO)?;
        let end = match asked.l_len {
            0 => i64::MAX.unsigned_abs(),
            len => start.saturating_add(len.unsigned_abs()).saturating_sub(1),
        };
        let kind = u32::try_from(asked.l_type).map_err(|_| Errno::IO)?;
        out.put(&LkOut { start, end, kind, pid })
    }

    /// Sets a lock or takes it away. When another has it: `EAGAIN`, or later, if the process inside waits.
    pub(super) fn setlk(&mut self, id: NodeId, how: &LkIn, waits: bool) -> Outcome {
        let wanted = Wanted { key: self.lock_key(id, how)?, lock: Lock::of(how)?, fh: how.fh, pid: how.pid };
        let outcome = self.set(wanted);
        if outcome == Err(Errno::AGAIN) && waits {
            self.later = Later::Wait(Waiting::Lock(wanted));
        }
        outcome
    }

    /// Tries again; `None` when it has to wait on.
    pub fn try_again(&mut self, waiting: Waiting) -> Option<Outcome> {
        let wanted = match waiting {
            Waiting::Lock(wanted) => wanted,
            Waiting::Socket(node) => return self.meet_again(node),
        };
        let known = self.inodes.get(wanted.key.node).map(|_| ());
        Some(known.and_then(|()| self.set(wanted))).filter(|outcome| *outcome != Err(Errno::AGAIN))
    }

    /// Whether a lock has gone since the last call: then others may have it.
    pub fn take_unlocked(&mut self) -> bool {
        std::mem::take(&mut self.unlocked)
    }

    /// Drops an owner's locks on a file.
    pub(super) fn unlock_all(&mut self, key: LockKey) {
        self.unlocked |= self.locks.remove(key);
    }

    fn lock_key(&mut self, id: NodeId, how: &LkIn) -> Result<LockKey, Errno> {
        if self.policy == Policy::Exclusive {
            return Err(Errno::NOSYS);
        }
        self.handles.get(id, how.fh)?;
        let class = if how.lk_flags & LK_FLOCK != 0 { LockClass::Flock } else { LockClass::Posix };
        Ok(LockKey { node: id, owner: how.owner, class })
    }

    fn set(&mut self, Wanted { key, lock, fh, pid }: Wanted) -> Outcome {
        let releases = lock.kind == libc::F_UNLCK;
        let whole = key.class == LockClass::Flock || (lock.start == 0 && lock.len == 0);
        if releases && whole {
            self.unlock_all(key);
            return Ok(());
        }
        let holder = match self.locks.get(key) {
            Some(holder) => holder,
            None if releases => return Ok(()),
            None if !self.locks.has_room() => return Err(Errno::NOLCK),
            None => {
                let holder = self.open_for_locks(key.node)?;
                self.locks.add(key, holder.clone(), fh, pid)?;
                holder
            }
        };
        if !self.locks.has_room_for_range(key) {
            return Err(Errno::NOLCK);
        }
        // A part that is let go of, or a lock that becomes weaker, may be what others wait for.
        self.unlocked |= lock.kind != libc::F_WRLCK;
        let outcome = match (key.class, lock.kind) {
            (LockClass::Posix, _) => call(&holder, libc::F_OFD_SETLK, &mut lock.as_flock()),
            (LockClass::Flock, libc::F_RDLCK) => flock(&holder, FlockOperation::NonBlockingLockShared),
            (LockClass::Flock, _) => flock(&holder, FlockOperation::NonBlockingLockExclusive),
        };
        match (key.class, outcome) {
            (LockClass::Posix, Ok(())) => self.locks.note(key, lock.bytes(), lock.writes()),
            (LockClass::Flock, Ok(())) => self.locks.note(key, (0, END), lock.writes()),
            // Linux drops a flock before it tries to give its owner another kind of it.
            (LockClass::Flock, Err(_)) => self.locks.note_none(key),
            (LockClass::Posix, Err(_)) => {}
        }
        outcome
    }

    /// Takes a lock again that an owner had before a restore. `EAGAIN` when another has it.
    pub(super) fn lock_again(&mut self, key: LockKey, (fh, pid): (Fh, u32), range: &Range) -> Outcome {
        self.set(Wanted { key, lock: Lock::of_range(range), fh, pid })
    }

    /// An open file of its own for an inode: locks belong to it.
    fn open_for_locks(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        let writable = self.writable(id).is_ok();
        // That it is a regular file is made sure of by whoever opens it first.
        let file = self.file(id, false)?;
        let opened = match self.reopen_for_locks(&file, writable) {
            // Locks that need no write access can be had on what is read-only outside as well.
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if writable => self.reopen_for_locks(&file, false),
            outcome => outcome,
        };
        self.close_unused(id);
        Ok(Arc::new(opened?))
    }

    fn reopen_for_locks(&mut self, file: &OwnedFd, writable: bool) -> Result<OwnedFd, Errno> {
        use std::os::fd::AsFd;
        self.reopen(file.as_fd(), if writable { OFlags::RDWR } else { OFlags::RDONLY })
    }
}

fn call(file: &OwnedFd, command: libc::c_int, lock: &mut libc::flock) -> Outcome {
    // SAFETY: the descriptor is open, and the structure is a valid one that outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if done == 0 {
        return Ok(());
    }
    match Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO) {
        Errno::ACCESS => Err(Errno::AGAIN),
        error => Err(error),
    }
}
