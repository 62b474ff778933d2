//! The guest's memory: mappings of our own address space that KVM shows to the guest.
//!
//! Fresh memory is anonymous and private: a page exists from the guest's first touch on. Parts of files (the kernel,
//! the initrd) are mapped over it copy-on-write, so that all guests of a host share their pages until one writes to
//! them. A start from a template will map the template's memory file in the same way: [`map`] is the only place that
//! decides what backs the memory.
//!
//! It is never offered for merging between guests (a side channel) and never part of a core dump.
#![allow(unsafe_code)] // mmap and madvise over memory that the guest uses

use super::parts::Part;
use crate::device::Memory;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

/// What backs the memory.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// Nothing yet: pages of zeroes, made when they are first touched.
    Fresh,
}

/// Maps guest memory for the given ranges of guest addresses.
pub fn map(ranges: &[Range<u64>], source: Source) -> Result<Memory, MemoryError> {
    let Source::Fresh = source;
    let small =
        ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>() < LARGE_PAGES_FROM;
    let mut regions = Vec::with_capacity(ranges.len());
    for range in ranges {
        let size = range.end.saturating_sub(range.start);
        let failed = |source| MemoryError::Map { mib: size >> 20, source };
        let length = usize::try_from(size).map_err(|_| failed(MmapRegionError::InvalidPointer))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping =
            MmapRegion::build(None, length, libc::PROT_READ | libc::PROT_WRITE, flags).map_err(failed)?;
        advise(mapping.as_ptr(), length, libc::MADV_DONTDUMP)?;
        if small {
            advise(mapping.as_ptr(), length, libc::MADV_NOHUGEPAGE)?;
        }
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start));
        regions.push(region.ok_or(MemoryError::Layout)?);
    }
    Memory::from_regions(regions).map_err(|_| MemoryError::Layout)
}

/// Puts `length` bytes of `part`, from `offset` in it, at guest address `at`. Whole pages are mapped where file and
/// guest address are aligned alike; the edges, and everything otherwise, are copied.
///
/// Only before the guest runs: it replaces the pages that were there.
pub fn place(memory: &Memory, at: u64, part: &Part, offset: u64, length: u64) -> Result<(), MemoryError> {
    let outside = || MemoryError::Outside { what: part.name().to_owned(), at, length };
    if !memory.check_range(GuestAddress(at), usize::try_from(length).map_err(|_| outside())?) {
        return Err(outside());
    }
    let in_file = part.offset().checked_add(offset).ok_or_else(outside)?;
    let end = at.checked_add(length).ok_or_else(outside)?;
    let first = at.checked_next_multiple_of(PAGE).ok_or_else(outside)?;
    let last = end & !PAGE_MASK;
    if in_file & PAGE_MASK != at & PAGE_MASK || first >= last {
        return copy(memory, at, part, offset, length);
    }
    let head = first.wrapping_sub(at);
    let body = last.wrapping_sub(first);
    copy(memory, at, part, offset, head)?;
    map_pages(memory, first, part, in_file.wrapping_add(head), body)?;
    copy(memory, last, part, offset.wrapping_add(head).wrapping_add(body), end.wrapping_sub(last))
}

/// Maps whole pages of a file over guest memory.
fn map_pages(memory: &Memory, at: u64, part: &Part, in_file: u64, length: u64) -> Result<(), MemoryError> {
    let outside = || MemoryError::Outside { what: part.name().to_owned(), at, length };
    let size = usize::try_from(length).map_err(|_| outside())?;
    // One slice, hence one region, hence one contiguous mapping of ours.
    let target = memory.get_slice(GuestAddress(at), size).map_err(|_| outside())?;
    let target = target.ptr_guard_mut();
    let failed = |source| MemoryError::MapPart { what: part.name().to_owned(), source };
    let in_file = libc::off_t::try_from(in_file).map_err(|_| outside())?;
    // SAFETY: the target is `size` bytes inside one of the mappings made by `map`, page-aligned at both ends (guest
    // addresses of regions and `at` are), owned by the region and referenced by nobody: the guest does not run yet.
    // MAP_FIXED replaces only these pages; the region's later munmap covers them as well.
    let mapped = unsafe {
        libc::mmap(
            target.as_ptr().cast(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            part.file().as_raw_fd(),
            in_file,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(failed(io::Error::last_os_error()));
    }
    advise(target.as_ptr(), size, libc::MADV_DONTDUMP)
}

/// Copies bytes of a file into guest memory: the host's kernel does, straight to where they belong.
fn copy(memory: &Memory, at: u64, part: &Part, offset: u64, length: u64) -> Result<(), MemoryError> {
    let outside = || MemoryError::Outside { what: part.name().to_owned(), at, length };
    let failed = |source| MemoryError::Read { what: part.name().to_owned(), source };
    let mut in_file = part.offset().checked_add(offset).ok_or_else(outside)?;
    let mut at = at;
    let mut left = usize::try_from(length).map_err(|_| outside())?;
    while left > 0 {
        let target = memory.get_slice(GuestAddress(at), left).map_err(|_| outside())?;
        let from = libc::off_t::try_from(in_file).map_err(|_| outside())?;
        // SAFETY: the target is `left` bytes of guest memory, which is ours to write and which no reference points to.
        let read = unsafe {
            libc::pread(part.file().as_raw_fd(), target.ptr_guard_mut().as_ptr().cast(), left, from)
        };
        let read = match usize::try_from(read) {
            Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(failed(error)),
            },
        };
        left = left.saturating_sub(read);
        at = at.saturating_add(read as u64);
        in_file = in_file.saturating_add(read as u64);
    }
    Ok(())
}

fn advise(at: *mut u8, length: usize, advice: libc::c_int) -> Result<(), MemoryError> {
    // SAFETY: the callers pass a mapping of theirs; the advice given here changes no content.
    match unsafe { libc::madvise(at.cast(), length, advice) } {
        0 => Ok(()),
        _ => Err(MemoryError::Advise(io::Error::last_os_error())),
    }
}

/// The regions as KVM wants them: guest address, our address, size.
pub fn slots(memory: &Memory) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
    memory.iter().map(|region| {
        let ours = region.as_ptr() as u64;
        (region.start_addr().0, ours, region.len())
    })
}

