//! Jumps of the host's wall clock: someone has set it, or the host was suspended and woke up.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Hears of them without waking up for anything else. Its descriptor is readable after one.
#[derive(Debug)]
pub struct Jumps {
    timer: TimerFd,
}

impl Jumps {
    /// Begins to listen.
    pub fn open() -> nix::Result<Jumps> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        // What is wanted of it is that it is cancelled; that it goes off, once a century, does no harm.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let far = Expiration::OneShot(TimeSpec::from(now.saturating_add(CENTURY)));
        let cancelled = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        timer.set(far, cancelled)?;
        Ok(Jumps { timer })
    }

    /// Whether there was one since this was last asked.
    /// (nix takes the cancellation for an end of the wait like any other.)
    pub fn any(&self) -> bool {
        self.timer.wait().is_ok()
    }
}

impl AsFd for Jumps {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_does_not_jump() {
        let jumps = Jumps::open().unwrap();
        assert!(!jumps.any() && !jumps.any());
    }
}
