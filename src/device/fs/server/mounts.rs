//! The mounts and filesystems that inodes were found on.
//!
//! Inode numbers are unique only within one. All exports are one filesystem to the guest: their numbers are salted with the
//! index here. Where another filesystem begins below an export, the guest is told, if it can mount there by itself
//! (FUSE_SUBMOUNTS).

use super::super::inodes::Identity;
use super::super::state::SavedMount;
use rustix::fs::{FileType, Statx, fstatfs, fstatvfs};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// The table; an entry's index is `Identity::mount`.
#[derive(Default)]
pub struct Mounts {
    by_key: HashMap<(u64, u32, u32), u32>,
    all: Vec<Mount>,
}

/// What matters of a filesystem.
#[derive(Debug, Clone, Copy)]
struct Mount {
    /// How it can be known again.
    saved: SavedMount,
    /// Whether it was found in this process.
    found: bool,
    /// Whether it was asked for its own number, which costs a system call.
    named: bool,
}

impl Mount {
    fn of(seen: &Statx, opened: &OwnedFd) -> Result<Mount, Errno> {
        let magic = fstatfs(opened)?.f_type.cast_unsigned();
        let device = (seen.stx_dev_major, seen.stx_dev_minor);
        Ok(Mount { saved: SavedMount { magic, fsid: 0, device }, found: true, named: false })
    }

    fn name(&mut self, opened: impl AsFd) -> Result<(), Errno> {
        self.saved.fsid = fstatvfs(opened)?.f_fsid;
        self.named = true;
        Ok(())
    }

    /// Whether it is what was saved as `before`. A device's number may have changed (an overlay gets another one each time
    /// that it is mounted), a filesystem's own number may be missing.
    fn is(&self, before: &SavedMount) -> bool {
        let now = &self.saved;
        let same = now.device == before.device || (now.fsid != 0 && now.fsid == before.fsid);
        now.magic == before.magic && same
    }
}

impl Mounts {
    /// Who it is that `seen` describes. `open` opens it, should its filesystem be new to us.
    pub fn identify(
        &mut self,
        seen: &Statx,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Identity, Errno> {
        let key = key(seen);
        let mount = match self.by_key.get(&key) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.all.len()).map_err(|_| Errno::NOMEM)?;
                self.all.push(Mount::of(seen, &open()?)?);
                self.by_key.insert(key, index);
                index
            }
        };
        let birth = if self.is_overlay(mount) { 0 } else { birth(seen) };
        let kind = FileType::from_raw_mode(seen.stx_mode.into());
        Ok(Identity { mount, ino: seen.stx_ino, birth, kind })
    }

    /// Whether a mount is an overlay's: copying a file up changes its birth time there, and may change its number.
    pub fn is_overlay(&self, mount: u32) -> bool {
        self.get(mount).is_some_and(|mount| mount.saved.magic == OVERLAYFS_SUPER_MAGIC)
    }

    /// Whether a mount is still to be asked for its own number before it is saved.
    pub fn is_nameless(&self, mount: u32) -> bool {
        self.get(mount).is_some_and(|mount| !mount.named)
    }

    /// Asks a mount for its own number, of which `opened` is.
    pub fn name(&mut self, mount: u32, opened: impl AsFd) -> Result<(), Errno> {
        let index = usize::try_from(mount).ok();
        index.and_then(|index| self.all.get_mut(index)).map_or(Ok(()), |mount| mount.name(opened))
    }

    /// As it is saved.
    pub fn save(&self) -> Vec<SavedMount> {
        self.all.iter().map(|mount| mount.saved).collect()
    }

    /// A table in which mounts have the places that they had, none of them found yet.
    pub fn restored(saved: &[SavedMount]) -> Mounts {
        let all = saved.iter().map(|saved| Mount { saved: *saved, found: false, named: false }).collect();
        Mounts { by_key: HashMap::new(), all }
    }

    /// Whether `seen`, which `open` opens, lies on the mount that was saved in this place. What is found first on a mount
    /// settles which one that is now, if its filesystem is the same.
    pub fn is_on(
        &mut self,
        mount: u32,
        seen: &Statx,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<bool, Errno> {
        if let Some(index) = self.by_key.get(&key(seen)) {
            return Ok(*index == mount);
        }
        let Some(Mount { saved, found: false, .. }) = self.get(mount).copied() else { return Ok(false) };
        let opened = open()?;
        let mut now = Mount::of(seen, &opened)?;
        now.name(&opened)?;
        if !now.is(&saved) {
            return Ok(false);
        }
        if let Some(place) = usize::try_from(mount).ok().and_then(|index| self.all.get_mut(index)) {
            *place = now;
        }
        self.by_key.insert(key(seen), mount);
        Ok(true)
    }

    fn get(&self, mount: u32) -> Option<&Mount> {
        self.all.get(usize::try_from(mount).ok()?)
    }
}

fn key(seen: &Statx) -> (u64, u32, u32) {
    (seen.stx_mnt_id, seen.stx_dev_major, seen.stx_dev_minor)
}

fn birth(seen: &Statx) -> u64 {
    if seen.stx_mask & STATX_BTIME == 0 {
        return 0;
    }
    let seconds = seen.stx_btime.tv_sec.cast_unsigned();
    seconds.wrapping_mul(1_000_000_000).wrapping_add(seen.stx_btime.tv_nsec.into())
}

const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
const STATX_BTIME: u32 = rustix::fs::StatxFlags::BTIME.bits();
