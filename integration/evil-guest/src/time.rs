//! Waiting, by the processor's counter: about a nanosecond a tick, or less.
#![allow(unsafe_code, reason = "an instruction for the counter")]

use core::arch::x86_64::_rdtsc;

/// As long as a device may need when the host is busy.
pub const LONG: u64 = 30_000_000_000;
/// As long as it takes to see that nothing comes, most of the time.
pub const SHORT: u64 = 3_000_000;

/// Waits until it is so, for that many ticks at most; whether it was.
pub fn wait(ticks: u64, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = now();
    loop {
        if is_so() {
            return true;
        }
        if now().wrapping_sub(begun) > ticks {
            return false;
        }
        core::hint::spin_loop();
    }
}

fn now() -> u64 {
    // SAFETY: every processor that KVM runs on has it.
    unsafe { _rdtsc() }
}
