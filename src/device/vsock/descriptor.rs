//! Reading and writing descriptors that a caller gave us, without ever waiting.
//!
//! A container's stdin, stdout and stderr are open file descriptions that others hold too: the caller, its shell, the
//! other end of `2>&1`. O_NONBLOCK belongs to the description, so setting it would change their reads and writes, and
//! any of them could clear it again. So it is neither set nor relied upon (but for terminals, below). Each kind of
//! file has its own way of not waiting for one call alone:
//!
//! | file | how | why it cannot wait |
//! |---|---|---|
//! | socket | `MSG_DONTWAIT` | per call |
//! | pipe | `preadv2`/`pwritev2` with `RWF_NOWAIT` | per call; anonymous pipes take it since Linux 6.4 |
//! | FIFO, or a pipe on an older kernel (`EOPNOTSUPP`) | through a pipe of our own and `splice` with `SPLICE_F_NONBLOCK` | per call, on any kernel; costs a copy |
//! | regular file, block device, anything without a poll operation (/dev/null) | plain | by the kernel's definition always ready |
//! | terminal, anything else | `poll` first, then a little: 128 bytes, which any terminal that polls writable takes whole | only if somebody else fills it between the two calls |
//!
//! A terminal is the one case with a gap, so whoever hands one over should open a description of its own for us with
//! O_NONBLOCK: then there is no gap, and writes are large.
//!
//! A write to a pipe without readers raises SIGPIPE: the process ignores it, as Rust's start-up code sets it.
#![allow(unsafe_code)] // scatter/gather system calls on guest memory, for which no safe wrapper exists

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{Shutdown, shutdown};
use rustix::fs::FileType;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use vm_memory::VolatileSlice;

/// A descriptor of a caller, and how to use it.
pub(super) struct Descriptor {
    fd: OwnedFd,
    how: How,
    /// In the epoll set; must be taken out before it is closed, because others may hold the description.
    watched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    Socket,
    Pipe,
    Splice,
    /// At most this many bytes at a time.
    Careful(usize),
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// Bytes that went through.
    pub(super) bytes: usize,
    /// Why it stopped.
    pub(super) then: Then,
}

/// Why an attempt stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Everything that was asked for was done, or more can be tried at once.
    More,
    /// It would have to wait.
    Later,
    /// End of file, no reader, or an error: no more ever.
    Over,
}

impl Descriptor {
    pub(super) fn new(fd: OwnedFd) -> Descriptor {
        let format = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let how = match format {
            Ok(FileType::RegularFile | FileType::BlockDevice | FileType::Directory) => How::Plain,
            Ok(FileType::Socket) => How::Socket,
            Ok(FileType::Fifo) => How::Pipe,
            _ if is_nonblocking(&fd) => How::Careful(BATCH),
            _ => How::Careful(CAREFUL),
        };
        Descriptor { fd, how, watched: false }
    }

    /// Asks to be told, with `token`, about `interest` and about errors. A file that cannot be watched is always ready:
    /// false.
    pub(super) fn watch(&mut self, epoll: &Epoll, token: u64, interest: EpollFlags) -> io::Result<bool> {
        let mut event = EpollEvent::new(interest, token);
        if self.watched {
            epoll.modify(&self.fd, &mut event)?;
            return Ok(true);
        }
        match epoll.add(&self.fd, event) {
            Ok(()) => self.watched = true,
            Err(nix::errno::Errno::EPERM) => self.how = How::Plain,
            Err(error) => return Err(error.into()),
        }
        Ok(self.watched)
    }

    /// Tells a socket's peer that this way is over.
    pub(super) fn shut(&self, how: Shutdown) {
        // It fails for a socket whose peer is gone, which knows.
        let _ = shutdown(self.fd.as_raw_fd(), how);
    }

    /// Takes it out of the epoll set and closes it.
    pub(super) fn close(self, epoll: &Epoll) {
        if self.watched {
            // It is in the set, so this cannot fail; if it did, its events would find no connection.
            let _ = epoll.delete(&self.fd);
        }
    }

    /// Reads into `to`, as far as it goes without waiting.
    pub(super) fn read(&mut self, to: &[VolatileSlice], shunt: &mut Shunt) -> Moved {
        self.each_batch(to, |descriptor, batch| match descriptor.read_batch(batch, shunt) {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(error),
        })
    }

