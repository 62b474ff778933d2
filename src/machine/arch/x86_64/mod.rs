//! x86_64: a PC without firmware, PCI and ACPI.

pub mod boot;
pub mod cpuid;
pub mod layout;
pub mod mp_table;
pub mod vcpu;
