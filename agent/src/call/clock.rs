//! SetClock: the wall clock, after the guest has stood still.

use super::{Outcome, refused};
use husk_protocol::Answer;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use std::time::Duration;

/// Steps it.
pub fn call(nanoseconds: u64) -> Outcome {
    let time = TimeSpec::from(Duration::from_nanos(nanoseconds));
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| refused("set the clock", errno.desc()))?;
    Ok(Some(Answer::Done))
}
