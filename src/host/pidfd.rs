//! A process held by a descriptor, so that a signal can never hit another one that took over its pid.
#![allow(unsafe_code)] // pidfd_open(2) and pidfd_send_signal(2) have no safe wrappers

use super::deadline::{self, poll};
use super::proc;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A process of the host.
#[derive(Debug)]
pub struct PidFd {
    descriptor: OwnedFd,
}

impl PidFd {
    /// Holds the process `pid`.
    pub fn open(pid: i32) -> nix::Result<PidFd> {
        // SAFETY: the call takes two integers and returns a new descriptor or an error.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(PidFd { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Holds the process `pid` if it is the one that started at `start_time` ([`proc::Stat::start_time`]) and has not
    /// ended: `Ok(None)` if it is gone, a zombie, or another one has its pid now.
    pub fn open_same(pid: i32, start_time: u64) -> nix::Result<Option<PidFd>> {
        let held = match PidFd::open(pid) {
            Ok(held) => held,
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        // Looked at after the descriptor was taken: what is read is about the process we hold, or it has ended.
        let same =
            proc::Stat::read(pid).is_some_and(|stat| stat.start_time == start_time && !stat.has_ended());
        Ok(same.then_some(held))
    }

    /// Sends a signal. ESRCH when the process has ended.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open for the time of the call, and a null siginfo is allowed by pidfd_send_signal(2).
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), signal, none, 0)
        };
        Errno::result(result).map(drop)
    }

    /// Waits up to `patience` for the process to end. Whether it has.
    pub fn wait(&self, patience: Duration) -> nix::Result<bool> {
        let until = deadline::after(patience);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, timeout) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_was_killed_is_seen_to_end() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = proc::Stat::read(pid).unwrap().start_time;
        let held = PidFd::open_same(pid, start_time).unwrap().unwrap();
        assert!(!held.wait(Duration::from_millis(20)).unwrap());
        assert!(PidFd::open_same(pid, start_time + 1).unwrap().is_none());
        held.signal(libc::SIGKILL).unwrap();
        assert!(held.wait(Duration::from_secs(5)).unwrap());
        assert!(PidFd::open_same(pid, start_time).unwrap().is_none(), "a zombie counts as ended");
        child.wait().unwrap();
        assert!(PidFd::open_same(pid, start_time).unwrap().is_none());
        assert_eq!(held.signal(0), Err(Errno::ESRCH));
    }
}
