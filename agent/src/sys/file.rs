//! openat2(2) and close_range(2).

use super::{Result, descriptor, returned};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// `RESOLVE_NO_MAGICLINKS` (linux/openat2.h).
pub const NO_MAGIC_LINKS: u64 = 0x02;
/// `RESOLVE_NO_SYMLINKS`.
pub const NO_SYMLINKS: u64 = 0x04;
/// `RESOLVE_BENEATH`.
pub const BENEATH: u64 = 0x08;
/// `RESOLVE_IN_ROOT`.
pub const IN_ROOT: u64 = 0x10;

/// openat2(2); the descriptor is close-on-exec.
pub fn open_at(directory: impl AsFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // `struct open_how`; libc's own cannot be built.
    let flags = u64::try_from(flags | libc::O_CLOEXEC).unwrap_or_default();
    let how: [u64; 3] = [flags, u64::from(mode), resolve];
    let directory = directory.as_fd().as_raw_fd();
    // SAFETY: path ends with a NUL, `how` lives across the call and its size is told.
    descriptor(unsafe {
        libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), how.as_ptr(), size_of_val(&how))
    })
}

/// The working directory, for calls that take a directory.
pub fn here() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is no descriptor and is never closed.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// A second descriptor for what `number` names. For descriptors that a caller handed over by number.
pub fn duplicate_number(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC on a number that is no open descriptor fails with EBADF.
    descriptor(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }))
}

/// Closes every descriptor from 3 up except those named. For a new child, whose copies of its parent's descriptors
/// nobody in it uses: it never returns into code that owns them.
pub fn close_all_but(kept: &[RawFd]) -> Result<()> {
    let mut kept: Vec<u32> =
        kept.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2).collect();
    kept.sort_unstable();
    let mut first = 3u32;
    for fd in kept {
        if fd > first {
            close_range(first, fd.saturating_sub(1), 0)?;
        }
        first = fd.saturating_add(1);
    }
    close_range(first, u32::MAX, 0)
}

/// Makes every descriptor from 3 up close-on-exec.
pub fn close_all_on_exec() -> Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: callers own the range or only set flags on it (see above).
    returned(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}

/// Bytes that can be read from a pipe at this moment.
pub fn readable_bytes(pipe: impl AsFd) -> Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    returned(libc::c_long::from(unsafe {
        libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes)
    }))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
/// How long a vsock connection of ours may take to come about, in seconds.
pub fn set_connect_timeout(socket: impl AsFd, seconds: i64) -> Result<()> {
    let time = libc::timeval { tv_sec: seconds, tv_usec: 0 };
    let length = libc::socklen_t::try_from(size_of_val(&time)).unwrap_or(0);
    // SAFETY: the option is a timeval, which lives across the call.
    returned(libc::c_long::from(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::AF_VSOCK,
            SO_VM_SOCKETS_CONNECT_TIMEOUT,
            (&raw const time).cast(),
            length,
        )
    }))
    .map(drop)
}

/// linux/vm_sockets.h, in the form that a 64-bit time has always had; libc lacks it.
const SO_VM_SOCKETS_CONNECT_TIMEOUT: libc::c_int = 6;
