//! Which bytes of a file an owner has locked. The host's kernel knows as well, and tells nobody: without this list locks
//! could not be saved.
//!
//! Pure. Ranges are sorted, do not overlap, and touch only where their kinds differ, as the kernel's own do: so equal
//! locks make equal lists.

use serde::{Deserialize, Serialize};

/// The last byte of a range without an end.
pub const END: u64 = i64::MAX.unsigned_abs();

/// The most ranges of one owner on one file: beyond it the guest is told `ENOLCK`.
pub const MAX_RANGES: usize = 4096;

/// Some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first one.
    pub start: u64,
    /// The last one; [`END`]: however far the file goes.
    pub end: u64,
    /// For the owner alone.
    pub write: bool,
}

/// All that one owner has.
#[derive(Debug, Default)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// As they stand.
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }

    /// Whether one more change has room, whatever it splits.
    pub fn has_room(&self) -> bool {
        self.0.len().saturating_add(2) <= MAX_RANGES
    }

    /// None any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// From `start` to `end` the owner has such a lock now, or none.
    pub fn set(&mut self, start: u64, end: u64, write: Option<bool>) {
        let mut now = Vec::with_capacity(self.0.len().saturating_add(2));
        for held in self.0.drain(..) {
            if held.start < start {
                now.push(Range { end: held.end.min(start.saturating_sub(1)), ..held });
            }
            if held.end > end {
                now.push(Range { start: held.start.max(end.saturating_add(1)), ..held });
            }
        }
        now.extend(write.map(|write| Range { start, end, write }));
        now.sort_unstable_by_key(|range| range.start);
        for range in now {
            match self.0.last_mut() {
                Some(last) if last.write == range.write && last.end.saturating_add(1) == range.start => {
                    last.end = range.end;
                }
                _ => self.0.push(range),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_what_each_byte_says(changes in prop::collection::vec((0u64..40, 0u64..12, 0u8..3), 0..40)) {
            let (mut ranges, mut bytes) = (Ranges::default(), [None; 64]);
            for (start, len, kind) in changes {
                let kind = [None, Some(false), Some(true)][usize::from(kind)];
                ranges.set(start, start + len, kind);
                bytes[start as usize..=(start + len) as usize].fill(kind);
            }
            let mut found = [None; 64];
            for range in ranges.as_slice() {
                prop_assert!(range.start <= range.end);
                found[range.start as usize..=range.end as usize].fill(Some(range.write));
            }
            prop_assert_eq!(found, bytes);
            for pair in ranges.as_slice().windows(2) {
                prop_assert!(pair[0].end + 1 < pair[1].start || pair[0].end < pair[1].start && pair[0].write != pair[1].write);
            }
        }
    }
}
