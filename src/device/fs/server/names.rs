//! Making, moving and removing names.
//!
//! What is made belongs to the process that makes it; the umask is applied by the host, which knows whether a default
//! ACL takes its place.

use super::super::descriptors::Use;
use super::super::inodes::{NodeId, Place};
use super::super::name::Name;
use super::super::wire::{EntryOut, InHeader, MkdirIn, MknodIn, ROOT};
use super::reach::{FdName, look, look_at, open_path};
use super::reply::Reply;
use super::whiteouts::At;
use super::{Outcome, Server};
use rustix::fs::{
    AtFlags, FileType, Mode, RenameFlags, linkat, mkdirat, mknodat, readlinkat_raw, renameat_with, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Server {
    pub(super) fn mkdir(
        &mut self,
        header: &InHeader,
        how: &MkdirIn,
        name: Name<'_>,
        out: &mut Reply<'_>,
    ) -> Outcome {
        umask(Mode::from_raw_mode(how.umask & 0o777));
        let mode = Mode::from_raw_mode(how.mode & 0o7777);
        self.make(header, name, out, |directory, name| mkdirat(directory, name, mode))
    }

    pub(super) fn mknod(
        &mut self,
        header: &InHeader,
        how: &MknodIn,
        name: Name<'_>,
        out: &mut Reply<'_>,
    ) -> Outcome {
        if FileType::from_raw_mode(how.mode) == FileType::RegularFile {
            let directory = self.writable_directory(header.nodeid)?;
            let entry = self.make_file(header, &directory, name, (how.mode, how.umask))?;
            self.close_unused(entry.nodeid);
            return out.put(&entry);
        }
        if header.nodeid == ROOT {
            return out.put(&self.bind_alias(how, name)?);
        }
        if FileType::from_raw_mode(how.mode) == FileType::Socket
            && let Some(made) = self.make_socket(header, how, name)
        {
            return out.put(&made?);
        }
        umask(Mode::from_raw_mode(how.umask & 0o777));
        let mode = Mode::from_raw_mode(how.mode & 0o7777);
        let kind = match FileType::from_raw_mode(how.mode) {
            kind
            @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket) => kind,
            _ => return Err(Errno::INVAL),
        };
        let device =
            rustix::fs::makedev((how.rdev >> 8) & 0xfff, (how.rdev & 0xff) | ((how.rdev >> 12) & 0xf_ff00));
        let device = self.device_outside(header.nodeid, kind, device);
        self.make(header, name, out, |directory, name| mknodat(directory, name, kind, mode, device))
    }

    pub(super) fn symlink(
        &mut self,
        header: &InHeader,
        name: Name<'_>,
        target: &CStr,
        out: &mut Reply<'_>,
    ) -> Outcome {
        self.make(header, name, out, |directory, name| symlinkat(target, directory, name))
    }

    fn make(
        &mut self,
        header: &InHeader,
        name: Name<'_>,
        out: &mut Reply<'_>,
        make: impl FnOnce(&OwnedFd, &CStr) -> Result<(), Errno>,
    ) -> Outcome {
        let directory = self.writable_directory(header.nodeid)?;
        self.rights.owned_by(header.uid, header.gid, || make(&directory, name.as_c_str()))?;
        let entry = self.enter(header.nodeid, name)?;
        out.put(&entry)
    }

    pub(super) fn link(
        &mut self,
        old: NodeId,
        newdir: NodeId,
        name: Name<'_>,
        out: &mut Reply<'_>,
    ) -> Outcome {
        let directory = self.writable_directory(newdir)?;
        let export = self.writable(old)?.export.id;
        if self.inodes.get(newdir)?.export.id != export {
            return Err(Errno::XDEV);
        }
        let node = self.path(old)?;
        linkat(
            &self.proc,
            FdName::of(&node).as_c_str(),
            &directory,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        if self.may_be_copied_up(old) {
            let seen = look_at(&node)?;
            self.recognise(old, &seen)?;
        }
        let entry: EntryOut = self.enter(newdir, name)?;
        out.put(&entry)
    }

    pub(super) fn unlink(&mut self, parent: NodeId, name: Name<'_>, is_directory: bool) -> Outcome {
        if parent == ROOT && self.is_alias(name) {
            return Err(Errno::NOENT);
        }
        let directory = self.writable_directory(parent)?;
        let losing = self.about_to_lose(parent, &directory, name)?;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&directory, name.as_c_str(), flags)?;
        losing.map_or(Ok(()), |id| self.lost_name(id))
    }

    /// The known inode that will be nowhere once `name` is gone. The guest can go on using it, so a descriptor for it
    /// is at hand on return: it could not be had later.
    fn about_to_lose(
        &mut self,
        parent: NodeId,
        directory: &OwnedFd,
        name: Name<'_>,
    ) -> Result<Option<NodeId>, Errno> {
        let Ok(opened) = self.opened(|| open_path(directory, name.as_c_str())) else {
            // The call itself will tell.
            return Ok(None);
        };
        let identity = self.identify(&look_at(&opened)?, directory, name)?;
        let export = self.inodes.get(parent)?.export.clone();
        let Some(id) = self.inodes.find(&export, &identity) else { return Ok(None) };
        let here = Place::Below { parent, name: name.as_c_str().into() };
        if self.inodes.get(id)?.place != here {
            return Ok(None);
        }
        if self.at_hand(id)?.is_none() {
            self.descriptors.put(Use::Path(id), Arc::new(opened));
        }
        Ok(Some(id))
    }

    /// The known inode that a name stands for.
    fn known(
        &mut self,
        parent: NodeId,
        directory: &OwnedFd,
        name: Name<'_>,
    ) -> Result<Option<NodeId>, Errno> {
        let Ok(seen) = look(directory, name.as_c_str()) else { return Ok(None) };
        let identity = self.identify(&seen, directory, name)?;
        let export = self.inodes.get(parent)?.export.clone();
        Ok(self.inodes.find(&export, &identity))
    }

    pub(super) fn rename(
        &mut self,
        header: &InHeader,
        old: Name<'_>,
        newdir: NodeId,
        new: Name<'_>,
        flags: u32,
    ) -> Outcome {
        let parent = header.nodeid;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let (from, to) = (self.writable_directory(parent)?, self.writable_directory(newdir)?);
        if !Arc::ptr_eq(&self.inodes.get(parent)?.export, &self.inodes.get(newdir)?.export) {
            return Err(Errno::XDEV);
        }
        let moved = self.known(parent, &from, old)?;
        let swapped = flags.contains(RenameFlags::EXCHANGE);
        let replaced = match swapped {
            true => self.known(newdir, &to, new)?,
            false => self.about_to_lose(newdir, &to, new)?,
        };
        let rename = || renameat_with(&from, old.as_c_str(), &to, new.as_c_str(), flags);
        if !flags.contains(RenameFlags::WHITEOUT) {
            rename()?;
        } else if self.is_on_overlay(parent) {
            let (old, new) = (At { directory: &from, name: old }, At { directory: &to, name: new });
            self.rename_leaving_whiteout(header, old, new, flags.difference(RenameFlags::WHITEOUT))?;
        } else {
            self.rights.owned_by(header.uid, header.gid, rename)?;
        }
        // Two names of one inode: rename does nothing then.
        if moved.is_some() && moved == replaced {
            return Ok(());
        }
        if let Some(id) = replaced {
            match swapped {
                true => self.found_at(id, parent, old)?,
                false => self.lost_name(id)?,
            }
        }
        let Some(id) = moved else { return Ok(()) };
        self.found_at(id, newdir, new)?;
        if self.may_be_copied_up(id)
            && let Ok(seen) = look(&to, new.as_c_str())
        {
            self.recognise(id, &seen)?;
        }
        Ok(())
    }

    pub(super) fn readlink(&mut self, id: NodeId, out: &mut Reply<'_>) -> Outcome {
        if id == ROOT || self.inodes.get(id)?.identity.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let link = self.path(id)?;
        let mut target = [const { std::mem::MaybeUninit::uninit() }; libc::PATH_MAX as usize];
        let (target, _) = readlinkat_raw(&link, c"", &mut target)?;
        out.put_bytes(target)
    }
}
