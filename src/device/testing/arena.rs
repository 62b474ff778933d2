//! Guest memory for rings and buffers: first fit, freed pieces are joined again.

use std::collections::BTreeMap;
use std::ops::Range;

pub(super) struct Arena {
    /// Free pieces: start, length.
    free: BTreeMap<u64, u64>,
}

impl Arena {
    pub(super) fn new(range: Range<u64>) -> Arena {
        Arena { free: BTreeMap::from([(range.start, range.end - range.start)]) }
    }

    /// A piece of at least `length` bytes (rounded up to 16), aligned to 16.
    pub(super) fn take(&mut self, length: u64) -> u64 {
        let length = rounded(length);
        let found = self.free.iter().find(|(_, free)| **free >= length).map(|(start, free)| (*start, *free));
        let (start, free) = found.expect("the test's guest memory is large enough");
        self.free.remove(&start);
        if free > length {
            self.free.insert(start + length, free - length);
        }
        start
    }

    /// Gives a piece back.
    pub(super) fn give(&mut self, start: u64, length: u64) {
        let (mut start, mut length) = (start, rounded(length));
        if let Some(after) = self.free.remove(&(start + length)) {
            length += after;
        }
        if let Some((before, size)) = self.free.range(..start).next_back().map(|(at, size)| (*at, *size))
            && before + size == start
        {
            self.free.remove(&before);
            start = before;
            length += size;
        }
        self.free.insert(start, length);
    }
}

fn rounded(length: u64) -> u64 {
    length.max(1).next_multiple_of(16)
}
