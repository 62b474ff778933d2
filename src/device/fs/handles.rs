//! What the guest has open: numbers, and what each stands for.
//!
//! A handle holds no descriptor either. A file's handle says which inode and whether it may write; all handles of an
//! inode share descriptors. A directory's handle remembers how far the guest has read.

use super::inodes::NodeId;
use super::stream::Stream;
use rustix::io::Errno;
use std::collections::HashMap;

/// The guest's name for something open. Never used twice.
pub type Fh = u64;

/// The most files that a guest may have open at a time: Linux's own limit for a whole machine of modest size.
pub const MAX_FILES: usize = 1 << 18;
/// The most directories; each has a buffer.
pub const MAX_STREAMS: usize = 8192;

/// Something open.
#[derive(Debug)]
pub struct Handle {
    /// The inode.
    pub node: NodeId,
    /// As what.
    pub kind: HandleKind,
}

/// As what an inode is open.
#[derive(Debug)]
pub enum HandleKind {
    /// A file.
    File {
        /// Whether it may be written to.
        write: bool,
    },
    /// A directory of the host.
    Directory(Box<Stream>),
    /// The synthetic root, which needs no memory.
    Root,
}

/// The table.
#[derive(Default)]
pub struct Handles {
    by_number: HashMap<Fh, Handle>,
    next: Fh,
    streams: usize,
}

impl Handles {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Adds one. `ENFILE` when the guest has too many.
    pub fn add(&mut self, handle: Handle) -> Result<Fh, Errno> {
        let is_stream = matches!(handle.kind, HandleKind::Directory(_));
        if self.by_number.len() >= MAX_FILES || (is_stream && self.streams >= MAX_STREAMS) {
            return Err(Errno::NFILE);
        }
        self.streams = self.streams.saturating_add(usize::from(is_stream));
        self.next = self.next.checked_add(1).ok_or(Errno::NFILE)?;
        self.by_number.insert(self.next, handle);
        Ok(self.next)
    }

    /// All, and the highest number that there ever was.
    pub fn all(&self) -> (impl Iterator<Item = (Fh, &Handle)>, Fh) {
        (self.by_number.iter().map(|(number, handle)| (*number, handle)), self.next)
    }

    /// The table with these in it, whose numbers and count the caller has checked.
    pub fn restored(all: impl IntoIterator<Item = (Fh, Handle)>, last: Fh) -> Handles {
        let by_number: HashMap<Fh, Handle> = all.into_iter().collect();
        let is_stream = |handle: &&Handle| matches!(handle.kind, HandleKind::Directory(_));
        let streams = by_number.values().filter(is_stream).count();
        Handles { by_number, next: last, streams }
    }

    /// The handle of an inode under that number, or `EBADF`.
    pub fn get(&mut self, node: NodeId, number: Fh) -> Result<&mut Handle, Errno> {
        self.by_number.get_mut(&number).filter(|handle| handle.node == node).ok_or(Errno::BADF)
    }

    /// The inode that a handle is of.
    pub fn node(&self, number: Fh) -> Option<NodeId> {
        Some(self.by_number.get(&number)?.node)
    }

    /// Removes one, or `EBADF`.
    pub fn remove(&mut self, node: NodeId, number: Fh) -> Result<Handle, Errno> {
        self.get(node, number)?;
        let handle = self.by_number.remove(&number).ok_or(Errno::BADF)?;
        self.streams =
            self.streams.saturating_sub(usize::from(matches!(handle.kind, HandleKind::Directory(_))));
        Ok(handle)
    }
}
