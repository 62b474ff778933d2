//! Enters a Linux kernel by its 64-bit boot protocol: the zero page that tells it where everything is, and the page
//! tables and descriptors that the processor needs to be in long mode at its first instruction.
//!
//! The 64-bit protocol and not PVH, because it needs no option in the kernel, no note in its ELF file, and no passage
//! through 32-bit code.

use super::{layout, mp_table};
use crate::device::Memory;
use crate::machine::memory;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// What the kernel is told.
pub struct Boot<'b> {
    /// The command line, with its final NUL.
    pub command_line: &'b [u8],
    /// Where the initrd lies.
    pub initrd: Range<u64>,
    /// How many vcpus there are.
    pub vcpus: u8,
    /// A secret for the kernel's random number generator.
    pub seed: [u8; 32],
}

/// Writes everything that is not kernel or initrd into guest memory.
pub fn write(memory: &Memory, boot: &Boot<'_>) -> Result<(), GuestMemoryError> {
    let ranges: Vec<_> = memory::slots(memory).map(|(at, _, size)| at..at + size).collect();
    let put = |bytes: &[u8], at: u64| memory.write_slice(bytes, GuestAddress(at));
    put(boot.command_line, layout::COMMAND_LINE.start)?;
    put(&zero_page(&e820(&ranges), boot), layout::ZERO_PAGE)?;
    put(&setup_seed(&boot.seed), SETUP_DATA)?;
    put(&mp_table::bytes(layout::MP_TABLE.start, boot.vcpus), layout::MP_TABLE.start)?;
    put(&page_tables(), layout::PAGE_TABLES)?;
    put(&gdt(), layout::GDT)
}

/// A range of physical memory, and whether the kernel may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct E820 {
    range: Range<u64>,
    kind: u32,
}

fn e820(memory: &[Range<u64>]) -> Vec<E820> {
    let mut map = vec![
        E820 { range: 0..layout::MP_TABLE.start, kind: E820_RAM },
        E820 { range: layout::MP_TABLE, kind: E820_RESERVED },
    ];
    for range in memory {
        let start = if range.start == 0 { layout::HIGH_MEMORY } else { range.start };
        map.push(E820 { range: start..range.end, kind: E820_RAM });
    }
    map
}

fn zero_page(map: &[E820], boot: &Boot<'_>) -> [u8; 4096] {
    let mut page = [0; 4096];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = page.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    for (index, entry) in map.iter().take(E820_MOST).enumerate() {
        let at = E820_TABLE + index * 20;
        put(at, &entry.range.start.to_le_bytes());
        put(at + 8, &(entry.range.end - entry.range.start).to_le_bytes());
        put(at + 16, &entry.kind.to_le_bytes());
    }
    put(E820_ENTRIES, &[map.len().min(E820_MOST) as u8]);
    put(BOOT_FLAG, &0xaa55u16.to_le_bytes());
    put(HEADER, b"HdrS");
    put(VERSION, &0x020fu16.to_le_bytes());
    put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    put(LOAD_FLAGS, &[LOADED_HIGH]);
    put(RAMDISK_IMAGE, &(boot.initrd.start as u32).to_le_bytes());
    put(RAMDISK_SIZE, &((boot.initrd.end - boot.initrd.start) as u32).to_le_bytes());
    put(COMMAND_LINE_POINTER, &(layout::COMMAND_LINE.start as u32).to_le_bytes());
    put(COMMAND_LINE_SIZE, &(boot.command_line.len() as u32).to_le_bytes());
    put(SETUP_DATA_POINTER, &SETUP_DATA.to_le_bytes());
    page
}

/// A `struct setup_data` with a seed. The kernel wipes it after use.
fn setup_seed(seed: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(48);
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(SETUP_RNG_SEED.to_le_bytes());
    bytes.extend((seed.len() as u32).to_le_bytes());
    bytes.extend(seed);
    bytes
}

