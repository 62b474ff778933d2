//! What is done with the contents of open files.

use super::super::Policy;
use super::super::handles::HandleKind;
use super::super::inodes::NodeId;
use super::super::segments::Segments;
use super::super::wire::{
    CopyFileRangeIn, FSYNC_FDATASYNC, FallocateIn, FsyncIn, LseekIn, LseekOut, ReadIn, WRITE_CACHE,
    WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, fdatasync, fsync, seek};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The most that one COPY_FILE_RANGE copies: other requests have to wait for it.
const MAX_COPY: u64 = 16 << 20;

impl Server {
    /// The file that a handle reads from.
    fn readable_file(&mut self, id: NodeId, fh: u64) -> Result<Arc<OwnedFd>, Errno> {
        if self.is_unopened(fh) {
            return self.file(id, false);
        }
        match self.handles.get(id, fh)?.kind {
            // The guest reads the rest of a page that is mapped through a handle that is for writing only.
            HandleKind::File { write } => self.file(id, write),
            _ => Err(Errno::BADF),
        }
    }

    /// The file that a handle writes to.
    fn writable_file(&mut self, id: NodeId, fh: u64) -> Result<Arc<OwnedFd>, Errno> {
        self.writable_handle(id, fh)?;
        self.file(id, true)
    }

    pub(super) fn read(&mut self, id: NodeId, how: &ReadIn, out: &mut Reply<'_>) -> Outcome {
        let file = self.readable_file(id, how.fh)?;
        let size = usize::try_from(how.size).unwrap_or(usize::MAX).min(out.room());
        out.put_file(file.as_fd(), how.offset, size)
    }

    pub(super) fn write(
        &mut self,
        id: NodeId,
        how: &WriteIn,
        mut data: Segments<'_>,
        out: &mut Reply<'_>,
    ) -> Outcome {
        let file = self.writable_file(id, how.fh)?;
        if usize::try_from(how.size).ok() != Some(data.len()) {
            return Err(Errno::INVAL);
        }
        let flags = self.flags_of_write(how);
        let written = if how.write_flags & WRITE_KILL_SUIDGID != 0 && Server::has_set_id_bits(&file) {
            self.rights.without_fsetid(|| data.drain_to(file.as_fd(), how.offset, flags))?
        } else {
            data.drain_to(file.as_fd(), how.offset, flags)?
        };
        out.put(&WriteOut { size: u32::try_from(written).map_err(|_| Errno::INVAL)?, padding: 0 })
    }

    /// What the guest's open flags mean for a single write. From its page cache they mean nothing: that write is
    /// nobody's in particular.
    fn flags_of_write(&self, how: &WriteIn) -> libc::c_int {
        let opened = OFlags::from_bits_retain(how.flags);
        if how.write_flags & WRITE_CACHE != 0 {
            return 0;
        }
        let mut flags = 0;
        // Only where somebody else may have made the file longer; alone, the guest knows the end best.
        if opened.contains(OFlags::APPEND) && self.policy == Policy::Shared {
            flags |= libc::RWF_APPEND;
        }
        if opened.contains(OFlags::SYNC) {
            flags |= libc::RWF_SYNC;
        } else if opened.contains(OFlags::DSYNC) {
            flags |= libc::RWF_DSYNC;
        }
        flags
    }

    pub(super) fn fsync(&mut self, id: NodeId, how: &FsyncIn) -> Outcome {
        let file = self.readable_file(id, how.fh)?;
        if how.fsync_flags & FSYNC_FDATASYNC != 0 { fdatasync(&file) } else { fsync(&file) }
    }

    pub(super) fn fallocate(&mut self, id: NodeId, how: &FallocateIn) -> Outcome {
        let file = self.writable_file(id, how.fh)?;
        fallocate(&file, FallocateFlags::from_bits_retain(how.mode), how.offset, how.length)
    }

    pub(super) fn lseek(&mut self, id: NodeId, how: &LseekIn, out: &mut Reply<'_>) -> Outcome {
        let file = self.readable_file(id, how.fh)?;
        let to = match i32::try_from(how.whence) {
            Ok(libc::SEEK_DATA) => SeekFrom::Data(how.offset),
            Ok(libc::SEEK_HOLE) => SeekFrom::Hole(how.offset),
            _ => return Err(Errno::INVAL),
        };
        // The descriptor's own position is used for nothing else.
        out.put(&LseekOut { offset: seek(&file, to)? })
    }

    pub(super) fn copy_file_range(
        &mut self,
        id: NodeId,
        how: &CopyFileRangeIn,
        out: &mut Reply<'_>,
    ) -> Outcome {
        if how.flags != 0 {
            return Err(Errno::INVAL);
        }
        let from = self.readable_file(id, how.fh_in)?;
        let to = self.writable_file(how.nodeid_out, how.fh_out)?;
        let (mut off_in, mut off_out) = (how.off_in, how.off_out);
        let len = usize::try_from(how.len.min(MAX_COPY)).map_err(|_| Errno::INVAL)?;
        let copied = copy_file_range(&from, Some(&mut off_in), &to, Some(&mut off_out), len)?;
        out.put(&WriteOut { size: u32::try_from(copied).map_err(|_| Errno::INVAL)?, padding: 0 })
    }
}