/// Why guest memory could not be made or filled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No address space, or more than the host's overcommit policy allows.
    #[error("cannot reserve {mib} MiB of guest memory")]
    Map {
        /// How much.
        mib: u64,
        /// Why not.
        #[source]
        source: MmapRegionError,
    },
    /// The ranges make no sense; a mistake of ours.
    #[error("guest memory has an impossible layout")]
    Layout,
    /// Advice was not taken.
    #[error("the host takes no advice about guest memory")]
    Advise(#[source] io::Error),
    /// Something does not fit.
    #[error("{what}: {length:#x} bytes at {at:#x} do not lie inside the guest's memory")]
    Outside {
        /// What was to be placed.
        what: String,
        /// Where.
        at: u64,
        /// How long it is.
        length: u64,
    },
    /// A file cannot be mapped.
    #[error("cannot map {what} into guest memory")]
    MapPart {
        /// Which.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// Which.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The page size that mappings and kernel images are aligned to.
pub const PAGE: u64 = 4096;
/// Guests with at least so much memory use large pages as the host's policy says. In a small one they cost more memory
/// than they are worth: a guest of 256 MiB took 43 MiB to its first process with them and 35 MiB without, in the
/// same time.
const LARGE_PAGES_FROM: u64 = 1 << 30;
const PAGE_MASK: u64 = PAGE - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    fn part(bytes: &[u8]) -> (tempfile::NamedTempFile, Part) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let part = Part::open(file.path(), "test").unwrap();
        (file, part)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn a_part_is_placed_with_its_edges_and_nothing_else_changes() {
        let bytes = pattern(5 * 4096);
        let (_file, part) = part(&bytes);
        // (guest address, offset, length): aligned alike, aligned differently, inside one page, to the very end.
        for (at, offset, length) in [
            (0x2064u64, 0x64u64, 0x3f00u64),
            (0x2000, 0x10, 0x3000),
            (0x2010, 0x10, 0x20),
            (0x3000, 0, 0x5000),
        ] {
            let memory = map(&[0..0x8000], Source::Fresh).unwrap();
            memory.write_slice(&[0xee; 0x8000], GuestAddress(0)).unwrap();
            place(&memory, at, &part, offset, length).unwrap();
            let mut seen = vec![0; 0x8000];
            memory.read_slice(&mut seen, GuestAddress(0)).unwrap();
            let mut expected = vec![0xee; 0x8000];
            let (at, offset, length) = (at as usize, offset as usize, length as usize);
            expected[at..at + length].copy_from_slice(&bytes[offset..offset + length]);
            assert!(seen == expected, "{at:#x} {offset:#x} {length:#x}");
        }
    }

    #[test]
    fn writes_by_the_guest_do_not_reach_the_file() {
        let (file, part) = part(&pattern(8192));
        let memory = map(&[0..0x4000], Source::Fresh).unwrap();
        place(&memory, 0, &part, 0, 8192).unwrap();
        memory.write_slice(&[0; 8192], GuestAddress(0)).unwrap();
        assert!(std::fs::read(file.path()).unwrap() == pattern(8192));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (_file, part) = part(&pattern(8192));
        let memory = map(&[0..0x4000, 0x8000..0xa000], Source::Fresh).unwrap();
        for at in [0x3000, 0x4000, 0x9000, u64::MAX - 100] {
            let error = place(&memory, at, &part, 0, 8192).unwrap_err();
            assert!(matches!(error, MemoryError::Outside { .. }), "{at:#x}: {error}");
        }
    }

    #[test]
    fn a_large_guest_costs_nothing_before_it_runs() {
        let memory = map(&[0..3 << 30, 4 << 30..513 << 30], Source::Fresh).unwrap();
        assert_eq!(slots(&memory).map(|(_, _, size)| size).sum::<u64>(), 512 << 30);
    }
}
