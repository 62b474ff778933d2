//! Reading the names of a directory of the host, from any cookie on.
//!
//! The host's cookies (`d_off`) are given to the guest as they are: they hold while names come and go, for as long as
//! the filesystem keeps them, so a listing needs no snapshot of ours. What was read from the host and did not fit into
//! a reply waits here for the next one. The descriptor is not here and may be another one on each call.
#![allow(unsafe_code, reason = "getdents64, which no library offers with a buffer that outlives the call")]

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The most bytes read from the host at a time.
const BUFFER: usize = 4096;

/// A reader of names.
#[derive(Debug, Default)]
pub struct Stream {
    buffer: Vec<u8>,
    /// Where the next name begins in the buffer.
    at: usize,
    /// The cookie before the next name.
    position: u64,
    /// The cookie after the last name in the buffer: where the descriptor stands.
    tail: u64,
}

/// A name.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The name, perhaps `.` or `..`.
    pub name: &'a CStr,
    /// The inode's number, as the directory says.
    pub ino: u64,
    /// The cookie after it.
    pub next: u64,
    /// `DT_*`.
    pub kind: u8,
}

impl Stream {
    /// A reader that has come to a cookie and has nothing at hand.
    pub fn at(cookie: u64) -> Stream {
        Stream { position: cookie, tail: cookie, ..Stream::default() }
    }

    /// The cookie before the next name.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to a cookie, on a descriptor that is `fresh` (at the start) or as the last call left it.
    pub fn seek(&mut self, directory: impl AsFd, fresh: bool, cookie: u64) -> Result<(), Errno> {
        if cookie != self.position {
            self.buffer.clear();
            self.at = 0;
            self.position = cookie;
            self.tail = cookie;
            seek(directory, SeekFrom::Start(cookie))?;
        } else if fresh && self.tail != 0 {
            seek(directory, SeekFrom::Start(self.tail))?;
        }
        Ok(())
    }

    /// The next name, again and again until [`Stream::advance`]; `None` at the end.
    pub fn peek(&mut self, directory: impl AsFd) -> Result<Option<Entry<'_>>, Errno> {
        if self.at >= self.buffer.len() {
            self.refill(directory)?;
        }
        match self.buffer.get(self.at..) {
            None | Some([]) => Ok(None),
            Some(bytes) => parse(bytes).map(|(entry, _)| Some(entry)),
        }
    }

    /// Past the name that was peeked at.
    pub fn advance(&mut self) {
        let parsed = self.buffer.get(self.at..).map(parse);
        if let Some(Ok((Entry { next, .. }, len))) = parsed {
            self.at = self.at.saturating_add(len);
            self.position = next;
        }
    }

    fn refill(&mut self, directory: impl AsFd) -> Result<(), Errno> {
        self.at = 0;
        self.buffer.resize(BUFFER, 0);
        // SAFETY: the buffer is as long as we say, and the kernel writes bytes only.
        let done = unsafe {
            let fd = directory.as_fd().as_raw_fd();
            libc::syscall(libc::SYS_getdents64, fd, self.buffer.as_mut_ptr(), self.buffer.len())
        };
        let Ok(done) = usize::try_from(done) else {
            self.buffer.clear();
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        };
        self.buffer.truncate(done);
        let mut rest = self.buffer.as_slice();
        while let Ok((Entry { next, .. }, len)) = parse(rest) {
            self.tail = next;
            rest = rest.get(len..).unwrap_or_default();
        }
        if done == 0 {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

/// `struct linux_dirent64` without its name.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
struct Dirent64 {
    ino: u64,
    off: u64,
    reclen: u16,
    kind: u8,
}

fn parse(bytes: &[u8]) -> Result<(Entry<'_>, usize), Errno> {
    let (head, _) = Dirent64::read_from_prefix(bytes).map_err(|_| Errno::IO)?;
    let len = usize::from(head.reclen);
    let name = bytes.get(size_of::<Dirent64>()..len).ok_or(Errno::IO)?;
    let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::IO)?;
    Ok((Entry { name, ino: head.ino, next: head.off, kind: head.kind }, len))
}
