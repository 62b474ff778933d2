//! Loads the guest kernel: an uncompressed ELF vmlinux, whose segments are copied to where they say they belong.
//!
//! Uncompressed, because a compressed kernel costs its decompression at each start and a private copy in each guest.

use crate::device::Memory;
use crate::machine::elf::{self, ElfError, Segment};
use crate::machine::memory::{self, MemoryError, PAGE};
use crate::machine::parts::Part;
use std::io;

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Where it begins to execute.
    pub entry: u64,
    /// The beginning of what it occupies.
    pub start: u64,
    /// The end of what it occupies, its zeroed memory included; page-aligned.
    pub end: u64,
}

/// Loads `part`. The kernel has to lie in the `room` that the architecture has for it.
pub fn load(memory: &Memory, part: &Part, room: std::ops::Range<u64>) -> Result<Kernel, KernelError> {
    let failed = |problem| KernelError { name: part.name().to_owned(), problem };
    let (header, segments) = read(part).map_err(failed)?;
    let kernel = check(&header, &segments, room).map_err(failed)?;
    for segment in &segments {
        // What follows the file's bytes up to the size in memory is zero already: the memory is fresh.
        memory::place(memory, segment.physical, part, segment.offset, segment.file_size)
            .map_err(|source| failed(Problem::Place(source)))?;
        let end = segment.physical.saturating_add(segment.memory_size);
        memory::expect_use(memory, &(segment.physical.saturating_add(segment.file_size)..end));
    }
    Ok(kernel)
}

fn read(part: &Part) -> Result<(elf::Header, Vec<Segment>), Problem> {
    let mut bytes = [0; 0x206];
    let start = bytes.len().min(usize::try_from(part.length()).unwrap_or(usize::MAX));
    let bytes = bytes.get_mut(..start).unwrap_or_default();
    part.read_exact_at(bytes, 0).map_err(Problem::Read)?;
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        return Err(Problem::Compressed);
    }
    let header = elf::header(bytes, part.length())?;
    let range = header.segments.range();
    let mut table = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)];
    part.read_exact_at(&mut table, range.start).map_err(Problem::Read)?;
    Ok((header, elf::segments(&table, part.length())?))
}

/// Decides whether these segments are a kernel that can be started in `room`.
fn check(header: &elf::Header, segments: &[Segment], room: std::ops::Range<u64>) -> Result<Kernel, Problem> {
    if header.machine != elf::MACHINE_X86_64 {
        return Err(Problem::OtherMachine(header.machine));
    }
    if header.kind != elf::TYPE_EXECUTABLE {
        return Err(Problem::NotExecutable);
    }
    let mut occupied: Vec<(u64, u64)> = Vec::with_capacity(segments.len());
    for segment in segments.iter().filter(|segment| segment.memory_size > 0) {
        let end = segment.physical.checked_add(segment.memory_size);
        let Some(end) = end.filter(|end| segment.physical >= room.start && *end <= room.end) else {
            return Err(Problem::Outside {
                at: segment.physical,
                size: segment.memory_size,
                room: (room.start, room.end),
            });
        };
        occupied.push((segment.physical, end));
    }
    occupied.sort_unstable();
    for (one, next) in occupied.iter().zip(occupied.iter().skip(1)) {
        if one.1 > next.0 {
            return Err(Problem::Overlap(next.0));
        }
    }
    let in_code = |segment: &&Segment| {
        segment.executable
            && header.entry.checked_sub(segment.physical).is_some_and(|at| at < segment.file_size)
    };
    if !segments.iter().any(|segment| in_code(&segment)) {
        return Err(Problem::Entry(header.entry));
    }
    let start = occupied.first().map_or(0, |first| first.0);
    let end = occupied.last().map_or(0, |last| last.1);
    Ok(Kernel { entry: header.entry, start, end: end.checked_next_multiple_of(PAGE).unwrap_or(end) })
}

