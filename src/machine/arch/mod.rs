//! What depends on the processor's architecture: where memory and devices lie, how a kernel is entered, how vcpus and
//! interrupts are described to it. A port to aarch64 is a sibling of [`x86_64`] with the same public names (FDT instead
//! of MP table and zero page, a GIC instead of IO-APIC and local APICs).

#[cfg(target_arch = "x86_64")]
pub mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64 as current;
