//! The system calls that nix does not wrap, each in the thinnest safe form.
//!
//! Every `unsafe` block of the agent is below this module. Nothing here decides anything: arguments in, descriptor or
//! errno out.

#![allow(unsafe_code)] // raw system calls: neither nix nor libc wrap these

pub mod bpf;
pub mod clock;
pub mod clone;
mod error;
pub mod ethtool;
pub mod file;
pub mod message;
pub mod mount;
pub mod privilege;
pub mod process;
pub mod random;
pub mod terminal;

pub use error::{Error, Result};

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A system call's return value, or the errno it left.
fn returned(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 { Err(Error::last()) } else { Ok(value) }
}

/// A system call's return value that is a new descriptor, ours to close.
fn descriptor(value: libc::c_long) -> Result<OwnedFd> {
    let raw = RawFd::try_from(returned(value)?).map_err(|_| Error(nix::errno::Errno::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
