//! Reading the host's clock through a PTP device, and moving our own.

use super::{Error, Result, returned};
use std::os::fd::{AsFd, AsRawFd};

/// A reading of two clocks at the same moment, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The device's.
    pub device: i128,
    /// Ours.
    pub own: i128,
}

/// Reads both at once: one call of the hypervisor. Only where our clock is driven by the hypervisor's.
pub fn read_at_once(device: impl AsFd) -> Result<Reading> {
    // SAFETY: all-zero is a valid request.
    let mut offset: libc::ptp_sys_offset_precise = unsafe { std::mem::zeroed() };
    // SAFETY: PTP_SYS_OFFSET_PRECISE writes one such structure.
    returned(libc::c_long::from(unsafe {
        libc::ioctl(device.as_fd().as_raw_fd(), libc::PTP_SYS_OFFSET_PRECISE, &raw mut offset)
    }))?;
    Ok(Reading { device: nanoseconds(offset.device), own: nanoseconds(offset.sys_realtime) })
}

/// Reads ours before and after the device's a few times and takes the narrowest: what lies between is half of it at
/// most beside the truth.
pub fn read_between(device: impl AsFd) -> Result<Reading> {
    // SAFETY: all-zero is a valid request.
    let mut offset: libc::ptp_sys_offset = unsafe { std::mem::zeroed() };
    offset.n_samples = SAMPLES;
    // SAFETY: PTP_SYS_OFFSET reads and writes one such structure (its number says that it only writes).
    returned(libc::c_long::from(unsafe {
        libc::ioctl(device.as_fd().as_raw_fd(), libc::PTP_SYS_OFFSET, &raw mut offset)
    }))?;
    // Ours, the device's, ours, the device's, ..., ours.
    let times: Vec<i128> = offset.ts.iter().take(READINGS).map(|time| nanoseconds(*time)).collect();
    let between = times.windows(3).step_by(2).filter_map(|three| match three {
        &[before, device, after] => Some((after.saturating_sub(before), before, device, after)),
        _ => None,
    });
    let narrowest = between.filter(|(width, ..)| *width >= 0).min_by_key(|(width, ..)| *width);
    let (_, before, device, after) = narrowest.ok_or(Error(nix::errno::Errno::EIO))?;
    Ok(Reading { device, own: before.midpoint(after) })
}

/// Moves our clock at once, forwards or backwards.
pub fn step(nanoseconds: i128) -> Result<()> {
    let second = i128::from(NANOSECONDS);
    let too_far = |_| Error(nix::errno::Errno::EINVAL);
    let mut change = nothing();
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    change.time.tv_sec = libc::time_t::try_from(nanoseconds.div_euclid(second)).map_err(too_far)?;
    // With ADJ_NANO these are nanoseconds.
    change.time.tv_usec = libc::suseconds_t::try_from(nanoseconds.rem_euclid(second)).map_err(too_far)?;
    adjust(&mut change)
}

/// Has our clock run a little faster or slower (a two-thousandth) until it has moved so far: nobody sees it jump.
pub fn slew(microseconds: i64) -> Result<()> {
    let mut change = nothing();
    change.modes = libc::ADJ_OFFSET_SINGLESHOT;
    change.offset = microseconds;
    adjust(&mut change)
}

fn nothing() -> libc::timex {
    // SAFETY: all-zero asks for no change.
    unsafe { std::mem::zeroed() }
}

fn adjust(change: &mut libc::timex) -> Result<()> {
    // SAFETY: clock_adjtime reads and writes one timex.
    returned(libc::c_long::from(unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, change) }))?;
    Ok(())
}

fn nanoseconds(time: libc::ptp_clock_time) -> i128 {
    let whole = i128::from(time.sec).saturating_mul(i128::from(NANOSECONDS));
    whole.saturating_add(i128::from(time.nsec))
}

const NANOSECONDS: u32 = 1_000_000_000;
const SAMPLES: libc::c_uint = 5;
/// As many as `SAMPLES` give.
const READINGS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_whole_seconds_and_the_rest() {
        // SAFETY: all-zero is a valid time.
        let mut time: libc::ptp_clock_time = unsafe { std::mem::zeroed() };
        (time.sec, time.nsec) = (1_700_000_000, 5);
        assert_eq!(nanoseconds(time), 1_700_000_000_000_000_005);
    }
}
