//! Starts a program of the bundle's author with nothing of ours.
#![allow(unsafe_code)] // what happens between fork and exec has no safe wrapper

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts `command` as the leader of a process group of its own, with no signal blocked, and, if a process is named, in
/// that process's network namespace.
pub fn in_own_group(command: &mut Command, network_of: Option<i32>) -> std::io::Result<Child> {
    let namespace = network_of.map(|pid| File::open(format!("/proc/{pid}/ns/net"))).transpose()?;
    command.process_group(0);
    let raw = namespace.as_ref().map(AsRawFd::as_raw_fd);
    // SAFETY: the closure runs in the child between fork and exec and makes only async-signal-safe system calls
    // (sigprocmask, setns) on a descriptor that `namespace` keeps open until after the spawn.
    unsafe {
        command.pre_exec(move || {
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            match raw {
                Some(namespace) if libc::setns(namespace, libc::CLONE_NEWNET) < 0 => {
                    Err(std::io::Error::last_os_error())
                }
                _ => Ok(()),
            }
        });
    }
    command.spawn()
}
