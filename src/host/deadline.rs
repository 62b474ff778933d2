//! A moment by which something must have happened.

use nix::poll::PollTimeout;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_patience_than_the_clock_can_hold_is_a_moment_far_away() {
        assert!(after(Duration::MAX) > Instant::now() + FAR / 2);
    }
}
