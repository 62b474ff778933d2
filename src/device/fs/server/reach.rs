//! From an inode's number to the inode itself.
//!
//! A descriptor that is at hand is used. Otherwise the way leads from the nearest ancestor that is at hand down, one
//! name at a time, and each step compares what it found with what the table says. What is not the same inode any more
//! is `ESTALE`: the guest's kernel then looks its names up again. Not by file handle: not every filesystem has them,
//! and the right to use them (CAP_DAC_READ_SEARCH) would be the right to open any file of the host by number.

use super::super::Policy;
use super::super::descriptors::Use;
use super::super::inodes::{Identity, Inode, MAX_DEPTH, NodeId, Place};
use super::super::name::Name;
use super::Server;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What we ask of every inode.
fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID
}

/// What a name in a directory stands for, mounts on it included; links are not followed.
pub fn look(directory: impl AsFd, name: &CStr) -> Result<Statx, Errno> {
    statx(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted())
}

/// What a descriptor stands for.
pub fn look_at(descriptor: impl AsFd) -> Result<Statx, Errno> {
    statx(descriptor, c"", AtFlags::EMPTY_PATH, wanted())
}

/// Opens what a name stands for, without opening it: nothing happens to a device or a FIFO.
pub fn open_path(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat2(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        one_component(),
    )
}

/// Whether the host's kernel has what every step depends on (Linux 5.8): better no server than one without walls.
pub fn check_host(directory: impl AsFd) -> Result<(), Errno> {
    let seen = look_at(open_path(directory, c".")?)?;
    if seen.stx_mask & StatxFlags::MNT_ID.bits() == 0 { Err(Errno::NOSYS) } else { Ok(()) }
}

/// The walls around a single step.
pub fn one_component() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS
}

/// The name of a descriptor in `/proc/self/fd`, on the stack.
pub struct FdName([u8; 12]);

impl FdName {
    /// Of that descriptor.
    pub fn of(descriptor: impl AsFd) -> FdName {
        let mut name = [0; 12];
        let mut left = descriptor.as_fd().as_raw_fd().unsigned_abs();
        let digits = left.checked_ilog10().unwrap_or(0).saturating_add(1);
        let digits = usize::try_from(digits).unwrap_or(0);
        for to in name.iter_mut().take(digits).rev() {
            *to = b'0'.saturating_add(u8::try_from(left % 10).unwrap_or(0));
            left /= 10;
        }
        FdName(name)
    }

    /// For a system call.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

impl Server {
    /// A descriptor that stands for an inode: for calls with `AT_EMPTY_PATH`, or as the directory of a name.
    pub(super) fn path(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        let mut way = Vec::new();
        let mut at = id;
        let mut found = loop {
            if let Some(found) = self.at_hand(at)? {
                break found;
            }
            let Place::Below { parent, .. } = self.inodes.get(at)?.place else { return Err(Errno::STALE) };
            if way.len() >= MAX_DEPTH {
                return Err(Errno::STALE);
            }
            way.push(at);
            at = parent;
        };
        for next in way.into_iter().rev() {
            found = self.step(&found, next)?;
        }
        Ok(found)
    }

    /// A descriptor for a directory in which the guest may change something.
    pub(super) fn writable_directory(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        self.writable(id)?;
        self.directory(id)
    }

