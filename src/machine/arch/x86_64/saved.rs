//! The whole state of a vcpu that was stopped, taken from one and given to another.

use super::cpuid;
use super::vcpu::{VcpuError, set_cpuid};
use kvm_bindings::{
    Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

/// What KVM keeps of a vcpu, whole.
#[derive(Serialize, Deserialize)]
pub struct SavedVcpu {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    activity: kvm_mp_state,
    registers: kvm_regs,
    special: kvm_sregs,
    extended_on: kvm_xcrs,
    extended: kvm_xsave,
    debug: kvm_debugregs,
    apic: kvm_lapic_state,
    events: kvm_vcpu_events,
    msrs: Vec<kvm_msr_entry>,
}

impl SavedVcpu {
    /// Takes the state of a vcpu that does not run. `msrs`: those that this host's KVM has.
    pub fn of(vcpu: &VcpuFd, cpuid: &[kvm_cpuid_entry2], msrs: &[u32]) -> Result<SavedVcpu, VcpuError> {
        let failed = VcpuError::at;
        // First, because it is what makes KVM settle what is pending in the others.
        let activity = vcpu.get_mp_state().map_err(failed("activity"))?;
        Ok(SavedVcpu {
            cpuid: cpuid.to_vec(),
            tsc_khz: vcpu.get_tsc_khz().map_err(failed("counter's frequency"))?,
            activity,
            registers: vcpu.get_regs().map_err(failed("registers"))?,
            special: vcpu.get_sregs().map_err(failed("special registers"))?,
            extended_on: vcpu.get_xcrs().map_err(failed("extended control registers"))?,
            extended: vcpu.get_xsave().map_err(failed("extended state"))?,
            debug: vcpu.get_debug_regs().map_err(failed("debug registers"))?,
            apic: vcpu.get_lapic().map_err(failed("local APIC"))?,
            events: vcpu.get_vcpu_events().map_err(failed("pending events"))?,
            msrs: read(vcpu, msrs)?,
        })
    }

    /// Whether a vcpu `id` of `vcpus` would have these features on this host, too.
    pub fn fits(&self, supported: &[kvm_cpuid_entry2], id: u8, vcpus: u8) -> bool {
        cpuid::for_vcpu(supported, id, vcpus) == self.cpuid
    }

    /// What the processor says of its features.
    pub fn cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.cpuid
    }

    /// Sets a new vcpu to this state.
    pub fn apply(&self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        let failed = VcpuError::at;
        set_cpuid(vcpu, &self.cpuid)?;
        // Within KVM's tolerance nothing is scaled.
        vcpu.set_tsc_khz(self.tsc_khz).map_err(failed("counter's frequency"))?;
        vcpu.set_sregs(&self.special).map_err(failed("special registers"))?;
        vcpu.set_xcrs(&self.extended_on).map_err(failed("extended control registers"))?;
        // SAFETY: the state is of the size that KVM reads without dynamically enabled features, which husk asks for none of.
        #[allow(unsafe_code)]
        unsafe { vcpu.set_xsave(&self.extended) }.map_err(failed("extended state"))?;
        vcpu.set_lapic(&self.apic).map_err(failed("local APIC"))?;
        // The deadline of the timer last: it means nothing before the APIC is in that mode and the counter is set.
        let (deadline, others): (Vec<_>, Vec<_>) =
            self.msrs.iter().copied().partition(|msr| msr.index == MSR_TSC_DEADLINE);
        write(vcpu, &others)?;
        write(vcpu, &deadline)?;
        vcpu.set_regs(&self.registers).map_err(failed("registers"))?;
        vcpu.set_debug_regs(&self.debug).map_err(failed("debug registers"))?;
        vcpu.set_vcpu_events(&self.events).map_err(failed("pending events"))?;
        vcpu.set_mp_state(self.activity).map_err(failed("activity"))
    }
}

/// Reads those of `indices` that this vcpu has: KVM lists some that depend on features which are not given to it.
fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, VcpuError> {
    const WHAT: &str = "model-specific registers";
    let mut wanted: Vec<_> =
        indices.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    let mut got = Vec::with_capacity(wanted.len());
    while !wanted.is_empty() {
        let mut msrs = Msrs::from_entries(&wanted).map_err(|_| VcpuError::list(WHAT))?;
        let count = vcpu.get_msrs(&mut msrs).map_err(VcpuError::at(WHAT))?;
        got.extend(msrs.as_slice().iter().take(count).copied());
        // It stops at the first that there is not.
        wanted.drain(..(count + 1).min(wanted.len()));
    }
    Ok(got)
}

/// Sets them. One that cannot be set to what it is anyway (zero) is no failure.
fn write(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), VcpuError> {
    const WHAT: &str = "model-specific registers";
    let mut left = entries;
    while !left.is_empty() {
        let msrs = Msrs::from_entries(left).map_err(|_| VcpuError::list(WHAT))?;
        let count = vcpu.set_msrs(&msrs).map_err(VcpuError::at(WHAT))?;
        match left.get(count) {
            Some(refused) if refused.data != 0 => return Err(VcpuError::register(refused.index)),
            _ => left = left.get(count + 1..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Intel SDM volume 4.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
