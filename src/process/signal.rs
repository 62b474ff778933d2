//! Signals that arrive at a process of ours and are meant for one in a guest.
//!
//! They are all blocked from the start and read one by one from a descriptor: none is lost while we are busy, and none
//! does to us what it was meant to do to the process that we stand for.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals of this process.
pub struct Signals {
    descriptor: SignalFd,
}

/// One that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number; real-time signals too.
    pub number: i32,
    /// Sent by the kernel (a terminal that hung up or changed its size, a child that ended), not by a process.
    pub from_kernel: bool,
}

/// Why the signals cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive signals")]
pub struct SignalError(#[source] std::io::Error);

impl Signals {
    /// Blocks every signal and receives them from now on. To be called before any thread is made, which inherit it.
    /// (SIGKILL and SIGSTOP cannot be had, and those for a fault of our own still end us: the kernel sees to that.)
    pub fn take() -> Result<Signals, SignalError> {
        let failed = |error: Errno| SignalError(error.into());
        let all = SigSet::all();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).map_err(failed)?;
        let descriptor =
            SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        Ok(Signals { descriptor })
    }

    /// The next one that has arrived, if any. The descriptor is readable when there is one.
    pub fn next(&self) -> Option<Arrived> {
        // An error other than "none" does not happen to a valid descriptor and buffer.
        let info = self.descriptor.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        // SI_USER is 0, sigqueue, tgkill and the like are negative; what the kernel does by itself is positive.
        Some(Arrived { number, from_kernel: info.ssi_code > 0 })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Makes `command` start with no signal blocked, whatever the starting process has blocked.
pub fn unblock_in(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let unblock = || Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; sigprocmask is one, and nothing here
    // allocates or locks.
    unsafe { command.pre_exec(unblock) }
}

/// Sends a signal by number: real-time ones have no name in nix. That the process may have ended is no error.
pub fn send(process: nix::unistd::Pid, number: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours.
    unsafe { libc::kill(process.as_raw(), number) };
}
