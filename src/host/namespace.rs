//! Namespaces of the calling thread.
#![allow(unsafe_code)] // rustix calls unshare unsafe: with CLONE_FILES it can surprise other threads' descriptors

use rustix::thread::UnshareFlags;
use std::io;

/// Gives the calling thread (and threads that it makes later) a mount namespace of its own, a copy of the present one.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: a mount namespace, and with it root and current directory, of the thread's own. Descriptors are not touched.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(io::Error::from)
}

/// How many threads this process has.
pub fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
