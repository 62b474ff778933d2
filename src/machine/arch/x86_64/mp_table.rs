//! The MP table: how a kernel without ACPI learns of its vcpus and its IO-APIC.
//!
//! MultiProcessor Specification 1.4, chapter 4. The local APIC's id of a vcpu is its number.

use super::layout;

/// The bytes of the table for a machine with `vcpus`, to be put at guest address `at`. The kernel finds it there by its
/// signature, so `at` has to be a place where it looks.
pub fn bytes(at: u64, vcpus: u8) -> Vec<u8> {
    let io_apic = vcpus;
    let mut entries = Vec::with_capacity(1024);
    for id in 0..vcpus {
        let flags = if id == 0 { CPU_ENABLED | CPU_BOOTS } else { CPU_ENABLED };
        entries.extend([ENTRY_PROCESSOR, id, APIC_VERSION, flags]);
        // Family 6, and the features APIC and FPU: kernels take the real ones from CPUID.
        entries.extend(0x600u32.to_le_bytes());
        entries.extend(0x201u32.to_le_bytes());
        entries.extend([0; 8]);
    }
    entries.extend([ENTRY_BUS, BUS_ISA]);
    entries.extend(*b"ISA   ");
    entries.extend([ENTRY_IO_APIC, io_apic, APIC_VERSION, IO_APIC_USABLE]);
    entries.extend(layout::IO_APIC.to_le_bytes());
    for line in 0..IO_APIC_LINES {
        // Edge-triggered and active high, as lines of an ISA bus are.
        entries.extend([ENTRY_IO_INTERRUPT, INTERRUPT_VECTORED, 0, 0, BUS_ISA, line, io_apic, line]);
    }
    entries.extend([ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTERNAL, 0, 0, BUS_ISA, 0, ALL_APICS, 0]);
    entries.extend([ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, 0, BUS_ISA, 0, ALL_APICS, 1]);
    let count = u16::from(vcpus) + 2 + u16::from(IO_APIC_LINES) + 2;

    let length = (HEADER_SIZE + entries.len()) as u16;
    let mut header = Vec::with_capacity(HEADER_SIZE + entries.len());
    header.extend(*b"PCMP");
    header.extend(length.to_le_bytes());
    header.extend([REVISION, 0]);
    header.extend(*b"HUSK    MACHINE     ");
    header.extend([0; 6]);
    header.extend(count.to_le_bytes());
    header.extend(layout::LOCAL_APIC.to_le_bytes());
    header.extend([0; 4]);
    header.extend(entries);
    set_checksum(&mut header, 7);

    let mut pointer = Vec::with_capacity(POINTER_SIZE + header.len());
    pointer.extend(*b"_MP_");
    pointer.extend((at as u32 + POINTER_SIZE as u32).to_le_bytes());
    pointer.extend([(POINTER_SIZE / 16) as u8, REVISION, 0]);
    pointer.extend([0; 5]);
    set_checksum(&mut pointer, 10);
    pointer.extend(header);
    pointer
}

/// All bytes of a structure sum up to zero.
fn set_checksum(structure: &mut [u8], at: usize) {
    let sum = structure.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = structure.get_mut(at) {
        *checksum = sum.wrapping_neg();
    }
}

// MultiProcessor Specification 1.4, 4.1 to 4.3.
const POINTER_SIZE: usize = 16;
const HEADER_SIZE: usize = 44;
const REVISION: u8 = 4;
const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_IO_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;
const CPU_ENABLED: u8 = 1;
const CPU_BOOTS: u8 = 2;
const IO_APIC_USABLE: u8 = 1;
const INTERRUPT_VECTORED: u8 = 0;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTERNAL: u8 = 3;
const BUS_ISA: u8 = 0;
const ALL_APICS: u8 = 0xff;
// KVM's: an integrated local APIC of version 0x14, and an IO-APIC of 24 lines.
const APIC_VERSION: u8 = 0x14;
const IO_APIC_LINES: u8 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_machine_gets_a_table_that_a_kernel_accepts() {
        for vcpus in 1..=32 {
            let at = layout::MP_TABLE.start;
            let bytes = bytes(at, vcpus);
            assert!(bytes.len() as u64 <= layout::MP_TABLE.end - at, "{vcpus} vcpus: {} bytes", bytes.len());
            let (pointer, table) = bytes.split_at(16);
            assert_eq!(&pointer[..4], b"_MP_");
            assert_eq!(sum(pointer), 0);
            assert_eq!(u32::from_le_bytes(pointer[4..8].try_into().unwrap()) as u64, at + 16);
            assert_eq!(sum(table), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            // The entries have the sizes that the specification gives their kinds, and there are as many as announced.
            let mut rest = &table[44..];
            let mut kinds = Vec::new();
            while let Some(kind) = rest.first() {
                kinds.push(*kind);
                rest = &rest[if *kind == 0 { 20 } else { 8 }..];
            }
            assert_eq!(kinds.len(), usize::from(u16::from_le_bytes([table[34], table[35]])));
            assert_eq!(kinds.iter().filter(|kind| **kind == 0).count(), usize::from(vcpus));
        }
    }

    #[test]
    fn exactly_the_first_vcpu_boots() {
        let bytes = bytes(0x9_fc00, 3);
        let flags: Vec<u8> = (0..3).map(|vcpu| bytes[16 + 44 + vcpu * 20 + 3]).collect();
        assert_eq!(flags, [3, 1, 1]);
    }
}
