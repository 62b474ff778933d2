//! Opening, making and closing regular files.
//!
//! A special file is never opened on the host: not even by CREATE, which makes a new file or opens what
//! [`Server::file`] has looked at.

use super::super::Policy;
use super::super::descriptors::Use;
use super::super::handles::{Fh, Handle, HandleKind};
use super::super::inodes::{NodeId, Place, Sighting};
use super::super::locks::{LockClass, LockKey};
use super::super::name::Name;
use super::super::wire::{
    CreateIn, EntryOut, FOPEN_KEEP_CACHE, FlushIn, InHeader, OPEN_KILL_SUIDGID, OpenIn, OpenOut,
    RELEASE_FLOCK_UNLOCK, ROOT, ReleaseIn,
};
use super::reach::{look_at, one_component};
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{Mode, OFlags, ftruncate, openat, openat2};
use rustix::io::Errno;
use rustix::process::umask;
use std::os::fd::AsFd;
use std::sync::Arc;

/// How often CREATE is tried when a name comes and goes.
const ATTEMPTS: usize = 8;

impl Server {
    pub(super) fn open_file(&mut self, id: NodeId, how: &OpenIn, out: &mut Reply<'_>) -> Outcome {
        if !self.opens() {
            // The guest need not ask again.
            return Err(Errno::NOSYS);
        }
        if id == ROOT {
            return Err(Errno::ISDIR);
        }
        let opened = self.open_known(id, how.flags, how.open_flags)?;
        out.put(&opened)
    }

    /// Opens a known inode, and truncates it if that was asked for.
    fn open_known(&mut self, id: NodeId, flags: u32, open_flags: u32) -> Result<OpenOut, Errno> {
        let flags = OFlags::from_bits_retain(flags);
        let truncate = flags.contains(OFlags::TRUNC);
        let write = truncate || is_for_writing(flags);
        if write {
            self.writable(id)?;
        }
        let file = self.file(id, write)?;
        if truncate {
            let emptied = match open_flags & OPEN_KILL_SUIDGID {
                0 => ftruncate(&file, 0),
                _ => self.rights.without_fsetid(|| ftruncate(&file, 0)),
            };
            if let Err(error) = emptied {
                self.close_unused(id);
                return Err(error);
            }
        }
        self.add_handle(id, is_for_writing(flags))
    }

    /// Counts a new handle of an inode whose file is open.
    fn add_handle(&mut self, id: NodeId, write: bool) -> Result<OpenOut, Errno> {
        let added = self.handles.add(Handle { node: id, kind: HandleKind::File { write } });
        if let Ok(inode) = self.inodes.get_mut(id)
            && added.is_ok()
        {
            let count = if write { &mut inode.writers } else { &mut inode.readers };
            *count = count.saturating_add(1);
        }
        self.close_unused(id);
        let open_flags = match self.policy {
            Policy::Exclusive => FOPEN_KEEP_CACHE,
            Policy::Shared => 0,
        };
        Ok(OpenOut { fh: added?, open_flags, backing_id: 0 })
    }

    pub(super) fn create(
        &mut self,
        header: &InHeader,
        how: &CreateIn,
        name: Name<'_>,
        out: &mut Reply<'_>,
    ) -> Outcome {
        if !self.opens() {
            // It makes a node instead, and opens nothing.
            return Err(Errno::NOSYS);
        }
        let directory = self.writable_directory(header.nodeid)?;
        let flags = OFlags::from_bits_retain(how.flags);
        for _ in 0..ATTEMPTS {
            match self.create_new(header, how, &directory, name) {
                Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {}
                outcome => return out.put_both(outcome?),
            }
            // It is there: that is an OPEN. Unless it is gone again.
            let entry = match self.enter(header.nodeid, name) {
                Err(Errno::NOENT) => continue,
                entry => entry?,
            };
            let opened = self.open_known(entry.nodeid, how.flags, how.open_flags);
            if opened.is_err() {
                self.inodes.forget(entry.nodeid, 1);
            }
            return out.put_both((entry, opened?));
        }
        Err(Errno::STALE)
    }

    fn create_new(
        &mut self,
        header: &InHeader,
        how: &CreateIn,
        directory: &Arc<std::os::fd::OwnedFd>,
        name: Name<'_>,
    ) -> Result<(EntryOut, OpenOut), Errno> {
        let entry = self.make_file(header, directory, name, (how.mode, how.umask))?;
        let opened = self.add_handle(entry.nodeid, is_for_writing(OFlags::from_bits_retain(how.flags)));
        if opened.is_err() {
            self.inodes.forget(entry.nodeid, 1);
        }
        Ok((entry, opened?))
    }

