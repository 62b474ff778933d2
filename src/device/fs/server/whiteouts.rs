//! Whiteouts on what is an overlay outside.
//!
//! An overlay inside says that a name is gone with a character device 0:0, made by MKNOD or left behind by RENAME_WHITEOUT.
//! An overlay outside (most root filesystems are) makes none for anybody: it would be its own. So there, and nowhere
//! else, the guest's 0:0 is 0:26741 to the host: no driver can have major number 0, so it opens nothing there either. It is a
//! device by its type already, and its number comes with what is asked anyway: no request costs a system call more.
//!
//! A guest that makes such a device by its number sees a whiteout, which it could have made as well.

use super::super::inodes::{Inode, NodeId};
use super::super::name::Name;
use super::super::wire::InHeader;
use super::reach::look;
use super::{Outcome, Server};
use rustix::fs::{
    AtFlags, Dev, FileType, Mode, RenameFlags, Statx, makedev, mknodat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// What stands outside for 0:0: `hu`.
const MAJOR: u32 = 0;
const MINOR: u32 = 0x6875;

/// How many names are tried for what is about to get another one.
const ATTEMPTS: u32 = 8;

/// A name in a directory.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The directory.
    pub directory: &'a OwnedFd,
    /// The name.
    pub name: Name<'a>,
}

impl Server {
    /// Whether an inode lies on an overlay.
    pub(super) fn is_on_overlay(&self, id: NodeId) -> bool {
        self.inodes.get(id).is_ok_and(|inode| self.mounts.is_overlay(inode.identity.mount))
    }

    /// The number outside of a device that the guest makes in a directory.
    pub(super) fn device_outside(&self, directory: NodeId, kind: FileType, device: Dev) -> Dev {
        let is_whiteout = kind == FileType::CharacterDevice && device == 0;
        if is_whiteout && self.is_on_overlay(directory) { makedev(MAJOR, MINOR) } else { device }
    }

    /// The number inside of a device, as major and minor.
    pub(super) fn device_inside(&self, inode: &Inode, seen: &Statx) -> (u32, u32) {
        let is_whiteout = inode.identity.kind == FileType::CharacterDevice
            && (seen.stx_rdev_major, seen.stx_rdev_minor) == (MAJOR, MINOR)
            && self.mounts.is_overlay(inode.identity.mount);
        if is_whiteout { (0, 0) } else { (seen.stx_rdev_major, seen.stx_rdev_minor) }
    }

    /// Renames and leaves a whiteout behind, in three steps: what can fail comes before anything has changed. Should the
    /// machine be killed before the last one, both names are there.
    pub(super) fn rename_leaving_whiteout(
        &self,
        header: &InHeader,
        old: At<'_>,
        new: At<'_>,
        flags: RenameFlags,
    ) -> Outcome {
        // As overlays and other filesystems have it.
        if flags.contains(RenameFlags::EXCHANGE) {
            return Err(Errno::INVAL);
        }
        // Two names of one inode: rename does nothing then.
        if let (Ok(one), Ok(other)) =
            (look(old.directory, old.name.as_c_str()), look(new.directory, new.name.as_c_str()))
            && (one.stx_ino, one.stx_mnt_id) == (other.stx_ino, other.stx_mnt_id)
        {
            return Ok(());
        }
        let left = self.make_whiteout(header, old.directory)?;
        let moved =
            renameat_with(old.directory, old.name.as_c_str(), new.directory, new.name.as_c_str(), flags);
        if let Err(error) = moved {
            let _ = unlinkat(old.directory, &*left, AtFlags::empty());
            return Err(error);
        }
        renameat_with(old.directory, &*left, old.directory, old.name.as_c_str(), RenameFlags::empty())
    }

    /// A whiteout under a name of no meaning, which is told.
    fn make_whiteout(&self, header: &InHeader, directory: &OwnedFd) -> Result<CString, Errno> {
        let make = |name: &CStr| {
            mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), makedev(MAJOR, MINOR))
        };
        for attempt in 0..ATTEMPTS {
            let name = CString::new(format!(".husk-whiteout-{attempt}")).map_err(|_| Errno::INVAL)?;
            match self.rights.owned_by(header.uid, header.gid, || make(&name)) {
                // The guest's, or left by a machine that was killed.
                Err(Errno::EXIST) => {}
                outcome => return outcome.map(|()| name),
            }
        }
        Err(Errno::EXIST)
    }
}