/// Identity-maps the first GiB with large pages: PML4, PDPT, PD.
fn page_tables() -> Vec<u8> {
    let mut tables = vec![0u64; 3 * ENTRIES];
    for (index, entry) in tables.iter_mut().enumerate() {
        *entry = match index {
            0 => (layout::PAGE_TABLES + 0x1000) | PRESENT | WRITABLE,
            ENTRIES => (layout::PAGE_TABLES + 0x2000) | PRESENT | WRITABLE,
            _ if index >= 2 * ENTRIES => ((index - 2 * ENTRIES) as u64) << 21 | PRESENT | WRITABLE | LARGE,
            _ => 0,
        };
    }
    tables.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

fn gdt() -> Vec<u8> {
    [0, 0, GDT_CODE, GDT_DATA].iter().flat_map(|entry: &u64| entry.to_le_bytes()).collect()
}

// Linux, Documentation/arch/x86/boot.rst and zero-page.rst.
const E820_ENTRIES: usize = 0x1e8;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const COMMAND_LINE_POINTER: usize = 0x228;
const COMMAND_LINE_SIZE: usize = 0x238;
const SETUP_DATA_POINTER: usize = 0x250;
const E820_TABLE: usize = 0x2d0;
const E820_MOST: usize = 128;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const LOADER_UNDEFINED: u8 = 0xff;
const LOADED_HIGH: u8 = 1;
const SETUP_RNG_SEED: u32 = 9;
/// The seed lies in a page of its own behind the zero page.
const SETUP_DATA: u64 = layout::ZERO_PAGE + 0x1000;
// Intel SDM volume 3, 4.5 and 3.4.5: entries of page tables and of the GDT (flat, long mode code; data).
const ENTRIES: usize = 512;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const LARGE: u64 = 1 << 7;
const GDT_CODE: u64 = 0x00af_9b00_0000_ffff;
const GDT_DATA: u64 = 0x00cf_9300_0000_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(command_line: &[u8]) -> Boot<'_> {
        Boot { command_line, initrd: 0x300_0000..0x340_0123, vcpus: 2, seed: [7; 32] }
    }

    #[test]
    fn the_map_covers_all_memory_and_reserves_the_mp_table() {
        let ram = |range| E820 { range, kind: E820_RAM };
        let map = e820(&layout::memory(5 << 30));
        assert_eq!(map[0], ram(0..0x9_fc00));
        assert_eq!(map[1], E820 { range: 0x9_fc00..0xa_0000, kind: E820_RESERVED });
        assert_eq!(map[2..], [ram(0x10_0000..3 << 30), ram(4 << 30..6 << 30)]);
    }

    #[test]
    fn the_zero_page_says_where_everything_is() {
        let page = zero_page(&e820(&layout::memory(64 << 20)), &boot(b"quiet\0"));
        let long = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!(page[0x1e8], 3);
        assert_eq!(long(0x218), 0x300_0000);
        assert_eq!(long(0x21c), 0x40_0123);
        assert_eq!(u64::from(long(0x228)), layout::COMMAND_LINE.start);
        assert_eq!(u64::from(long(0x250)), SETUP_DATA);
        assert_eq!(&page[0x2d0 + 40..0x2d0 + 48], &0x10_0000u64.to_le_bytes());
        assert_eq!(&page[0x2d0 + 48..0x2d0 + 56], &(63u64 << 20).to_le_bytes());
    }

    #[test]
    fn every_address_of_the_first_gib_is_mapped_to_itself() {
        let bytes = page_tables();
        let entry = |table: usize, index: usize| {
            let at = table * 4096 + index * 8;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        assert_eq!(entry(0, 0), (layout::PAGE_TABLES + 0x1000) | 3);
        assert_eq!(entry(1, 0), (layout::PAGE_TABLES + 0x2000) | 3);
        for index in 0..512 {
            assert_eq!(entry(2, index), (index as u64) << 21 | 0x83);
        }
        assert!((1..512).all(|index| entry(0, index) == 0 && entry(1, index) == 0));
    }

    #[test]
    fn what_is_written_lies_where_the_layout_says_and_does_not_overlap() {
        let memory = crate::machine::memory::map(&[0..64 << 20]).unwrap();
        write(&memory, &boot(b"quiet\0")).unwrap();
        let read = |at: u64, length: usize| {
            let mut bytes = vec![0; length];
            memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            bytes
        };
        assert_eq!(read(layout::COMMAND_LINE.start, 6), b"quiet\0");
        assert_eq!(read(layout::MP_TABLE.start, 4), b"_MP_");
        assert_eq!(read(layout::ZERO_PAGE + 0x202, 4), b"HdrS");
        assert_eq!(read(SETUP_DATA + 16, 32), [7; 32]);
        assert_eq!(read(layout::PAGE_TABLES, 1), [0x03]);
        assert_eq!(read(layout::GDT + 16, 8), GDT_CODE.to_le_bytes());
    }
}