    /// Makes a regular file of a mode, less what the umask says. It is open here: who makes a file is about to write.
    pub(super) fn make_file(
        &mut self,
        header: &InHeader,
        directory: &Arc<std::os::fd::OwnedFd>,
        name: Name<'_>,
        (mode, mask): (u32, u32),
    ) -> Result<EntryOut, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        umask(Mode::from_raw_mode(mask & 0o777));
        let rights = self.rights;
        let file = self.opened(|| {
            rights.owned_by(header.uid, header.gid, || {
                openat2(directory, name.as_c_str(), flags, mode, one_component())
            })
        })?;
        let seen = look_at(&file)?;
        let entry = self.enter_seen(header.nodeid, directory, name, &seen)?;
        self.adopt(entry.nodeid, Use::Write(entry.nodeid), Arc::new(file));
        Ok(entry)
    }

    /// A handle for a file that was just made.
    fn open_made(&mut self, id: NodeId, file: std::os::fd::OwnedFd, flags: u32) -> Result<OpenOut, Errno> {
        self.adopt(id, Use::Write(id), Arc::new(file));
        self.add_handle(id, is_for_writing(OFlags::from_bits_retain(flags)))
    }

    pub(super) fn tmpfile(&mut self, header: &InHeader, how: &CreateIn, out: &mut Reply<'_>) -> Outcome {
        let parent = header.nodeid;
        let directory = self.writable_directory(parent)?;
        // With O_EXCL it can never get a name.
        let flags = OFlags::from_bits_retain(how.flags) & OFlags::EXCL;
        let flags = flags | OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(how.mode & 0o7777);
        umask(Mode::from_raw_mode(how.umask & 0o777));
        let rights = self.rights;
        // `.` and not the descriptor's name: O_TMPFILE wants a directory, and this one is a path descriptor.
        let file = self
            .opened(|| rights.owned_by(header.uid, header.gid, || openat(&directory, c".", flags, mode)))?;
        let seen = look_at(&file)?;
        let identity = self.mounts.identify(&seen, || rustix::io::fcntl_dupfd_cloexec(file.as_fd(), 0))?;
        let (export, salted) = {
            let above = self.inodes.get(parent)?;
            let crossing = above.identity.mount != identity.mount;
            (above.export.clone(), crossing || above.salted)
        };
        let sighting = Sighting { export: &export, place: Place::Nowhere, identity, salted, submount: false };
        let id = self.inodes.remember(sighting)?.id;
        let opened = self.open_made(id, file, how.flags);
        if opened.is_err() {
            self.inodes.forget(id, 1);
        }
        let entry = self.entry_of(id, &seen)?;
        out.put_both((entry, opened?))
    }

    pub(super) fn release(&mut self, id: NodeId, how: &ReleaseIn) -> Outcome {
        let fh = how.fh;
        if how.release_flags & RELEASE_FLOCK_UNLOCK != 0 {
            self.unlock_all(LockKey { node: id, owner: how.lock_owner, class: LockClass::Flock });
        }
        if !matches!(self.handles.get(id, fh)?.kind, HandleKind::File { .. }) {
            return Err(Errno::BADF);
        }
        let handle = self.handles.remove(id, fh)?;
        self.unlocked |= self.locks.remove_set_through(id, fh);
        if let (HandleKind::File { write }, Ok(inode)) = (handle.kind, self.inodes.get_mut(id)) {
            let count = if write { &mut inode.writers } else { &mut inode.readers };
            *count = count.saturating_sub(1);
        }
        self.close_unused(id);
        Ok(())
    }

    /// Closes the files of an inode that no handle needs any more. What has no name stays as long as the guest knows
    /// of it, and no longer: it forgets such an inode as soon as nobody inside uses it.
    pub(super) fn close_unused(&mut self, id: NodeId) {
        if !self.opens() {
            // Whether any is in use is not known: `close_idle` is for them.
            return;
        }
        let Ok(inode) = self.inodes.get(id) else { return };
        if inode.place == Place::Nowhere || inode.writers > 0 {
            return;
        }
        if inode.readers == 0 {
            self.descriptors.close(Use::Read(id));
            self.descriptors.close(Use::Write(id));
        } else if self.descriptors.holds(Use::Read(id)) {
            self.descriptors.close(Use::Write(id));
        }
    }

    /// Closes files that nobody has asked for in a while, where the guest does not say when it closes them. On the
    /// host they would keep space from being freed, and filesystems from being unmounted.
    pub fn close_idle(&mut self) {
        if !self.opens() {
            self.descriptors.close_files();
        }
    }

    /// Whether a request is about no handle at all, because the guest does not open files.
    pub(super) fn is_unopened(&self, fh: Fh) -> bool {
        fh == 0 && !self.opens()
    }

    /// A process closes a file: it loses its POSIX locks on it then. And some filesystems tell of failed writes on
    /// close only.
    pub(super) fn flush(&mut self, id: NodeId, how: &FlushIn) -> Outcome {
        let fh = how.fh;
        if self.policy == Policy::Exclusive {
            // Not needed on the filesystems that hold root filesystems: the guest need not ask again.
            return Err(Errno::NOSYS);
        }
        let HandleKind::File { write } = self.handles.get(id, fh)?.kind else { return Err(Errno::BADF) };
        self.unlock_all(LockKey { node: id, owner: how.lock_owner, class: LockClass::Posix });
        if !write {
            return Ok(());
        }
        let file = self.file(id, true)?;
        close(self.opened(|| rustix::io::fcntl_dupfd_cloexec(&file, 0))?)
    }

    /// A handle that may write to an inode, or `EBADF`.
    pub(super) fn writable_handle(&mut self, id: NodeId, fh: Fh) -> Outcome {
        if self.is_unopened(fh) {
            return self.writable(id).map(|_| ());
        }
        match self.handles.get(id, fh)?.kind {
            HandleKind::File { write: true } => Ok(()),
            _ => Err(Errno::BADF),
        }
    }
}

impl Reply<'_> {
    /// The reply to what makes and opens at once.
    fn put_both(&mut self, (entry, opened): (EntryOut, OpenOut)) -> Outcome {
        self.put(&entry)?;
        self.put(&opened)
    }
}

fn is_for_writing(flags: OFlags) -> bool {
    flags & OFlags::RWMODE != OFlags::RDONLY
}

/// Closes a descriptor for its error.
fn close(descriptor: std::os::fd::OwnedFd) -> Outcome {
    nix::unistd::close(descriptor).map_err(|error| Errno::from_raw_os_error(error as i32))
}
