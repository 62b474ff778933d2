//! When each step of a start happened, by the host's monotonic clock: cheap enough to be always there.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The steps so far.
pub struct Timeline {
    begin: Instant,
    steps: Mutex<Vec<(Step, Instant)>>,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Of the machine process.
    Host(&'static str),
    /// A number that guest software wrote to the port for marks.
    Guest(u8),
}

impl Timeline {
    /// Begins now.
    #[allow(clippy::new_without_default)] // it reads the clock
    pub fn new() -> Timeline {
        Timeline { begin: Instant::now(), steps: Mutex::new(Vec::with_capacity(32)) }
    }

    /// Something has happened on the host's side.
    pub fn step(&self, what: &'static str) {
        let now = Instant::now();
        self.lock().push((Step::Host(what), now));
    }

    /// The guest says that something has happened. It can say so as often as it likes; the first ones are kept.
    pub fn mark(&self, mark: u8) {
        let now = Instant::now();
        let mut steps = self.lock();
        if steps.iter().filter(|(step, _)| matches!(step, Step::Guest(_))).count() < MOST_MARKS {
            steps.push((Step::Guest(mark), now));
        }
    }

    /// All steps, with the time since the beginning.
    pub fn steps(&self) -> Vec<(Step, Duration)> {
        let since = |(step, at): &(Step, Instant)| (*step, at.saturating_duration_since(self.begin));
        self.lock().iter().map(since).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Step, Instant)>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MOST_MARKS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_never_stops_marking_does_not_fill_memory() {
        let timeline = Timeline::new();
        timeline.step("begun");
        (0..1000).for_each(|mark| timeline.mark(mark as u8));
        timeline.step("done");
        let steps = timeline.steps();
        assert_eq!(steps.len(), 2 + MOST_MARKS);
        assert_eq!(steps[1].0, Step::Guest(0));
        assert_eq!(steps.last().unwrap().0, Step::Host("done"));
        assert!(steps.is_sorted_by_key(|(_, at)| *at));
    }
}
