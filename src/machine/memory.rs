//! The guest's memory: mappings of our own address space that KVM shows to the guest.
//!
//! Fresh memory is anonymous and private: a page exists from the guest's first touch on. What a start is sure to fill is
//! there before it ([`expect_use`]), in large pages: an exit for each of its small pages was two thirds of a start. For the
//! same reason kernel and initrd are copied into it, not mapped from their files: a kernel patches nearly all of its text
//! when it starts, and then each page of it costs two exits and a copy, one by one. A start from a template maps what the
//! template's memory held ([`super::template`]): all such guests share its pages until one writes to them.
//!
//! A guest may get more while it runs ([`super::growth`]): the room for that is address space which nobody can reach,
//! neither the guest nor a device, until it is opened ([`open`]).
//!
//! It is never offered for merging between guests (a side channel) and never part of a core dump. It is never unmapped
//! either: it goes with the process.
#![allow(unsafe_code)] // mmap and madvise over memory that the guest uses

use super::parts::Part;
use crate::device::{Memory, Region};
use std::io;
use std::ops::Range;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

/// Maps guest memory for the given ranges of guest addresses: pages of zeroes, made when they are first touched.
pub fn map(ranges: &[Range<u64>]) -> Result<Memory, MemoryError> {
    map_with_room(ranges, &(0..0))
}

/// The same, and room for more above them, if there is to be any.
pub fn map_with_room(ranges: &[Range<u64>], room: &Range<u64>) -> Result<Memory, MemoryError> {
    let small = size(ranges.iter()) < LARGE_PAGES_FROM;
    let mut regions = Vec::with_capacity(ranges.len().saturating_add(1));
    for range in ranges {
        let mapping = map_one(range, PROTECTION)?;
        if small {
            advise(mapping.as_ptr(), mapping.size(), libc::MADV_NOHUGEPAGE)?;
        }
        regions.push(Region::open(mapping));
    }
    if !room.is_empty() {
        regions.push(Region::closed(map_one(room, libc::PROT_NONE)?));
    }
    Memory::from_regions(regions).ok_or(MemoryError::Layout)
}

fn map_one(range: &Range<u64>, protection: libc::c_int) -> Result<GuestRegionMmap<()>, MemoryError> {
    let size = size(std::iter::once(range));
    let failed = |source| MemoryError::Map { mib: size >> 20, source };
    let length = usize::try_from(size).map_err(|_| failed(MmapRegionError::InvalidPointer))?;
    let ours = reserve(length, protection).map_err(|error| failed(MmapRegionError::Mmap(error)))?;
    // SAFETY: it is `length` bytes of a mapping made for this region, which nobody unmaps.
    let mapping = unsafe { MmapRegion::build_raw(ours, length, protection, FLAGS) }.map_err(failed)?;
    advise(mapping.as_ptr(), length, libc::MADV_DONTDUMP)?;
    GuestRegionMmap::new(mapping, GuestAddress(range.start)).ok_or(MemoryError::Layout)
}

fn size<'a>(ranges: impl Iterator<Item = &'a Range<u64>>) -> u64 {
    ranges.map(|range| range.end.saturating_sub(range.start)).sum()
}

/// Makes `part` of the guest addresses that were mapped as room into memory: it begins where what was opened before ends.
/// `show` is given our address of it, and shows it to the guest; devices reach it when that is done.
pub fn open<E: From<MemoryError>>(
    memory: &Memory,
    part: &Range<u64>,
    show: impl FnOnce(u64) -> Result<(), E>,
) -> Result<(), E> {
    let length = size(std::iter::once(part));
    let outside = || MemoryError::Outside { what: "room for more memory".into(), at: part.start, length };
    let region = memory.iter().last().filter(|room| room.start_addr().0 <= part.start).ok_or_else(outside)?;
    let into = part.start.saturating_sub(region.start_addr().0);
    let to = into.checked_add(length).filter(|to| into == region.len() && *to <= region.capacity());
    let to = to.ok_or_else(outside)?;
    let (Ok(skip), Ok(bytes)) = (usize::try_from(into), usize::try_from(length)) else {
        return Err(outside().into());
    };
    let place = region.as_ptr().wrapping_add(skip);
    // SAFETY: it lies in the region's mapping, and nothing in it has been accessible to anybody.
    if unsafe { libc::mprotect(place.cast(), bytes, PROTECTION) } != 0 {
        let source = MmapRegionError::Mmap(io::Error::last_os_error());
        return Err(MemoryError::Map { mib: length >> 20, source }.into());
    }
    let now: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
    if now.saturating_add(length) < LARGE_PAGES_FROM {
        advise(place, bytes, libc::MADV_NOHUGEPAGE)?;
    }
    show(place as u64)?;
    region.open_up_to(to);
    Ok(())
}

