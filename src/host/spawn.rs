//! Starts a process with just the descriptors it is to have.
#![allow(unsafe_code)] // what happens between fork and exec has no safe wrapper

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// What a child gets as its descriptors 0, 1 and 2.
pub enum Streams {
    /// Ours.
    Inherited,
    /// /dev/null.
    Null,
}

/// Starts this very program with one argument, in a session of its own, with `streams`, and `fourth` as descriptor 3.
///
/// A session of its own: a terminal's ^C is for whoever waits for the container, not for the machine behind it.
pub fn self_with_descriptor(verb: &str, streams: Streams, fourth: OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("husk").arg(verb).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    if let Streams::Null = streams {
        let null = || File::options().read(true).write(true).open("/dev/null").map(Stdio::from);
        command.stdin(null()?).stdout(null()?).stderr(null()?);
    }
    // If 3 were free, the pipe through which std's child reports a failed exec could get it, and be overwritten below.
    let _three_is_taken = fourth.try_clone()?;
    let from = fourth.as_raw_fd();
    // SAFETY: the closure runs in the child between fork and exec and makes only async-signal-safe system calls
    // (sigprocmask, setsid, dup2 or fcntl) on a descriptor that `fourth` keeps open until after the spawn.
    unsafe {
        command.pre_exec(move || {
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            // Fails only for a group leader, which a fresh child is not.
            libc::setsid();
            // dup2 onto itself would leave close-on-exec set.
            let kept = if from == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(from, 3) };
            if kept < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    command.spawn()
}
