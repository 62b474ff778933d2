//! The guest's memory, as every device sees it: stretches of guest addresses, the last of which may be open in part, from its
//! beginning up to where memory has been plugged so far.
//!
//! What is not open is not memory, for all devices alike: an address in it cannot be reached, as if nothing were there.
//! So one list of stretches serves a machine from its beginning to its end, in every device's hands, although the machine
//! grows. A stretch opens further and never closes: an access that is under way stays good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::Result;
use vm_memory::{
    Address, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionMmap, MemoryRegionAddress, VolatileSlice,
};

/// The guest's memory. A clone is the same memory.
#[derive(Debug, Clone)]
pub struct Memory {
    /// In ascending order; two or three.
    regions: Arc<[Region]>,
}

impl Memory {
    /// Memory of these stretches, if they are in ascending order and have no address in common.
    pub fn from_regions(regions: Vec<Region>) -> Option<Memory> {
        let ends = regions.iter().map(|region| region.start_addr().0.checked_add(region.capacity()));
        let ordered = ends
            .zip(regions.iter().skip(1))
            .all(|(end, next)| end.is_some_and(|end| end <= next.start_addr().0));
        ordered.then(|| Memory { regions: regions.into() })
    }
}

impl GuestMemory for Memory {
    type R = Region;

    fn num_regions(&self) -> usize {
        self.regions.len()
    }

    /// One that is found has the address, open: those who call count on it.
    fn find_region(&self, address: GuestAddress) -> Option<&Region> {
        self.regions.iter().find(|region| region.to_region_addr(address).is_some())
    }

    fn iter(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter()
    }
}

/// A stretch of guest memory.
#[derive(Debug)]
pub struct Region {
    mapping: GuestRegionMmap<()>,
    /// How many bytes of it are open; never more than the mapping has.
    open: AtomicU64,
}

impl Region {
    /// One that is open from end to end.
    pub fn open(mapping: GuestRegionMmap<()>) -> Region {
        let open = AtomicU64::new(mapping.len());
        Region { mapping, open }
    }

    /// One of which nothing is open yet.
    pub fn closed(mapping: GuestRegionMmap<()>) -> Region {
        Region { mapping, open: AtomicU64::new(0) }
    }

    /// Opens it up to `length` bytes from its beginning, if so much is not open already. What is opened must be accessible
    /// from now on.
    pub fn open_up_to(&self, length: u64) {
        self.open.fetch_max(length.min(self.mapping.len()), Ordering::AcqRel);
    }

    /// How long it can become.
    pub fn capacity(&self) -> u64 {
        self.mapping.len()
    }

    /// Where it lies in our own address space, open or not.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    fn start_addr(&self) -> GuestAddress {
        self.mapping.start_addr()
    }

    /// Of one that is closed, its first address: which is not in it either, as all who ask by address find.
    fn last_addr(&self) -> GuestAddress {
        self.start_addr().unchecked_add(self.len().saturating_sub(1))
    }

    fn bitmap(&self) -> BS<'_, ()> {
        self.mapping.bitmap()
    }

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8> {
        let within = self.check_address(address).ok_or(GuestMemoryError::InvalidBackendAddress)?;
        self.mapping.get_host_address(within)
    }

    fn get_slice(&self, offset: MemoryRegionAddress, count: usize) -> Result<VolatileSlice<'_, BS<'_, ()>>> {
        let end = offset.0.checked_add(count as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        self.mapping.get_slice(offset, count)
    }
}

impl GuestMemoryRegionBytes for Region {}

/// Memory that is open from end to end, for tests.
#[cfg(any(test, fuzzing))]
#[allow(clippy::expect_used, reason = "a test ends by panicking")]
pub fn whole(ranges: &[(u64, usize)]) -> Memory {
    let regions = ranges.iter().map(|(at, length)| {
        let mapping = GuestRegionMmap::from_range(GuestAddress(*at), *length, None);
        Region::open(mapping.expect("memory for a test"))
    });
    Memory::from_regions(regions.collect()).expect("memory for a test")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    const AT: u64 = 0x10000;

    #[test]
    fn stretches_are_in_order_and_apart_open_or_not() {
        let closed =
            |at, length| Region::closed(GuestRegionMmap::from_range(GuestAddress(at), length, None).unwrap());
        let made = |ranges: &[(u64, usize)]| {
            Memory::from_regions(ranges.iter().map(|(at, length)| closed(*at, *length)).collect()).is_some()
        };
        assert!(made(&[(0, 0x1000), (0x1000, 0x1000), (AT, 0x1000)]));
        assert!(!made(&[(0, 0x2000), (0x1000, 0x1000)]) && !made(&[(AT, 0x1000), (0, 0x1000)]));
    }

    #[test]
    fn what_is_not_open_is_not_memory_and_what_is_opened_is_for_all_who_have_the_list() {
        let mapping = |at, length| GuestRegionMmap::from_range(GuestAddress(at), length, None).unwrap();
        let memory =
            Memory::from_regions(vec![Region::open(mapping(0, 0x1000)), Region::closed(mapping(AT, 0x4000))])
                .unwrap();
        let of_a_device = memory.clone();
        let reaches = |at: u64, length: usize| {
            let by_slice = of_a_device.get_slice(GuestAddress(at), length).is_ok();
            let by_write = of_a_device.write_slice(&vec![1; length], GuestAddress(at)).is_ok();
            let by_host = length == 0 || of_a_device.get_host_address(GuestAddress(at)).is_ok();
            assert!(by_slice == by_write && (by_host || !by_slice), "{at:#x} {length}");
            by_slice
        };
        assert!(reaches(0, 0x1000) && !reaches(0, 0x1001));
        for (at, length) in [(AT, 1), (AT, 0x4000), (AT + 0x3fff, 1), (AT - 1, 2)] {
            assert!(!reaches(at, length), "{at:#x} {length}");
        }
        assert!(!of_a_device.address_in_range(GuestAddress(AT)));
        let region = memory.iter().last().unwrap();
        region.open_up_to(0x2000);
        assert!(reaches(AT, 0x2000) && reaches(AT + 0x1fff, 1));
        assert!(!reaches(AT, 0x2001) && !reaches(AT + 0x2000, 1) && !reaches(AT + 0x1fff, 2));
        // Never back, and never beyond what is mapped.
        region.open_up_to(0x1000);
        assert!(reaches(AT, 0x2000));
        region.open_up_to(u64::MAX);
        assert!(reaches(AT, 0x4000) && !reaches(AT, 0x4001));
    }
}
