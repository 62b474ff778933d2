//! Where things lie in the guest's physical address space.
//!
//! ```text
//!   0x0000_0500  GDT, only until the kernel loads its own
//!   0x0000_7000  zero page (boot parameters)
//!   0x0000_9000  page tables, only until the kernel has its own
//!   0x0002_0000  kernel command line
//!   0x0009_fc00  MP table, in the last KiB of base memory, where kernels look for it
//!   0x000a_0000  nothing (video memory and ROMs on old machines)
//!   0x0010_0000  memory; the kernel where its file says, the initrd behind it
//!   0xc000_0000  no memory: devices at DEVICES, IO-APIC, local APIC, KVM's own pages
//! 0x1_0000_0000  the rest of memory
//!    behind it   room for memory that is plugged while the guest runs
//! ```

use std::ops::Range;

/// Ranges of guest memory for a guest of `bytes`.
pub fn memory(bytes: u64) -> Vec<Range<u64>> {
    match bytes.checked_sub(HOLE.start) {
        None | Some(0) => vec![0..bytes],
        Some(rest) => vec![0..HOLE.start, HOLE.end..HOLE.end.saturating_add(rest)],
    }
}

/// Where memory may be plugged in a guest that began with `bytes`, up to `most` in all; empty if that is no more than it
/// has. It may be somewhat larger than that: both ends are multiples of what any Linux takes for a memory block.
pub fn room(bytes: u64, most: u64) -> Range<u64> {
    let end = memory(bytes).last().map_or(0, |last| last.end);
    let start = end.max(HOLE.end).checked_next_multiple_of(MEMORY_BLOCK);
    let size = most.saturating_sub(bytes).checked_next_multiple_of(MEMORY_BLOCK);
    match (start, size) {
        (Some(start), Some(size)) => start..start.saturating_add(size).min(ROOM_END).max(start),
        _ => 0..0,
    }
}

/// What a kernel that ends at `kernel_end` fills on its way to its first process, beside the memory that it and the initrd
/// lie in: its descriptors of all pages, 64 bytes each, with its hash tables below them at the end of memory; and where
/// its first allocations lie. That was looked at (kernel 6.12): nearly every page of it is used.
pub fn filled_early(bytes: u64, kernel_end: u64) -> Vec<Range<u64>> {
    let end = memory(bytes).last().map_or(0, |last| last.end);
    let before_end = |distance: u64| end.saturating_sub(distance);
    let [lowest, low] = FIRST_ALLOCATIONS;
    vec![
        lowest,
        low,
        kernel_end..kernel_end.saturating_add(BEHIND_KERNEL),
        before_end((bytes >> 6).saturating_add(TABLES))..before_end(2 << 20),
        before_end(1 << 20)..end,
    ]
}

/// No memory here.
pub const HOLE: Range<u64> = 3 << 30..4 << 30;
/// The global descriptor table.
pub const GDT: u64 = 0x500;
/// The zero page.
pub const ZERO_PAGE: u64 = 0x7000;
/// Three pages: PML4, PDPT, PD.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel command line, and the room for it.
pub const COMMAND_LINE: Range<u64> = 0x2_0000..0x2_0800;
/// How much of it may be used: a kernel puts up to 128 bytes of its own before it in a buffer of that size.
pub const COMMAND_LINE_MOST: usize = 0x780;
/// The MP table: the last KiB of base memory.
pub const MP_TABLE: Range<u64> = 0x9_fc00..0xa_0000;
/// Memory that a kernel may be loaded to begins here.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// The largest memory block of Linux: it plugs memory in blocks of 128 MiB, and of up to 2 GiB when it began with 64 GiB and more.
const MEMORY_BLOCK: u64 = 2 << 30;
/// Processors that KVM runs on have 39 bits of physical address and more.
const ROOM_END: u64 = 1 << 39;
const FIRST_ALLOCATIONS: [Range<u64>; 2] = [1 << 20..2 << 20, 8 << 20..14 << 20];
const BEHIND_KERNEL: u64 = 800 << 10;
const TABLES: u64 = 4 << 20;
/// The first virtio-mmio slot.
pub const DEVICES: u64 = 0xd000_0000;
/// Bytes of a virtio-mmio slot.
pub const DEVICE_SIZE: u64 = 0x1000;
/// How many virtio-mmio slots there are, and the interrupt line of the first.
pub const DEVICE_SLOTS: usize = 16;
/// The interrupt line of the first slot: above those of the serial ports.
pub const DEVICE_LINE: u32 = 5;
/// Where kernels expect the IO-APIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Where kernels expect their local APIC.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page that KVM needs for itself on Intel hosts without unrestricted guest mode.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM needs for itself on Intel hosts.
pub const KVM_TSS: usize = 0xfffb_d000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_lies_behind_memory_in_whole_blocks() {
        const GIB: u64 = 1 << 30;
        assert_eq!(room(GIB, GIB), 4 * GIB..4 * GIB);
        assert_eq!(room(256 << 20, GIB), 4 * GIB..6 * GIB);
        assert_eq!(room(256 << 20, 24 * GIB), 4 * GIB..28 * GIB);
        assert_eq!(room(4 * GIB, 6 * GIB), 6 * GIB..8 * GIB);
        assert!(room(1 << 40, 2 << 40).is_empty() && room(GIB, u64::MAX).is_empty());
        assert_eq!(room(GIB, 1 << 50).end, 512 * GIB);
    }

    #[test]
    fn memory_leaves_the_hole_free() {
        assert_eq!(memory(64 << 20), [0..64 << 20]);
        assert_eq!(memory(3 << 30), [0..3 << 30]);
        assert_eq!(memory((3 << 30) + 0x1000), [0..3 << 30, 4 << 30..(4 << 30) + 0x1000]);
        assert_eq!(memory(512 << 30), [0..3 << 30, 4 << 30..513 << 30]);
    }
}
