//! A moment by which something must have happened, and waiting for that.

use nix::poll::{PollFd, PollTimeout, ppoll};
use nix::sys::time::TimeSpec;
use std::time::{Duration, Instant};

/// A year, in place of what the clock cannot hold: a bundle may ask for any number of seconds.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment `patience` from now; one far away if the clock cannot name it.
pub fn after(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}

/// How long poll(2) may wait for that moment: without end if there is none.
pub fn poll_timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    // Rounded up, so that the last fraction of a millisecond is slept and not spun.
    let left = until.saturating_duration_since(Instant::now()).saturating_add(Duration::from_micros(999));
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// As poll(2), by ppoll(2): a process that was stopped, frozen or suspended and goes on comes back into poll(2) by yet another
/// system call (restart_syscall), and threads of a machine may make no more calls than they have to.
pub fn poll<T: Into<PollTimeout>>(fds: &mut [PollFd<'_>], timeout: T) -> nix::Result<libc::c_int> {
    // Less than nothing is without end; the type's own way to ask for milliseconds does not expect it.
    let milliseconds = u64::try_from(i32::from(timeout.into())).ok();
    ppoll(fds, milliseconds.map(|time| TimeSpec::from_duration(Duration::from_millis(time))), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::PollFlags;
    use std::os::fd::AsFd;

    #[test]
    fn a_wait_ends_in_time_or_never() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut ready = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        let began = Instant::now();
        assert_eq!(poll(&mut ready, PollTimeout::ZERO), Ok(0));
        assert_eq!(poll(&mut ready, 30_u8), Ok(0));
        assert!(began.elapsed() >= Duration::from_millis(30));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                nix::unistd::write(&write, b"x").unwrap();
            });
            assert_eq!(poll(&mut ready, PollTimeout::NONE), Ok(1));
        });
    }

    #[test]
    fn more_patience_than_the_clock_can_hold_is_a_moment_far_away() {
        assert!(after(Duration::MAX) > Instant::now() + FAR / 2);
    }
}
