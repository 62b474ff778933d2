//! The mounts and filesystems that inodes were found on.
//!
//! Inode numbers are unique only within one. All exports are one filesystem to the guest: their numbers are salted with the
//! index here. Where another filesystem begins below an export, the guest is told, if it can mount there by itself
//! (FUSE_SUBMOUNTS).

use super::super::inodes::Identity;
use rustix::fs::{FileType, Statx, fstatfs};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// The table; an entry's index is `Identity::mount`.
#[derive(Default)]
pub struct Mounts {
    by_key: HashMap<(u64, u32, u32), u32>,
    all: Vec<Mount>,
}

/// What matters of a filesystem.
#[derive(Debug, Clone, Copy)]
struct Mount {
    /// An overlay: copying a file up changes its birth time, and may change its number.
    overlay: bool,
}

impl Mounts {
    /// Who it is that `seen` describes. `open` opens it, should its filesystem be new to us.
    pub fn identify(
        &mut self,
        seen: &Statx,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Identity, Errno> {
        let key = (seen.stx_mnt_id, seen.stx_dev_major, seen.stx_dev_minor);
        let mount = match self.by_key.get(&key) {
            Some(index) => *index,
            None => {
                let overlay = fstatfs(open()?)?.f_type == OVERLAYFS_SUPER_MAGIC;
                let index = u32::try_from(self.all.len()).map_err(|_| Errno::NOMEM)?;
                self.all.push(Mount { overlay });
                self.by_key.insert(key, index);
                index
            }
        };
        let birth = if self.is_overlay(mount) { 0 } else { birth(seen) };
        let kind = FileType::from_raw_mode(seen.stx_mode.into());
        Ok(Identity { mount, ino: seen.stx_ino, birth, kind })
    }

    /// Whether a mount is an overlay's.
    pub fn is_overlay(&self, mount: u32) -> bool {
        usize::try_from(mount).ok().and_then(|index| self.all.get(index)).is_some_and(|mount| mount.overlay)
    }
}

fn birth(seen: &Statx) -> u64 {
    if seen.stx_mask & STATX_BTIME == 0 {
        return 0;
    }
    let seconds = seen.stx_btime.tv_sec.cast_unsigned();
    seconds.wrapping_mul(1_000_000_000).wrapping_add(seen.stx_btime.tv_nsec.into())
}

const OVERLAYFS_SUPER_MAGIC: rustix::fs::FsWord = 0x794c_7630;
const STATX_BTIME: u32 = rustix::fs::StatxFlags::BTIME.bits();
