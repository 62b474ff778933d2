//! Which pages a first start from a template changed, so that later ones have them before they run.

use super::Template;
use crate::machine::MachineError;
use crate::machine::arch::current::layout;
use crate::machine::memory::{self, PAGE};
use crate::{device::Memory, machine::memory::MemoryError};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use vm_memory::{GuestAddress, GuestMemory};

/// Pages of a guest, as ranges of guest addresses in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched(Vec<Range<u64>>);

impl Touched {
    /// Adds the page at `at`, which lies above all others.
    pub fn add(&mut self, at: u64) {
        let end = at.saturating_add(PAGE);
        match self.0.last_mut() {
            Some(last) if last.end == at => last.end = end,
            _ => self.0.push(at..end),
        }
    }

    /// Each stretch of them.
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// How many bytes they are.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end.saturating_sub(range.start)).sum()
    }

    /// Makes them the memory's own: copied where they come from a file, zeroed where from nothing. A host that does not
    /// take the advice does it later, page by page.
    pub(super) fn populate(&self, memory: &Memory) -> Result<(), MachineError> {
        for range in &self.0 {
            let length = range.end.saturating_sub(range.start);
            let outside =
                || MemoryError::Outside { what: "a page to be changed".into(), at: range.start, length };
            let size = usize::try_from(length).map_err(|_| outside())?;
            let place = memory.get_slice(GuestAddress(range.start), size).map_err(|_| outside())?;
            let _ = memory::advise(place.ptr_guard_mut().as_ptr(), size, libc::MADV_POPULATE_WRITE);
        }
        Ok(())
    }
}

impl Template {
    /// The guest's memory: its ranges of guest addresses, each with the address where it is mapped in a process of
    /// which these are the mappings (proc_pid_maps(5)). Ranges of which nothing is seen there are left out.
    pub fn mapped_in(&self, maps: &str) -> io::Result<Vec<(Range<u64>, u64)>> {
        let metadata = self.memory.metadata()?;
        let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
        let identity = [format!("{major:02x}:{minor:02x}"), metadata.ino().to_string()];
        let mut mapped = Vec::new();
        for range in layout::memory(u64::from(self.state.made_from.memory_mib()) << 20) {
            let here = maps.lines().find_map(|line| {
                // "7f00-7f10 rw-p 00001000 fd:00 1234  /path"
                let mut words = line.split_whitespace();
                let begin = words.next()?.split_once('-')?.0;
                let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
                if !identity.iter().all(|part| words.next() == Some(part)) {
                    return None;
                }
                let stretches = &self.state.memory.stretches;
                let stretch = stretches.iter().find(|stretch| stretch.offset == offset)?;
                let into = stretch.at.checked_sub(range.start).filter(|_| range.contains(&stretch.at))?;
                u64::from_str_radix(begin, 16).ok()?.checked_sub(into)
            });
            mapped.extend(here.map(|here| (range, here)));
        }
        Ok(mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn pages_that_lie_side_by_side_are_one_range_and_become_the_memorys_own() {
        let mut touched = Touched::default();
        [0x1000, 0x2000, 0x5000, 0x6000, 0x9000].into_iter().for_each(|at| touched.add(at));
        assert_eq!(touched, Touched(vec![0x1000..0x3000, 0x5000..0x7000, 0x9000..0xa000]));
        assert_eq!(touched.bytes(), 5 * PAGE);
        let memory = memory::map(&[0..0x10000]).unwrap();
        memory.write_slice(&[7; 100], GuestAddress(0x5000)).unwrap();
        touched.populate(&memory).unwrap();
        let mut byte = [0];
        memory.read_slice(&mut byte, GuestAddress(0x5000)).unwrap();
        assert_eq!(byte, [7]);
        touched.add(0x10000);
        assert!(touched.populate(&memory).is_err(), "beyond the memory");
    }
}
