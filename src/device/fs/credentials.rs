//! As whom the server's thread touches the host's files.
//!
//! It runs as the machine's user (root) with the capabilities that were left to it: the guest's kernel has checked
//! permissions already, by the same rules. What is *made*, though, must belong to the process that makes it, and a few
//! calls have to be made without CAP_FSETID so that the host's kernel clears set-user-id bits as it would for that
//! process. All of this is per thread.

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// The thread's own rights.
#[derive(Clone, Copy)]
pub struct Rights {
    uid: u32,
    gid: u32,
    sets: CapabilitySets,
}

impl Rights {
    /// Those of the calling thread, as they are now.
    pub fn current() -> Result<Rights, Errno> {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Ok(Rights { uid, gid, sets: capabilities(None)? })
    }

    /// Calls `make` so that what it makes belongs to `uid` and `gid`. `EPERM` when we may not do that.
    pub fn owned_by<T>(
        &self,
        uid: u32,
        gid: u32,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if (uid, gid) == (self.uid, self.gid) {
            return make();
        }
        let restored = Owner(*self);
        restored.0.become_owner(uid, gid)?;
        make()
    }

    fn become_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        // -1 is no id, and would tell us what we are instead of changing it.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        let now = (setfsuid(Uid::from_raw(u32::MAX)).as_raw(), setfsgid(Gid::from_raw(u32::MAX)).as_raw());
        if now != (uid, gid) {
            return Err(Errno::PERM);
        }
        // Leaving uid 0 cost us the capabilities that have to do with files.
        set_capabilities(None, self.sets)
    }

    /// Calls `change` without the right to keep set-user-id and set-group-id bits.
    pub fn without_fsetid<T>(&self, change: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if !self.sets.effective.contains(CapabilitySet::FSETID) {
            return change();
        }
        let mut sets = self.sets;
        sets.effective.remove(CapabilitySet::FSETID);
        set_capabilities(None, sets)?;
        let outcome = change();
        set_capabilities(None, self.sets)?;
        outcome
    }
}

/// Makes the thread itself again when dropped.
struct Owner(Rights);

impl Drop for Owner {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(self.0.uid));
        setfsgid(Gid::from_raw(self.0.gid));
        if self.0.uid != 0 {
            // Only a return to uid 0 brings them back by itself.
            let _ = set_capabilities(None, self.0.sets);
        }
    }
}