    /// Writes `from`, as far as it goes without waiting.
    pub(super) fn write(&mut self, from: &[VolatileSlice], shunt: &mut Shunt) -> Moved {
        self.each_batch(from, |descriptor, batch| descriptor.write_batch(batch, shunt).map(Some))
    }

    /// Works through `slices` in batches until one comes back short. `None` from a batch means the end of the file.
    fn each_batch(
        &mut self,
        slices: &[VolatileSlice],
        mut attempt: impl FnMut(&mut Descriptor, &[libc::iovec]) -> io::Result<Option<usize>>,
    ) -> Moved {
        let mut moved = Moved { bytes: 0, then: Then::More };
        let mut cursor = Cursor { slices, skip: 0 };
        loop {
            let limit = if let How::Careful(most) = self.how { most } else { BATCH };
            let mut batch = Batch::new();
            let wanted = cursor.fill(&mut batch, limit);
            if wanted == 0 {
                return moved;
            }
            match attempt(self, batch.filled()) {
                Ok(Some(bytes)) => {
                    moved.bytes = moved.bytes.saturating_add(bytes);
                    cursor.advance(bytes);
                    if bytes < wanted {
                        // A pipe or socket is full (empty) now. Others say so themselves at the next attempt.
                        if matches!(self.how, How::Socket | How::Pipe | How::Splice) {
                            moved.then = Then::Later;
                            return moved;
                        }
                        if bytes == 0 {
                            moved.then = Then::Over;
                            return moved;
                        }
                    }
                }
                Ok(None) => {
                    moved.then = Then::Over;
                    return moved;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        moved.then = Then::Later;
                        return moved;
                    }
                    _ if self.how == How::Pipe && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                        self.how = How::Splice;
                    }
                    _ => {
                        moved.then = Then::Over;
                        return moved;
                    }
                },
            }
        }
    }

    fn read_batch(&self, batch: &[libc::iovec], shunt: &mut Shunt) -> io::Result<usize> {
        let (fd, count) = (self.fd.as_raw_fd(), count(batch));
        match self.how {
            // SAFETY: (for each call) the vectors describe memory that outlives the call: guest memory, or ours, held
            // by the caller's slices. Nothing assumes what it contains, so a guest that writes there at the same time
            // only spoils its own data.
            How::Plain => result(unsafe { libc::preadv2(fd, batch.as_ptr(), count, -1, 0) }),
            How::Pipe => {
                // SAFETY: as above.
                result(unsafe { libc::preadv2(fd, batch.as_ptr(), count, -1, libc::RWF_NOWAIT) })
            }
            How::Socket => {
                let mut message = message(batch);
                // SAFETY: as above; the message itself is on our stack.
                result(unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) })
            }
            How::Careful(_) => {
                ready(fd, libc::POLLIN)?;
                // SAFETY: as above.
                result(unsafe { libc::preadv2(fd, batch.as_ptr(), count, -1, 0) })
            }
            How::Splice => {
                let (read, write) = shunt.ends()?;
                let moved = splice(fd, write, length(batch))?;
                if moved == 0 {
                    return Ok(0);
                }
                // SAFETY: as above. Our pipe holds `moved` bytes, no more than the vectors have room for.
                result(unsafe { libc::preadv2(read, batch.as_ptr(), count, -1, 0) })
            }
        }
    }

    fn write_batch(&self, batch: &[libc::iovec], shunt: &mut Shunt) -> io::Result<usize> {
        let (fd, count) = (self.fd.as_raw_fd(), count(batch));
        match self.how {
            // SAFETY: (for each call) as in `read_batch`.
            How::Plain => result(unsafe { libc::pwritev2(fd, batch.as_ptr(), count, -1, 0) }),
            How::Pipe => {
                // SAFETY: as above.
                result(unsafe { libc::pwritev2(fd, batch.as_ptr(), count, -1, libc::RWF_NOWAIT) })
            }
            How::Socket => {
                let message = message(batch);
                // SAFETY: as above; the message itself is on our stack.
                result(unsafe {
                    libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                })
            }
            How::Careful(_) => {
                ready(fd, libc::POLLOUT)?;
                // SAFETY: as above.
                result(unsafe { libc::pwritev2(fd, batch.as_ptr(), count, -1, 0) })
            }
            How::Splice => {
                let (read, write) = shunt.ends()?;
                // SAFETY: as above.
                let filled = result(unsafe { libc::pwritev2(write, batch.as_ptr(), count, -1, 0) })?;
                let moved = splice(read, fd, filled);
                let left = filled.saturating_sub(*moved.as_ref().unwrap_or(&0));
                if left > 0 {
                    // What did not go through is still with the caller; only the copy has to go.
                    shunt.discard();
                }
                moved
            }
        }
    }
}

