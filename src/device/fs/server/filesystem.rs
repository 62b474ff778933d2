//! Whole filesystems: how full, and on disk.

use super::super::exports::Export;
use super::super::inodes::NodeId;
use super::super::wire::{NAME_MAX, ROOT, StatfsOut};
use super::reach::one_component;
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{FileType, Mode, OFlags, fstatfs, openat2, syncfs};
use rustix::io::Errno;
use std::sync::Arc;

impl Server {
    pub(super) fn statfs(&mut self, id: NodeId, out: &mut Reply<'_>) -> Outcome {
        if id == ROOT {
            let namelen = u32::try_from(NAME_MAX).unwrap_or(0);
            return out.put(&StatfsOut { bsize: 4096, frsize: 4096, namelen, ..StatfsOut::default() });
        }
        let seen = fstatfs(self.path(id)?)?;
        let word = |value| u32::try_from(value).unwrap_or(0);
        out.put(&StatfsOut {
            blocks: seen.f_blocks,
            bfree: seen.f_bfree,
            bavail: seen.f_bavail,
            files: seen.f_files,
            ffree: seen.f_ffree,
            bsize: word(seen.f_bsize),
            namelen: word(seen.f_namelen),
            frsize: word(seen.f_frsize),
            ..StatfsOut::default()
        })
    }

    /// Everything of an inode's filesystem to disk; all exports, for the root that the guest has mounted.
    pub(super) fn syncfs(&mut self, id: NodeId) -> Outcome {
        if id == ROOT {
            // One that is gone, or cannot be opened, is no reason not to sync the others.
            let all: Vec<Outcome> =
                self.exports.after(0).into_iter().map(|(_, export)| self.sync_export(&export)).collect();
            return all.into_iter().collect();
        }
        // An O_PATH descriptor will not do, and only regular files and directories may be opened.
        match self.inodes.get(id)?.identity.kind {
            FileType::Directory => {
                let directory = self.directory(id)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                syncfs(self.opened(|| openat2(&directory, c".", flags, Mode::empty(), one_component()))?)
            }
            FileType::RegularFile => {
                let outcome = syncfs(self.file(id, false)?);
                self.close_unused(id);
                outcome
            }
            _ => Err(Errno::INVAL),
        }
    }

    fn sync_export(&mut self, export: &Arc<Export>) -> Outcome {
        let entry = match self.enter_export(export) {
            Err(Errno::STALE) => return Ok(()),
            entry => entry?,
        };
        let outcome = match self.inodes.get(entry.nodeid)?.identity.kind {
            FileType::Directory | FileType::RegularFile => self.syncfs(entry.nodeid),
            _ => Ok(()),
        };
        self.inodes.forget(entry.nodeid, 1);
        outcome
    }
}
