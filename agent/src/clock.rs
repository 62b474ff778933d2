//! The wall clock: the host's, to a fraction of a millisecond.
//!
//! ```text
//!   the agent begins                  -> step    by what the host's clock shows, read here
//!   the host says SetClock            -> step    the same; where it cannot be read, to what was said
//!     (a container exists, is resumed; the host's own clock was set, or the host woke up)
//!   every minute, a little off        -> slew    a host's disciplined clock drifts away from the counter that drives ours
//!   every minute, far off             -> leave   somebody with the right to do so has set it inside
//! ```
//! The host's clock is read through KVM's PTP device. What comes in a message is late by as long as the message took, so
//! it is only used where there is no such device (a host whose own clock is not driven by its time stamp counter).

use crate::log;
use crate::sys::clock::{self, Reading};
use crate::sys::{Error, Result};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How it is kept.
pub struct Clock {
    /// The host's clock, when it was found to be readable.
    host: Option<OwnedFd>,
    /// When it is to be looked at again.
    next: Option<Instant>,
}

impl Clock {
    /// A clock that `host`, a device that shows the host's, has set, if there is one that can be read.
    pub fn open(host: Option<OwnedFd>) -> Self {
        let mut clock = Self { host, next: None };
        match clock.read() {
            Some(Ok(reading)) => {
                if let Err(error) = clock.step(reading) {
                    log::error(&format!("set the clock: {error}"));
                }
            }
            _ => clock.host = None,
        }
        clock
    }

    /// Sets it to the host's, which was `told` (nanoseconds since the epoch) when the message was sent.
    pub fn set(&mut self, told: u64) -> Result<()> {
        match self.read() {
            Some(Ok(reading)) => self.step(reading),
            _ => {
                (self.host, self.next) = (None, None);
                let time = TimeSpec::from(Duration::from_nanos(told));
                clock_settime(ClockId::CLOCK_REALTIME, time).map_err(Error)
            }
        }
    }

    fn step(&mut self, reading: Reading) -> Result<()> {
        self.next = Instant::now().checked_add(INTERVAL);
        // What a slew has still to do would come on top.
        clock::slew(0)?;
        clock::step(ahead(reading))
    }

    /// How long the loop may wait, in milliseconds.
    pub fn patience(&self) -> Option<u16> {
        let left = self.next?.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
        Some(u16::try_from(left).unwrap_or(u16::MAX))
    }

    /// Looks at it, when it is time to.
    pub fn keep(&mut self) {
        if self.next.is_none_or(|next| Instant::now() < next) {
            return;
        }
        self.next = Instant::now().checked_add(INTERVAL);
        let Some(reading) = self.read() else { return };
        let kept = reading.and_then(|reading| slew_for(ahead(reading)).map_or(Ok(()), clock::slew));
        if let Err(error) = kept {
            log::error(&format!("keep the clock: {error}"));
            self.next = None;
        }
    }

    fn read(&self) -> Option<Result<Reading>> {
        let host = self.host.as_ref()?;
        Some(clock::read_at_once(host).or_else(|_| clock::read_between(host)))
    }
}

/// How far the host's clock is ahead of ours.
fn ahead(reading: Reading) -> i128 {
    reading.device.saturating_sub(reading.own)
}

/// What to slew by, in microseconds, if at all.
fn slew_for(ahead: i128) -> Option<i64> {
    let size = ahead.unsigned_abs();
    if size < NEGLIGIBLE.as_nanos() || size > OTHERS_DOING.as_nanos() {
        return None;
    }
    i64::try_from(ahead.checked_div(1000)?).ok()
}

/// Between two looks. A counter that is off by 100 millionths, more than any is, has then gone 6 ms astray; what is slewed in
/// that time is five times as much.
const INTERVAL: Duration = Duration::from_secs(60);
/// Not worth a correction.
const NEGLIGIBLE: Duration = Duration::from_micros(200);
/// More than any drift between two looks.
const OTHERS_DOING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_slewed_away_and_a_clock_that_was_set_is_left() {
        let milliseconds = |number: i128| number * 1_000_000;
        assert_eq!(slew_for(milliseconds(6)), Some(6000));
        assert_eq!(slew_for(milliseconds(-30)), Some(-30_000));
        assert_eq!(slew_for(150_000), None);
        assert_eq!(slew_for(milliseconds(3_600_000)), None);
        assert_eq!(slew_for(i128::MIN), None);
    }

    #[test]
    fn nothing_is_looked_at_before_the_clock_was_set_by_the_hosts() {
        let mut clock = Clock::open(None);
        assert_eq!(clock.patience(), None);
        clock.keep();
        assert_eq!(clock.next, None);
    }
}
