//! x86_64: a PC without firmware, PCI and ACPI.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "on our own layout and counts, before the guest runs; overflow aborts"
)]

pub mod boot;
pub mod cpuid;
pub mod layout;
pub mod mp_table;
pub mod saved;
pub mod vcpu;
