//! The two halves of a message in guest memory: a cursor over volatile slices.
//!
//! Requests are copied out of it (once); the data of READ and WRITE is not: the host's kernel moves it between the
//! file and the slices. The same type serves plain byte slices, so that the server can be driven without a guest.
#![allow(unsafe_code, reason = "preadv and pwritev on guest memory, which must never be a Rust reference")]

use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::VolatileSlice;

/// The most slices that one system call takes (IOV_MAX).
const IOV_MAX: usize = 1024;

/// What is left of one half of a message.
pub struct Segments<'a> {
    slices: std::vec::IntoIter<VolatileSlice<'a>>,
    /// The slice that is begun.
    current: Option<VolatileSlice<'a>>,
    len: usize,
}

impl<'a> Segments<'a> {
    /// A cursor at the start of `slices`.
    pub fn new(slices: Vec<VolatileSlice<'a>>) -> Segments<'a> {
        let len = slices.iter().fold(0usize, |sum, slice| sum.saturating_add(slice.len()));
        Segments { slices: slices.into_iter(), current: None, len }
    }

    /// The bytes that are left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next at most `most` bytes that lie together.
    fn next(&mut self, most: usize) -> Option<VolatileSlice<'a>> {
        if most == 0 {
            return None;
        }
        let slice = loop {
            match self.current.take() {
                Some(slice) if !slice.is_empty() => break slice,
                _ => self.current = Some(self.slices.next()?),
            }
        };
        let (taken, rest) = slice.split_at(most.min(slice.len())).ok()?;
        self.current = Some(rest);
        self.len = self.len.saturating_sub(taken.len());
        Some(taken)
    }

    /// Takes the next `count` bytes as a cursor of their own; fewer if there are not as many.
    pub fn split(&mut self, count: usize) -> Segments<'a> {
        let mut taken = Vec::with_capacity(1);
        let mut left = count;
        while let Some(slice) = self.next(left) {
            left = left.saturating_sub(slice.len());
            taken.push(slice);
        }
        Segments::new(taken)
    }

    /// Copies the next bytes out; all of `to`, or `false`.
    pub fn read(&mut self, mut to: &mut [u8]) -> bool {
        while let Some(slice) = self.next(to.len()) {
            slice.copy_to(to);
            to = to.get_mut(slice.len()..).unwrap_or_default();
        }
        to.is_empty()
    }

    /// Copies bytes in; all of `from`, or `false`.
    pub fn write(&mut self, mut from: &[u8]) -> bool {
        if from.len() > self.len {
            return false;
        }
        while let Some(slice) = self.next(from.len()) {
            slice.copy_from(from);
            from = from.get(slice.len()..).unwrap_or_default();
        }
        true
    }

    /// Reads from a file at `offset` until everything left is filled or the file ends. An error after some bytes is
    /// left for the next call to find.
    pub fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        self.transfer(offset, |iovecs, at| {
            // SAFETY: the iovecs point into guest memory that the slices keep mapped and that no Rust reference
            // covers; the kernel writes no further than their lengths.
            let done = unsafe { libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), at) };
            usize::try_from(done).map_err(|_| last_error())
        })
    }

    /// Writes everything left to a file at `offset`, with `RWF_*` flags. Fewer bytes when an error came after some.
    pub fn drain_to(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        flags: libc::c_int,
    ) -> Result<usize, Errno> {
        self.transfer(offset, |iovecs, at| {
            // SAFETY: as above; the kernel only reads.
            let done = unsafe { libc::pwritev2(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), at, flags) };
            usize::try_from(done).map_err(|_| last_error())
        })
    }

    fn transfer(
        &mut self,
        offset: u64,
        mut call: impl FnMut(&[libc::iovec], libc::off_t) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let mut total = 0usize;
        while !self.is_empty() {
            let batch = self.split_batch();
            let mut start = 0usize;
            let mut batch: &[VolatileSlice<'a>] = &batch;
            while !batch.is_empty() {
                let iovecs: Vec<libc::iovec> =
                    batch.iter().enumerate().map(|(i, s)| iovec(s, i, start)).collect();
                let at = u64::try_from(total).ok().and_then(|done| offset.checked_add(done));
                let at = at.and_then(|at| libc::off_t::try_from(at).ok()).ok_or(Errno::INVAL)?;
                let done = match call(&iovecs, at) {
                    Err(Errno::INTR) => continue,
                    Err(error) if total == 0 => return Err(error),
                    Ok(0) | Err(_) => return Ok(total),
                    Ok(done) => done,
                };
                total = total.saturating_add(done);
                // Past what is done: whole slices first, then into the next one.
                start = start.saturating_add(done);
                while let Some((first, rest)) = batch.split_first()
                    && start >= first.len()
                {
                    start = start.saturating_sub(first.len());
                    batch = rest;
                }
            }
        }
        Ok(total)
    }

    fn split_batch(&mut self) -> Vec<VolatileSlice<'a>> {
        let mut batch = Vec::with_capacity(self.slices.len().saturating_add(1).min(IOV_MAX));
        while batch.len() < IOV_MAX
            && let Some(slice) = self.next(usize::MAX)
        {
            batch.push(slice);
        }
        batch
    }
}

/// One iovec; the first of a batch begins `start` bytes in.
fn iovec(slice: &VolatileSlice<'_>, index: usize, start: usize) -> libc::iovec {
    let skip = if index == 0 { start.min(slice.len()) } else { 0 };
    let guard = slice.ptr_guard_mut();
    libc::iovec {
        // `skip` is not beyond the slice's end.
        iov_base: guard.as_ptr().wrapping_add(skip).cast(),
        iov_len: slice.len().saturating_sub(skip),
    }
}

fn count(iovecs: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(iovecs.len()).unwrap_or(0)
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    fn over<'a>(parts: &'a mut [Vec<u8>]) -> Segments<'a> {
        Segments::new(parts.iter_mut().map(|part| VolatileSlice::from(part.as_mut_slice())).collect())
    }

    #[test]
    fn bytes_are_taken_across_slices_of_any_size() {
        let mut parts = vec![vec![1, 2, 3], vec![], vec![4], vec![5, 6, 7, 8]];
        let mut all = over(&mut parts);
        let (mut head, mut tail) = ([0; 2], [0; 4]);
        assert!(all.read(&mut head));
        let mut middle = all.split(3);
        assert_eq!((head, middle.len(), all.len()), ([1, 2], 3, 3));
        assert!(middle.read(&mut tail[..3]));
        assert_eq!(tail, [3, 4, 5, 0]);
        assert!(!all.read(&mut tail));
    }

    #[test]
    fn a_file_goes_through_in_pieces_and_ends_short() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        file.write_all(&content).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        // More slices than one call takes.
        let mut parts: Vec<Vec<u8>> = (0..3000).map(|i| vec![0; i % 7]).collect();
        let room: usize = parts.iter().map(Vec::len).sum();
        let read = over(&mut parts).fill_from(file.as_fd(), 5000).unwrap();
        assert_eq!(read, 5000.min(room));
        assert_eq!(parts.concat()[..read], content[5000..5000 + read]);

        let copy = tempfile::tempfile().unwrap();
        assert_eq!(over(&mut parts).drain_to(copy.as_fd(), 3, 0).unwrap(), room);
        assert_eq!(copy.metadata().unwrap().len(), room as u64 + 3);
    }
}
