//! INIT and DESTROY: what the two sides agree on.

use super::super::handles::Handles;
use super::super::inodes::Inodes;
use super::super::locks::Locks;
use super::super::wire::{InitIn, InitOut, OLDEST_MINOR, VERSION, feature};
use super::super::{MAX_PAYLOAD, Policy};
use super::mounts::Mounts;
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::io::Errno;

/// What INIT has settled.
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    /// The guest mounts other filesystems below an export by itself.
    pub submounts: bool,
    /// The guest says when it opens and closes a file. It need not where nobody else changes anything: that saves two
    /// requests each time, and files are opened here when they are read or written.
    pub opens: bool,
}

/// What every guest gets that has it:
/// many reads at a time, and parallel look-ups; listings with attributes when that
/// pays; the umask applied by the host (which knows default ACLs); set-user-id bits cleared by the host; targets of
/// symbolic links cached; POSIX ACLs checked by the guest.
const WANTED: u64 = feature::ASYNC_READ
    | feature::BIG_WRITES
    | feature::DONT_MASK
    | feature::DO_READDIRPLUS
    | feature::READDIRPLUS_AUTO
    | feature::ASYNC_DIO
    | feature::PARALLEL_DIROPS
    | feature::POSIX_ACL
    | feature::MAX_PAGES
    | feature::SUBMOUNTS
    | feature::HANDLE_KILLPRIV_V2
    | feature::SETXATTR_EXT
    | feature::INIT_EXT;

/// What no guest can do without: structs whose size depends on it, semantics that we have in one form only.
const NEEDED: u64 = feature::ATOMIC_O_TRUNC
    | feature::BIG_WRITES
    | feature::DONT_MASK
    | feature::MAX_PAGES
    | feature::SETXATTR_EXT
    | feature::INIT_EXT;

/// How many requests that nobody waits for (read-ahead, write-back) may be under way.
const MAX_BACKGROUND: u16 = 64;

impl Server {
    pub(super) fn init(&mut self, how: &InitIn, out: &mut Reply<'_>) -> Outcome {
        let (major, minor) = VERSION;
        if how.major > major {
            // The guest tries again with our version.
            return out.put(&InitOut { major, minor, ..InitOut::default() });
        }
        let offered = u64::from(how.flags) | u64::from(how.flags2) << 32;
        if how.major < major || how.minor < OLDEST_MINOR || offered & NEEDED != NEEDED {
            return Err(Errno::PROTO);
        }
        self.forget_everything();
        let opens = self.policy == Policy::Shared || offered & feature::NO_OPEN_SUPPORT == 0;
        // A guest that does not say what it opens truncates by SETATTR. No write-back: what a program has written is
        // on the host when the call returns (and the host's errors reach that call), and a small file costs three
        // requests less, because Linux would write back times of its own as well, before each change of attributes.
        let on_open = if opens { feature::ATOMIC_O_TRUNC } else { 0 };
        let by_policy = match self.policy {
            Policy::Exclusive => feature::CACHE_SYMLINKS,
            Policy::Shared => feature::AUTO_INVAL_DATA | feature::POSIX_LOCKS | feature::FLOCK_LOCKS,
        };
        let flags = offered & (WANTED | on_open | by_policy);
        self.agreed = Some(Agreed { submounts: flags & feature::SUBMOUNTS != 0, opens });
        out.put(&InitOut {
            major,
            minor: how.minor.min(minor),
            max_readahead: how.max_readahead,
            flags: low(flags),
            max_background: MAX_BACKGROUND,
            congestion_threshold: MAX_BACKGROUND / 4 * 3,
            max_write: MAX_PAYLOAD,
            time_gran: 1,
            max_pages: u16::try_from(MAX_PAYLOAD / 4096).unwrap_or(u16::MAX),
            flags2: low(flags >> 32),
            ..InitOut::default()
        })
    }

    pub(super) fn destroy(&mut self) -> Outcome {
        self.forget_everything();
        self.agreed = None;
        Ok(())
    }

    pub(super) fn forget_everything(&mut self) {
        self.inodes = Inodes::new();
        self.handles = Handles::default();
        self.mounts = Mounts::default();
        self.descriptors.close_all(|_| true);
        self.locks = Locks::default();
    }
}

fn low(flags: u64) -> u32 {
    u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0)
}
