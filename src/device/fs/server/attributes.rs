//! GETATTR, SETATTR, and how the host's attributes look to the guest.

use super::super::inodes::{Inode, NodeId};
use super::super::wire::{ATTR_SUBMOUNT, Attr, AttrOut, GETATTR_FH, GetattrIn, ROOT, SetattrIn, fattr};
use super::reach::{FdName, look_at};
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{
    AtFlags, FileType, Mode, Statx, Timespec, Timestamps, chmodat, chownat, ftruncate, utimensat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// In which bits of a salted inode number the filesystem's index stands.
const SALT_SHIFT: u32 = 48;

impl Server {
    pub(super) fn getattr(&mut self, id: NodeId, how: &GetattrIn, out: &mut Reply<'_>) -> Outcome {
        if id == ROOT {
            return out.put(&AttrOut { attr: root_attr(), ..AttrOut::default() });
        }
        // Not needed to find the file, but a handle that is none must not go unnoticed.
        if how.getattr_flags & GETATTR_FH != 0 && !self.is_unopened(how.fh) {
            self.handles.get(id, how.fh)?;
        }
        let seen = self.look_at_node(id)?;
        self.put_attr(id, &seen, out)
    }

    pub(super) fn setattr(&mut self, id: NodeId, how: &SetattrIn, out: &mut Reply<'_>) -> Outcome {
        self.writable(id)?;
        if how.valid & (fattr::MODE | fattr::UID | fattr::GID) != 0 {
            let node = self.path(id)?;
            self.change_owner(&node, how)?;
            self.change_mode(&node, how)?;
        }
        if how.valid & fattr::SIZE != 0 {
            self.change_size(id, how)?;
        }
        if how.valid & (fattr::ATIME | fattr::MTIME | fattr::ATIME_NOW | fattr::MTIME_NOW) != 0 {
            let node = self.path(id)?;
            utimensat(&node, c"", &times(how), AtFlags::EMPTY_PATH)?;
        }
        let seen = self.look_at_node(id)?;
        self.put_attr(id, &seen, out)
    }

    /// Before the mode: a change of owner clears set-user-id bits, which the guest may ask for anew with it.
    fn change_owner(&self, node: &OwnedFd, how: &SetattrIn) -> Outcome {
        let id = |bit, value: u32| (how.valid & bit != 0).then_some(value);
        let (uid, gid) = (id(fattr::UID, how.uid), id(fattr::GID, how.gid));
        if (uid, gid) == (None, None) {
            return Ok(());
        }
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
        chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
    }

    fn change_mode(&self, node: &OwnedFd, how: &SetattrIn) -> Outcome {
        if how.valid & fattr::MODE == 0 {
            return Ok(());
        }
        chmodat(&self.proc, FdName::of(node).as_c_str(), Mode::from_raw_mode(how.mode), AtFlags::empty())
    }

    fn change_size(&mut self, id: NodeId, how: &SetattrIn) -> Outcome {
        if how.valid & fattr::FH != 0 {
            self.writable_handle(id, how.fh)?;
        }
        let file = self.file(id, true)?;
        let outcome = match how.valid & fattr::KILL_SUIDGID {
            0 => ftruncate(&file, how.size),
            _ => self.rights.without_fsetid(|| ftruncate(&file, how.size)),
        };
        self.close_unused(id);
        outcome
    }

    fn put_attr(&self, id: NodeId, seen: &Statx, out: &mut Reply<'_>) -> Outcome {
        let trust = self.policy.trust();
        out.put(&AttrOut {
            attr_valid: trust.as_secs(),
            attr_valid_nsec: trust.subsec_nanos(),
            dummy: 0,
            attr: self.attr(self.inodes.get(id)?, seen),
        })
    }

    /// The host's attributes as the guest sees them.
    pub(super) fn attr(&self, inode: &Inode, seen: &Statx) -> Attr {
        let ino = if inode.salted { salted(seen.stx_ino, inode.identity.mount) } else { seen.stx_ino };
        Attr {
            ino,
            size: seen.stx_size,
            blocks: seen.stx_blocks,
            atime: seen.stx_atime.tv_sec.cast_unsigned(),
            mtime: seen.stx_mtime.tv_sec.cast_unsigned(),
            ctime: seen.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: seen.stx_atime.tv_nsec,
            mtimensec: seen.stx_mtime.tv_nsec,
            ctimensec: seen.stx_ctime.tv_nsec,
            mode: seen.stx_mode.into(),
            nlink: seen.stx_nlink,
            uid: seen.stx_uid,
            gid: seen.stx_gid,
            rdev: device(self.device_inside(inode, seen)),
            blksize: seen.stx_blksize,
            flags: if inode.submount { ATTR_SUBMOUNT } else { 0 },
        }
    }
}

/// An inode's number, told apart from the same one of another filesystem. Those of the first filesystem stay as they are.
pub fn salted(ino: u64, mount: u32) -> u64 {
    ino ^ u64::from(mount).wrapping_shl(SALT_SHIFT)
}

/// The synthetic root: a directory that nobody can change.
pub fn root_attr() -> Attr {
    let mode = FileType::Directory.as_raw_mode() | 0o555;
    Attr { ino: ROOT, mode, nlink: 2, blksize: 4096, ..Attr::default() }
}

/// A device's number as FUSE has it: Linux's 32-bit encoding, 12 bits of major and 20 of minor.
fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

fn times(how: &SetattrIn) -> Timestamps {
    let time = |given, now, seconds: u64, nanoseconds: u32| Timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: match how.valid {
            valid if valid & now != 0 => rustix::fs::UTIME_NOW,
            valid if valid & given != 0 => nanoseconds.into(),
            _ => rustix::fs::UTIME_OMIT,
        },
    };
    Timestamps {
        last_access: time(fattr::ATIME, fattr::ATIME_NOW, how.atime, how.atimensec),
        last_modification: time(fattr::MTIME, fattr::MTIME_NOW, how.mtime, how.mtimensec),
    }
}

impl Server {
    /// What an inode that is open in `file` is like, for whom set-user-id bits matter.
    pub(super) fn has_set_id_bits(file: &OwnedFd) -> bool {
        look_at(file).is_ok_and(|seen| seen.stx_mode & 0o6000 != 0)
    }
}