    /// A descriptor for a directory.
    pub(super) fn directory(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        match self.inodes.get(id)?.identity.kind {
            FileType::Directory => self.path(id),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// An inode that the guest may change, as far as its export goes.
    pub(super) fn writable(&self, id: NodeId) -> Result<&Inode, Errno> {
        if id == super::super::wire::ROOT {
            return Err(Errno::ROFS);
        }
        let inode = self.inodes.get(id)?;
        if inode.export.read_only { Err(Errno::ROFS) } else { Ok(inode) }
    }

    /// A descriptor that is there without opening anything.
    pub(super) fn at_hand(&mut self, id: NodeId) -> Result<Option<Arc<OwnedFd>>, Errno> {
        let inode = self.inodes.get(id)?;
        if inode.export.is_removed() {
            return Err(Errno::STALE);
        }
        if inode.place == Place::Export {
            return inode.export.source().map(Some);
        }
        let uses: &[Use] = match inode.identity.kind {
            FileType::RegularFile => &[Use::Write(id), Use::Read(id), Use::Path(id)],
            _ => &[Use::Path(id)],
        };
        Ok(uses.iter().find_map(|what| self.descriptors.get(*what)))
    }

    /// One step down: opens a known inode in its directory.
    fn step(&mut self, directory: &OwnedFd, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        let Place::Below { name, .. } = self.inodes.get(id)?.place.clone() else { return Err(Errno::STALE) };
        let opened = self.opened(|| open_path(directory, &name)).map_err(vanished)?;
        let seen = look_at(&opened)?;
        self.verify(id, &seen, directory, &name)?;
        let opened = Arc::new(opened);
        self.descriptors.put(Use::Path(id), opened.clone());
        Ok(opened)
    }

    /// What an inode is like now.
    pub(super) fn look_at_node(&mut self, id: NodeId) -> Result<Statx, Errno> {
        if let Some(found) = self.at_hand(id)? {
            return look_at(found);
        }
        let Place::Below { parent, name } = self.inodes.get(id)?.place.clone() else {
            return Err(Errno::STALE);
        };
        let directory = self.path(parent)?;
        let seen = look(&directory, &name).map_err(vanished)?;
        self.verify(id, &seen, &directory, &name)?;
        Ok(seen)
    }

    /// Whether what was found where an inode should be is that inode.
    pub(super) fn verify(
        &mut self,
        id: NodeId,
        seen: &Statx,
        directory: &OwnedFd,
        name: &CStr,
    ) -> Result<(), Errno> {
        let found = self.mounts.identify(seen, || open_path(directory, name))?;
        let known = self.inodes.get(id)?.identity;
        if found == known {
            return Ok(());
        }
        if self.recognise_as(id, found)? { Ok(()) } else { Err(Errno::STALE) }
    }

    /// An overlay without persistent numbers gives a file another one when it copies it up. Where nobody but the guest
    /// moves names about, it is proof enough that an inode was found where it should be.
    fn recognise_as(&mut self, id: NodeId, found: Identity) -> Result<bool, Errno> {
        let known = self.inodes.get(id)?.identity;
        let same =
            self.may_be_copied_up(id) && self.mounts.is_overlay(found.mount) && found.kind == known.kind;
        if same && found != known {
            self.inodes.change_identity(id, found);
        }
        Ok(same)
    }

    /// Whether an inode may get another number.
    pub(super) fn may_be_copied_up(&self, id: NodeId) -> bool {
        let on_overlay = |inode: &Inode| self.mounts.is_overlay(inode.identity.mount);
        self.policy == Policy::Exclusive && self.inodes.get(id).is_ok_and(on_overlay)
    }

    /// What an inode is like after something that may have copied it up.
    pub(super) fn recognise(&mut self, id: NodeId, seen: &Statx) -> Result<(), Errno> {
        let found = self.mounts.identify(seen, || Err(Errno::STALE))?;
        self.recognise_as(id, found).map(|_| ())
    }

    /// Who it is that a name in a directory stands for.
    pub(super) fn identify(
        &mut self,
        seen: &Statx,
        directory: &OwnedFd,
        name: Name<'_>,
    ) -> Result<Identity, Errno> {
        self.mounts.identify(seen, || open_path(directory, name.as_c_str()))
    }

    /// A regular file, open. All handles of an inode share at most two descriptors.
    pub(super) fn file(&mut self, id: NodeId, write: bool) -> Result<Arc<OwnedFd>, Errno> {
        let at_hand = self.descriptors.get(Use::Write(id));
        let at_hand = if write { at_hand } else { at_hand.or_else(|| self.descriptors.get(Use::Read(id))) };
        if let Some(file) = at_hand {
            return if self.inodes.get(id)?.export.is_removed() { Err(Errno::STALE) } else { Ok(file) };
        }
        // What a descriptor was compared with when it was opened: an inode's kind never changes.
        match self.inodes.get(id)?.identity.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            // The guest's kernel opens those itself: who asks us is up to no good.
            _ => return Err(Errno::NXIO),
        }
        let path = match self.at_hand(id)? {
            Some(path) => {
                let is_below = matches!(self.inodes.get(id)?.place, Place::Below { .. });
                if is_below && look_at(&path)?.stx_nlink == 0 {
                    // Deleted on the host since: another file may have its name by now.
                    self.descriptors.close(Use::Path(id));
                    return Err(Errno::STALE);
                }
                path
            }
            None => self.path(id)?,
        };
        let (access, what) =
            if write { (OFlags::RDWR, Use::Write(id)) } else { (OFlags::RDONLY, Use::Read(id)) };
        let file = Arc::new(self.reopen(path.as_fd(), access)?);
        self.adopt(id, what, file.clone());
        Ok(file)
    }

    /// Keeps an open file of an inode; it does for everything that lesser descriptors of the inode did.
    pub(super) fn adopt(&mut self, id: NodeId, what: Use, file: Arc<OwnedFd>) {
        // These first: they may be among the few that are kept.
        self.descriptors.close(Use::Path(id));
        if what == Use::Write(id) {
            self.descriptors.close(Use::Read(id));
        }
        self.descriptors.put(what, file);
        if self.inodes.get(id).is_ok_and(|inode| inode.place == Place::Nowhere) {
            self.descriptors.keep(what, true);
        }
    }

    /// Notes that an inode has a name again, or another one.
    pub(super) fn found_at(&mut self, id: NodeId, parent: NodeId, name: Name<'_>) -> Result<(), Errno> {
        self.inodes.set_place(id, Place::Below { parent, name: name.as_c_str().into() })?;
        self.keep_descriptors(id, false);
        Ok(())
    }

    /// Opens what an `O_PATH` descriptor stands for. Only for regular files: the caller has made sure.
    pub(super) fn reopen(&mut self, path: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Errno> {
        let proc = self.proc.clone();
        let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
        self.opened(|| openat(&proc, FdName::of(path).as_c_str(), flags, Mode::empty()))
    }

    /// Calls `open`, and makes room for the descriptor if the process has none left.
    pub(super) fn opened(
        &mut self,
        mut open: impl FnMut() -> Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd, Errno> {
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) if self.descriptors.shrink() => {}
                outcome => return outcome,
            }
        }
    }

    /// An inode's last name that we know is gone: whatever reaches it must be kept.
    pub(super) fn lost_name(&mut self, id: NodeId) -> Result<(), Errno> {
        self.inodes.set_place(id, Place::Nowhere)?;
        self.keep_descriptors(id, true);
        Ok(())
    }

    /// Says whether an inode's descriptors are all that reaches it.
    pub(super) fn keep_descriptors(&mut self, id: NodeId, keep: bool) {
        for what in [Use::Write(id), Use::Read(id), Use::Path(id)] {
            self.descriptors.keep(what, keep);
        }
    }
}

/// A known inode that is not where it was is stale, not missing: the guest did not ask for that name.
fn vanished(error: Errno) -> Errno {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::FdName;
    use std::os::fd::BorrowedFd;

    #[test]
    fn descriptors_have_their_decimal_names() {
        #![allow(unsafe_code, reason = "borrowing numbers that nothing is done with")]
        for number in [0, 7, 10, 409, 4096, i32::MAX] {
            // SAFETY: the descriptor is only printed.
            let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
            assert_eq!(FdName::of(borrowed).as_c_str().to_str().unwrap(), number.to_string());
        }
    }
}