/// Maps fresh memory at a multiple of the large page size, as guest addresses are counted: otherwise KVM could not map a
/// large page of ours as one of the guest's. Linux does so by itself since 6.7.
fn reserve(length: usize, protection: libc::c_int) -> io::Result<*mut u8> {
    let too_long = || io::Error::from(io::ErrorKind::OutOfMemory);
    let whole = length.checked_add(LARGE_PAGE).ok_or_else(too_long)?;
    // SAFETY: a new mapping, at no address that is in use.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), whole, protection, FLAGS, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let at = at.cast::<u8>();
    let before = at.align_offset(LARGE_PAGE);
    let aligned = at.wrapping_add(before);
    let after = aligned.wrapping_add(length);
    for (spare, size) in [(at, before), (after, LARGE_PAGE.saturating_sub(before))] {
        if size > 0 {
            // SAFETY: the two ends of the new mapping, which nobody knows of.
            unsafe { libc::munmap(spare.cast(), size) };
        }
    }
    Ok(aligned)
}

/// Makes the memory of `range` now, because the guest is going to use nearly all of it: in large pages as far as they lie
/// in it. A host that does not take the advice makes it later, or in small pages.
pub fn expect_use(memory: &Memory, range: &Range<u64>) {
    let whole = range.start.checked_next_multiple_of(LARGE_PAGE as u64).unwrap_or(range.end);
    for (advice, part) in [
        (libc::MADV_HUGEPAGE, whole..range.end & !LARGE_PAGE_MASK),
        (libc::MADV_POPULATE_WRITE, range.start & !PAGE_MASK..range.end & !PAGE_MASK),
    ] {
        let length = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(0);
        let place = memory.get_slice(GuestAddress(part.start), length);
        if let Some(place) = place.ok().filter(|place| !place.is_empty()) {
            let _ = advise(place.ptr_guard_mut().as_ptr(), length, advice);
        }
    }
}

/// Reads `length` bytes of `part`, from `offset` in it, to guest address `at`, straight from the file's pages into the
/// guest's. Large pages that they fill by half or more are made before.
pub fn place(memory: &Memory, at: u64, part: &Part, offset: u64, length: u64) -> Result<(), MemoryError> {
    let outside = || MemoryError::Outside { what: part.name().to_owned(), at, length };
    let end = at.checked_add(length).ok_or_else(outside)?;
    let place = memory.get_slice(GuestAddress(at), usize::try_from(length).map_err(|_| outside())?);
    let place = place.map_err(|_| outside())?;
    let mut large = at & !LARGE_PAGE_MASK;
    while large < end {
        let next = large.saturating_add(LARGE_PAGE as u64);
        if next.min(end).saturating_sub(large.max(at)) >= LARGE_PAGE as u64 / 2 {
            expect_use(memory, &(large..next));
        }
        large = next;
    }
    let guard = place.ptr_guard_mut();
    // SAFETY: `place` was checked to be so long; the guest does not run yet, and nobody else holds a reference to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(guard.as_ptr(), place.len()) };
    part.read_exact_at(bytes, offset)
        .map_err(|source| MemoryError::Read { what: part.name().to_owned(), source })
}

pub(super) fn advise(at: *mut u8, length: usize, advice: libc::c_int) -> Result<(), MemoryError> {
    // SAFETY: the callers pass a mapping of theirs; the advice given here changes no content.
    match unsafe { libc::madvise(at.cast(), length, advice) } {
        0 => Ok(()),
        _ => Err(MemoryError::Advise(io::Error::last_os_error())),
    }
}

