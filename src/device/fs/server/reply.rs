//! The body of a reply, as it is being written.

use super::super::segments::Segments;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use zerocopy::{Immutable, IntoBytes};

/// Room in guest memory for a reply, less its header.
pub struct Reply<'a> {
    body: Segments<'a>,
    written: usize,
}

impl<'a> Reply<'a> {
    /// Nothing is written yet.
    pub fn new(body: Segments<'a>) -> Reply<'a> {
        Reply { body, written: 0 }
    }

    /// How many bytes are written.
    pub fn written(&self) -> usize {
        self.written
    }

    /// How many more the guest has room for.
    pub fn room(&self) -> usize {
        self.body.len()
    }

    /// Appends a struct; `EINVAL` when the guest left no room for it.
    pub fn put(&mut self, value: &(impl IntoBytes + Immutable)) -> Result<(), Errno> {
        self.put_bytes(value.as_bytes())
    }

    /// Appends bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.body.write(bytes) {
            return Err(Errno::INVAL);
        }
        self.written = self.written.saturating_add(bytes.len());
        Ok(())
    }

    /// Appends at most `size` bytes of a file.
    pub fn put_file(&mut self, file: BorrowedFd<'_>, offset: u64, size: usize) -> Result<(), Errno> {
        let read = self.body.split(size).fill_from(file, offset)?;
        self.written = self.written.saturating_add(read);
        Ok(())
    }
}