/// A pipe of our own, through which bytes are spliced into and out of pipes that know no other way of not waiting.
/// Made when first needed, empty between two uses.
#[derive(Default)]
pub(super) struct Shunt {
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Shunt {
    /// Read and write end.
    fn ends(&mut self) -> io::Result<(i32, i32)> {
        use nix::fcntl::OFlag;
        if self.pipe.is_none() {
            self.pipe = Some(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?);
        }
        let (read, write) = self.pipe.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((read.as_raw_fd(), write.as_raw_fd()))
    }

    /// Empties it. A new one is as good as an emptied one, and cannot be half emptied.
    fn discard(&mut self) {
        let mut scratch = [0_u8; 4096];
        let Some((read, _)) = &self.pipe else { return };
        loop {
            match nix::unistd::read(read, &mut scratch) {
                Ok(1..) | Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                Ok(0) | Err(_) => break,
            }
        }
        self.pipe = None;
    }
}

/// Where in a list of slices the work stands.
struct Cursor<'a, 'm> {
    slices: &'a [VolatileSlice<'m>],
    skip: usize,
}

impl Cursor<'_, '_> {
    /// Puts the next slices into `batch`, at most `limit` bytes; how many that are.
    fn fill(&mut self, batch: &mut Batch, limit: usize) -> usize {
        let (mut skip, mut total) = (self.skip, 0_usize);
        for slice in self.slices {
            let Ok(slice) = slice.offset(std::mem::take(&mut skip)) else { break };
            let length = slice.len().min(limit.saturating_sub(total));
            if length == 0 {
                continue;
            }
            if !batch.push(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: length }) {
                break;
            }
            total = total.saturating_add(length);
        }
        total
    }

    fn advance(&mut self, bytes: usize) {
        self.skip = self.skip.saturating_add(bytes);
        while let [first, rest @ ..] = self.slices
            && self.skip >= first.len()
        {
            self.skip = self.skip.saturating_sub(first.len());
            self.slices = rest;
        }
    }
}

/// Vectors for one system call, on the stack.
struct Batch {
    vectors: [libc::iovec; VECTORS],
    used: usize,
}

impl Batch {
    fn new() -> Batch {
        Batch { vectors: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; VECTORS], used: 0 }
    }

    fn push(&mut self, vector: libc::iovec) -> bool {
        let Some(slot) = self.vectors.get_mut(self.used) else { return false };
        *slot = vector;
        self.used = self.used.saturating_add(1);
        true
    }

    fn filled(&self) -> &[libc::iovec] {
        self.vectors.get(..self.used).unwrap_or_default()
    }
}

fn is_nonblocking(fd: &OwnedFd) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK))
}

/// `WouldBlock` unless `fd` is ready, or broken, now.
fn ready(fd: i32, events: i16) -> io::Result<()> {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one entry and a time, on our stack. (Why not poll(2): `deadline::poll`.)
    match unsafe { libc::ppoll(&raw mut poll, 1, &raw const at_once, std::ptr::null()) } {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn splice(from: i32, to: i32, length: usize) -> io::Result<usize> {
    // SAFETY: no memory is involved; neither end has an offset.
    result(unsafe {
        libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), length, libc::SPLICE_F_NONBLOCK)
    })
}

fn message(batch: &[libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // The kernel does not write to the vectors themselves.
    message.msg_iov = batch.as_ptr().cast_mut();
    message.msg_iovlen = batch.len();
    message
}

fn result(got: isize) -> io::Result<usize> {
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

fn count(batch: &[libc::iovec]) -> i32 {
    i32::try_from(batch.len()).unwrap_or(0)
}

fn length(batch: &[libc::iovec]) -> usize {
    batch.iter().fold(0, |sum, vector| sum.saturating_add(vector.iov_len))
}

/// Vectors in one system call.
const VECTORS: usize = 64;

/// Bytes in one system call.
const BATCH: usize = 64 * 1024;

/// Bytes that are written to a terminal at a time: a pty that polls writable has room for at least 256, and a newline
/// may become two characters.
const CAREFUL: usize = 128;