/// A file that cannot be started as a kernel.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be started as a guest kernel")]
pub struct KernelError {
    name: String,
    #[source]
    problem: Problem,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// A bzImage.
    #[error("it is a compressed kernel (bzImage); the uncompressed vmlinux is needed")]
    Compressed,
    /// Damaged, or not ELF at all.
    #[error("it is not an uncompressed kernel (vmlinux)")]
    Elf(#[from] ElfError),
    /// For another architecture.
    #[error("it is for another processor (ELF machine {0})")]
    OtherMachine(u16),
    /// A library, an object file, a position-independent program.
    #[error("it is not an executable at fixed addresses")]
    NotExecutable,
    /// Memory too small, or an address that has no memory.
    #[error(
        "it needs memory from {at:#x} to {:#x}, but the guest has it from {:#x} to {:#x}",
        at.saturating_add(*size), room.0, room.1
    )]
    Outside {
        /// Where the segment is to lie.
        at: u64,
        /// Its size.
        size: u64,
        /// What there is.
        room: (u64, u64),
    },
    /// Two segments at the same place.
    #[error("two of its segments overlap at {0:#x}")]
    Overlap(u64),
    /// No code at the entry.
    #[error("its entry {0:#x} is not inside its code")]
    Entry(u64),
    /// It cannot be put into guest memory.
    #[error("cannot put it into guest memory")]
    Place(#[source] MemoryError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress};

    const ROOM: std::ops::Range<u64> = 0x10_0000..0x400_0000;

    fn text() -> Segment {
        Segment {
            offset: 0x1000,
            file_size: 0x1800,
            physical: 0x100_0000,
            memory_size: 0x1800,
            executable: true,
        }
    }

    fn data() -> Segment {
        Segment {
            offset: 0x3000,
            file_size: 0x10,
            physical: 0x100_2000,
            memory_size: 0x3456,
            executable: false,
        }
    }

    fn header(entry: u64) -> elf::Header {
        let bytes = elf::testing::file(elf::TYPE_EXECUTABLE, entry, &[], &[]);
        elf::header(&bytes, bytes.len() as u64).unwrap()
    }

    fn problem(entry: u64, segments: &[Segment]) -> String {
        check(&header(entry), segments, ROOM).unwrap_err().to_string()
    }

    #[test]
    fn a_kernel_is_loaded_where_its_segments_say() {
        let mut bytes = elf::testing::file(elf::TYPE_EXECUTABLE, 0x100_0040, &[text(), data()], &[]);
        bytes.resize(0x3010, 0);
        bytes[0x1000..0x2800].fill(0xaa);
        bytes[0x3000..0x3010].fill(0xbb);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let part = Part::open(file.path(), "guest kernel").unwrap();
        let memory = memory::map(&[0..64 << 20]).unwrap();
        let kernel = load(&memory, &part, ROOM).unwrap();
        assert_eq!(kernel, Kernel { entry: 0x100_0040, start: 0x100_0000, end: 0x100_6000 });
        let mut seen = [0; 0x2020];
        memory.read_slice(&mut seen, GuestAddress(0x100_0000)).unwrap();
        assert!(seen[..0x1800].iter().all(|byte| *byte == 0xaa));
        assert!(seen[0x1800..0x2000].iter().all(|byte| *byte == 0));
        assert!(seen[0x2000..0x2010].iter().all(|byte| *byte == 0xbb));
        assert!(seen[0x2010..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn segments_outside_memory_are_refused() {
        for (physical, size) in
            [(0, 0x1800), (0x400_0000, 0x1800), (0x3ff_f000, 0x1800), (u64::MAX - 10, 0x1800)]
        {
            let wrong = Segment { physical, memory_size: size, ..text() };
            assert!(problem(0x100_0000, &[wrong]).starts_with("it needs memory from"), "{physical:#x}");
        }
        let huge = Segment { memory_size: u64::MAX, ..text() };
        assert!(problem(0x100_0000, &[huge]).starts_with("it needs memory from"));
    }

    #[test]
    fn overlapping_segments_are_refused() {
        let wrong = Segment { physical: 0x100_17ff, ..data() };
        assert_eq!(problem(0x100_0000, &[wrong, text()]), "two of its segments overlap at 0x10017ff");
    }

    #[test]
    fn an_entry_outside_the_code_is_refused() {
        for entry in [0, 0xff_ffff, 0x100_1800, 0x100_2000, u64::MAX] {
            assert!(problem(entry, &[text(), data()]).starts_with("its entry"), "{entry:#x}");
        }
        assert!(problem(0x100_0000, &[]).starts_with("its entry"));
    }

    #[test]
    fn files_that_are_no_kernel_say_what_they_are() {
        let said = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            let part = Part::open(file.path(), "guest kernel").unwrap();
            let memory = memory::map(&[0..64 << 20]).unwrap();
            crate::error::chain(&load(&memory, &part, ROOM).unwrap_err())
        };
        assert!(
            said(b"#!/bin/sh\n").ends_with("it is not an uncompressed kernel (vmlinux): not an ELF file")
        );
        let mut compressed = vec![0; 0x1000];
        compressed[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(said(&compressed).contains("bzImage"));
        let shared = elf::testing::file(elf::TYPE_SHARED, 0, &[text()], &[]);
        assert!(said(&shared).contains("does not lie inside the file"));
        let mut shared = elf::testing::file(elf::TYPE_SHARED, 0, &[text()], &[]);
        shared.resize(0x4000, 0);
        assert!(said(&shared).contains("not an executable at fixed addresses"));
    }
}
