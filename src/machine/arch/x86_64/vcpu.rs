//! The state that a vcpu begins with. Plain data, applied in one place, so that a restored state can take its place.

use super::{cpuid, layout};
use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;

/// What a vcpu is set to before it runs for the first time.
pub struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    msrs: Vec<kvm_msr_entry>,
    /// The extended states that are on (XCR0). A processor begins with x87 alone and its kernel turns on all others;
    /// they are on from the beginning, because an emulated processor may do that without telling KVM.
    extended: u64,
    /// The address of the first instruction; none for a vcpu that waits until the first one wakes it.
    entry: Option<u64>,
}

impl VcpuState {
    /// The state of vcpu `id` of `vcpus` before boot; `entry` is where the kernel begins.
    pub fn at_boot(supported: &[kvm_cpuid_entry2], id: u8, vcpus: u8, entry: u64) -> VcpuState {
        VcpuState {
            cpuid: cpuid::for_vcpu(supported, id, vcpus),
            msrs: vec![
                kvm_msr_entry { index: MSR_MISC_ENABLE, data: FAST_STRINGS, ..Default::default() },
                // Nobody sets the range registers for us: all memory is write-back.
                kvm_msr_entry {
                    index: MSR_MTRR_DEFAULT,
                    data: MTRR_ENABLED | WRITE_BACK,
                    ..Default::default()
                },
            ],
            extended: cpuid::extended_states(supported),
            entry: (id == 0).then_some(entry),
        }
    }

    /// What the processor says of its features.
    pub fn cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.cpuid
    }

    /// Sets a new vcpu to this state.
    pub fn apply(&self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        let failed = VcpuError::at;
        set_cpuid(vcpu, &self.cpuid)?;
        let msrs = Msrs::from_entries(&self.msrs).map_err(|_| VcpuError::list("model-specific registers"))?;
        vcpu.set_msrs(&msrs).map_err(failed("model-specific registers"))?;
        if self.extended != 0 {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0].value = self.extended;
            vcpu.set_xcrs(&xcrs).map_err(failed("extended control registers"))?;
        }
        let Some(entry) = self.entry else { return Ok(()) };
        let mut special = vcpu.get_sregs().map_err(failed("special registers"))?;
        enter_long_mode(&mut special);
        vcpu.set_sregs(&special).map_err(failed("special registers"))?;
        let registers =
            kvm_regs { rip: entry, rsi: layout::ZERO_PAGE, rflags: FLAGS_FIXED, ..Default::default() };
        vcpu.set_regs(&registers).map_err(failed("registers"))?;
        let mut apic = vcpu.get_lapic().map_err(failed("local APIC"))?;
        connect_lines(&mut apic);
        vcpu.set_lapic(&apic).map_err(failed("local APIC"))
    }
}

/// Says what the processor says of its features. To be called before anything else of it is set.
pub(super) fn set_cpuid(vcpu: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> Result<(), VcpuError> {
    const WHAT: &str = "processor features";
    let cpuid = CpuId::from_entries(entries).map_err(|_| VcpuError::list(WHAT))?;
    vcpu.set_cpuid2(&cpuid).map_err(VcpuError::at(WHAT))
}

/// As the 64-bit boot protocol wants it: paging on, flat segments, interrupts off.
fn enter_long_mode(special: &mut kvm_bindings::kvm_sregs) {
    let segment = |selector, kind| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    special.cs = kvm_segment { l: 1, ..segment(0x10, SEGMENT_CODE) };
    let data = kvm_segment { db: 1, ..segment(0x18, SEGMENT_DATA) };
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.fs, special.gs) = (data, data);
    special.gdt.base = layout::GDT;
    special.gdt.limit = 4 * 8 - 1;
    special.cr3 = layout::PAGE_TABLES;
    special.cr4 |= CR4_PAE;
    special.cr0 |= CR0_PROTECTED | CR0_PAGING;
    special.efer |= EFER_LONG_MODE | EFER_LONG_MODE_ACTIVE;
}

/// External interrupts at LINT0, non-maskable ones at LINT1, as the MP table says.
fn connect_lines(apic: &mut kvm_lapic_state) {
    for (register, mode) in [(APIC_LINT0, MODE_EXTERNAL), (APIC_LINT1, MODE_NMI)] {
        if let Some(place) = apic.regs.get_mut(register..register + 4) {
            for (to, byte) in place.iter_mut().zip(mode.to_le_bytes()) {
                *to = byte as _;
            }
        }
    }
}

/// A vcpu could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// A part of its state.
    #[error("cannot set up a vcpu's {what}")]
    State {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A register that a saved state has, and this host's KVM does not take.
    #[error("KVM does not take a vcpu's model-specific register {0:#x}")]
    Register(u32),
}

impl VcpuError {
    pub(super) fn at(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
        move |source| VcpuError::State { what, source }
    }

    pub(super) fn list(what: &'static str) -> VcpuError {
        VcpuError::State { what, source: kvm_ioctls::Error::new(libc::E2BIG) }
    }

    pub(super) fn register(index: u32) -> VcpuError {
        VcpuError::Register(index)
    }
}

// Intel SDM volumes 3 and 4.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_ENABLED: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;
const FLAGS_FIXED: u64 = 2;
const SEGMENT_CODE: u8 = 0xb;
const SEGMENT_DATA: u8 = 0x3;
const CR0_PROTECTED: u64 = 1;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const APIC_LINT0: usize = 0x350;
const APIC_LINT1: usize = 0x360;
const MODE_EXTERNAL: u32 = 0x700;
const MODE_NMI: u32 = 0x400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_vcpu_begins_at_the_kernels_entry() {
        assert_eq!(VcpuState::at_boot(&[], 0, 2, 0x100_0000).entry, Some(0x100_0000));
        assert_eq!(VcpuState::at_boot(&[], 1, 2, 0x100_0000).entry, None);
    }

    #[test]
    fn interrupt_lines_are_connected_without_touching_other_registers() {
        let mut apic = kvm_lapic_state::default();
        connect_lines(&mut apic);
        let set: Vec<usize> = (0..apic.regs.len()).filter(|at| apic.regs[*at] != 0).collect();
        assert_eq!(set, [0x351, 0x361]);
    }
}
