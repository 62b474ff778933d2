//! Memory that the guest does not need goes back to the host.

use crate::device::Memory;
use vm_memory::{GuestAddress, GuestMemory};

/// Drops the whole pages of a block, if it lies in memory.
#[allow(unsafe_code)]
pub(super) fn release(memory: &Memory, at: GuestAddress, length: u64) {
    let end = at.0.saturating_add(length) & !(PAGE - 1);
    let Some(start) = at.0.checked_next_multiple_of(PAGE) else { return };
    let Some(length) = end.checked_sub(start).and_then(|length| usize::try_from(length).ok()) else { return };
    let Ok(place) = memory.get_slice(GuestAddress(start), length) else { return };
    if place.is_empty() {
        return;
    }
    let guard = place.ptr_guard_mut();
    // SAFETY: `place` is so much of the guest's memory, private to it, whole pages of it. Whoever reads or writes
    // there meanwhile, by way of volatile accesses as everyone here, finds zeroes (or what a template had there), as if
    // the guest had written them. A host that refuses keeps the pages, which is no worse than before.
    unsafe { libc::madvise(guard.as_ptr().cast(), place.len(), libc::MADV_DONTNEED) };
}

const PAGE: u64 = 4096;