/// What is open of the regions, as KVM wants it: guest address, our address, size.
pub fn slots(memory: &Memory) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
    memory.iter().filter(|region| region.len() > 0).map(|region| {
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
/// The size of a large page, a host's and a guest's alike.
const LARGE_PAGE: usize = 2 << 20;
const LARGE_PAGE_MASK: u64 = LARGE_PAGE as u64 - 1;
pub(super) const PROTECTION: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

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
            let memory = map(&[0..0x8000]).unwrap();
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
    fn memory_lies_at_a_multiple_of_the_large_page_size() {
        for size in [0x8000, 3 << 20, 1 << 30] {
            let memory = map(&[0..size]).unwrap();
            for (guest, ours, _) in slots(&memory) {
                assert_eq!((ours - guest) % LARGE_PAGE as u64, 0, "{size:#x}");
            }
        }
    }

    /// A core dump of the machine process, should the host make one after all, holds nothing of the guest.
    #[test]
    fn memory_is_left_out_of_core_dumps() {
        let memory = map(&[0..0x8000, 0x10_0000..0x20_0000]).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        for (_, ours, size) in slots(&memory) {
            let mut inside = false;
            let mut flags = None;
            for line in maps.lines() {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                let number = |text| u64::from_str_radix(text, 16);
                if let Some((Ok(from), Ok(to))) = range.map(|(from, to)| (number(from), number(to))) {
                    inside = from <= ours && ours + size <= to;
                } else if let Some(found) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                    flags = Some(found.to_owned());
                }
            }
            let flags = flags.expect("a mapping of its own, whose flags differ from its neighbours'");
            assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
        }
    }

    #[test]
    fn what_is_expected_to_be_used_may_lie_anywhere() {
        let memory = map(&[0..8 << 20, 16 << 20..20 << 20]).unwrap();
        memory.write_slice(&[0xee; 0x3000], GuestAddress(0x10_0000)).unwrap();
        for range in
            [0..8 << 20, 0x10_1234..0x10_1235, 4 << 20..18 << 20, 5..5, 1 << 40..2 << 40, 9..u64::MAX]
        {
            expect_use(&memory, &range);
        }
        let mut seen = [0; 0x3000];
        memory.read_slice(&mut seen, GuestAddress(0x10_0000)).unwrap();
        assert!(seen == [0xee; 0x3000], "advice changes nothing");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (_file, part) = part(&pattern(8192));
        let memory = map(&[0..0x4000, 0x8000..0xa000]).unwrap();
        for at in [0x3000, 0x4000, 0x9000, u64::MAX - 100] {
            let error = place(&memory, at, &part, 0, 8192).unwrap_err();
            assert!(matches!(error, MemoryError::Outside { .. }), "{at:#x}: {error}");
        }
    }

    #[test]
    fn room_is_nobodys_until_it_is_opened_bit_by_bit() {
        const MIB: u64 = 1 << 20;
        let memory = map_with_room(&[0..4 * MIB], &(16 * MIB..32 * MIB)).unwrap();
        let (before, _) = (slots(&memory).count(), assert_eq!(memory.num_regions(), 2));
        let open = |from: u64, to: u64| {
            let mut shown = None;
            let opened: Result<(), MemoryError> = open(&memory, &(from * MIB..to * MIB), |ours| {
                shown = Some(ours);
                Ok(())
            });
            assert_eq!(opened.is_ok(), shown.is_some());
            opened.is_ok()
        };
        let write = |at: u64| memory.write_slice(&[7; 64], GuestAddress(at)).is_ok();
        assert!(!write(16 * MIB) && before == 1);
        assert!(!open(18, 20), "not at its beginning");
        assert!(open(16, 18) && write(16 * MIB) && write(18 * MIB - 64) && !write(18 * MIB - 63));
        assert!(!open(16, 18) && !open(20, 22) && !open(18, 34) && !open(0, 2));
        assert!(open(18, 32) && write(18 * MIB - 32) && write(32 * MIB - 64) && !write(32 * MIB));
        let seen: Vec<_> = slots(&memory).map(|(guest, _, size)| (guest, size)).collect();
        assert_eq!(seen, [(0, 4 * MIB), (16 * MIB, 16 * MIB)]);
        // One that the guest was not shown is not opened, and can be tried again.
        let memory = map_with_room(&[0..4 * MIB], &(16 * MIB..32 * MIB)).unwrap();
        let part = 16 * MIB..18 * MIB;
        super::open(&memory, &part, |_| Err(MemoryError::Layout)).unwrap_err();
        assert!(memory.get_slice(GuestAddress(16 * MIB), 1).is_err());
        super::open::<MemoryError>(&memory, &part, |_| Ok(())).unwrap();
        assert!(memory.get_slice(GuestAddress(16 * MIB), 1).is_ok());
    }

    #[test]
    fn a_large_guest_costs_nothing_before_it_runs() {
        let memory = map(&[0..3 << 30, 4 << 30..513 << 30]).unwrap();
        assert_eq!(slots(&memory).map(|(_, _, size)| size).sum::<u64>(), 512 << 30);
    }
}
