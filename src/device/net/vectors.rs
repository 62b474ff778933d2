//! Guest memory as the system calls for scattered reads and writes want it.

use crate::device::{DeviceError, Memory};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemory;

/// Stretches of the guest's memory, in order. They stay valid as long as the memory that they were taken from, which is
/// why they hold on to it.
pub(super) struct Vectors<'m> {
    memory: &'m Memory,
    parts: Vec<libc::iovec>,
}

/// Which descriptors of a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Those that the guest has filled.
    Readable,
    /// Those that are for us to fill.
    Writable,
}

impl<'m> Vectors<'m> {
    pub(super) fn new(memory: &'m Memory) -> Vectors<'m> {
        Vectors { memory, parts: Vec::with_capacity(MOST) }
    }

    /// Appends what a chain has on one side; says how many parts and bytes that is. `None`, and nothing is appended, if
    /// it is outside of memory or in more parts than a system call takes.
    pub(super) fn add(&mut self, chain: DescriptorChain<&Memory>, side: Side) -> Option<(usize, usize)> {
        let before = self.parts.len();
        let added = self.try_add(chain, side);
        if added.is_none() {
            self.parts.truncate(before);
        }
        added
    }

    fn try_add(&mut self, chain: DescriptorChain<&Memory>, side: Side) -> Option<(usize, usize)> {
        let (mut parts, mut bytes) = (0_usize, 0_usize);
        // An indirect table may be far longer than any frame needs.
        for descriptor in chain.take(MOST) {
            if descriptor.is_write_only() != (side == Side::Writable) {
                continue;
            }
            let length = usize::try_from(descriptor.len()).ok()?;
            for slice in self.memory.get_slices(descriptor.addr(), length) {
                let slice = slice.ok()?;
                if self.parts.len() >= MOST {
                    return None;
                }
                let start = slice.ptr_guard_mut().as_ptr();
                self.parts.push(libc::iovec { iov_base: start.cast(), iov_len: slice.len() });
                parts = parts.saturating_add(1);
                bytes = bytes.saturating_add(slice.len());
            }
        }
        Some((parts, bytes))
    }

    /// Forgets the first parts.
    pub(super) fn forget(&mut self, parts: usize) {
        self.parts.drain(..parts.min(self.parts.len()));
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    /// How many more parts there may be.
    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.parts.len())
    }

    /// Reads the first bytes once and cuts them off; false if there are not so many.
    pub(super) fn take_front(&mut self, to: &mut [u8]) -> bool {
        let mut rest = to;
        let mut whole = 0_usize;
        for part in &mut self.parts {
            if rest.is_empty() {
                break;
            }
            let count = part.iov_len.min(rest.len());
            // SAFETY: the part lies in guest memory, which is mapped as long as `self.memory`; `rest` is ours and has
            // at least `count` bytes. The guest may write meanwhile: any byte is as good as any other.
            unsafe { std::ptr::copy_nonoverlapping(part.iov_base.cast::<u8>(), rest.as_mut_ptr(), count) };
            part.iov_base = part.iov_base.wrapping_byte_add(count);
            part.iov_len = part.iov_len.saturating_sub(count);
            whole = whole.saturating_add(usize::from(part.iov_len == 0));
            rest = rest.get_mut(count..).unwrap_or(&mut []);
        }
        let complete = rest.is_empty();
        self.forget(whole);
        complete
    }

    /// Writes bytes at an offset from the beginning, as far as there are parts.
    pub(super) fn put(&self, offset: usize, bytes: &[u8]) {
        let mut skip = offset;
        let mut rest = bytes;
        for part in &self.parts {
            let usable = part.iov_len.saturating_sub(skip);
            let count = usable.min(rest.len());
            let to = part.iov_base.cast::<u8>().wrapping_add(skip.min(part.iov_len));
            // SAFETY: `count` bytes from `to` lie in the part, which lies in guest memory, mapped as long as
            // `self.memory`; `rest` has at least `count` bytes and is not guest memory.
            unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), to, count) };
            skip = skip.saturating_sub(part.iov_len);
            rest = rest.get(count..).unwrap_or(&[]);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Reads one frame into the parts.
    pub(super) fn read(&self, from: BorrowedFd<'_>, parts: usize) -> io::Result<usize> {
        let parts = self.parts.get(..parts).unwrap_or(&self.parts);
        let count = libc::c_int::try_from(parts.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: each part lies in guest memory, mapped as long as `self.memory`; the kernel may write there, as the
        // guest may at any time.
        let result = unsafe { libc::readv(from.as_raw_fd(), parts.as_ptr(), count) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Writes one frame: `header`, then the parts.
    pub(super) fn write(&mut self, to: BorrowedFd<'_>, header: &[u8]) -> io::Result<usize> {
        let first = libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() };
        self.parts.insert(0, first);
        let count = libc::c_int::try_from(self.parts.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the first part is `header`, which is only read; the others lie in guest memory, mapped as long as
        // `self.memory`.
        let result = unsafe { libc::writev(to.as_raw_fd(), self.parts.as_ptr(), count) };
        let result = usize::try_from(result).map_err(|_| io::Error::last_os_error());
        self.parts.remove(0);
        result
    }
}

/// Fails for a chain that makes no sense.
pub(super) const OUTSIDE: DeviceError = DeviceError::Driver("a receive buffer is outside of memory");

/// One less than IOV_MAX: the header of a frame is a part too.
const MOST: usize = 1023;
