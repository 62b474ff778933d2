//! A machine that begins as a copy of a template's.

use super::{Template, Unfit, stretches};
use crate::machine::assemble::Frame;
use crate::machine::order::MachineConfig;
use crate::machine::{Machine, MachineError, kvm};

impl Machine {
    /// Builds a machine from a template, with the memory that the template has, and room for what is missing to what the
    /// machine is to have. Nothing of the guest has run; no thread was started. An error says nothing about
    /// a machine that boots: this host's KVM may not take what another's, or its own before an update, has given.
    pub fn copy(config: &MachineConfig, template: &Template) -> Result<Machine, MachineError> {
        let config = &MachineConfig { memory_mib: template.memory_mib(), ..config.clone() };
        let frame = Frame::begin(config)?;
        let supported = frame.kvm.supported_cpuid()?;
        let Template { state, memory: file } = template;
        let fit = (0..config.vcpus)
            .zip(&state.vcpus)
            .all(|(id, vcpu)| vcpu.fits(supported.as_slice(), id, config.vcpus));
        if !fit || state.vcpus.len() != usize::from(config.vcpus) {
            return Err(Unfit::Other("kind of processor").into());
        }
        let memory = frame.map()?;
        stretches::overlay(&memory, file, &state.memory.stretches)?;
        state.touched.populate(&memory)?;
        kvm::add_memory(&frame.vm, &memory)?;
        frame.timeline.step("memory mapped");

        let furnished = frame.furnish(&memory)?;
        if furnished.windows().len() != state.registers.len() {
            return Err(Unfit::Other("set of devices").into());
        }
        for (window, registers) in furnished.windows().iter().zip(&state.registers) {
            window.restore(registers.clone()).map_err(crate::machine::slots::SlotError::from)?;
        }
        state.chips.apply(&frame.vm)?;
        let mut vcpus = Vec::with_capacity(state.vcpus.len());
        for (id, saved) in (0..).zip(&state.vcpus) {
            let vcpu = frame.vcpu(id)?;
            saved.apply(&vcpu)?;
            vcpus.push((vcpu, saved.cpuid().to_vec()));
        }
        if let Some((first, _)) = vcpus.first() {
            for stretch in &state.memory.stretches {
                kvm::prefault(first, &(stretch.at..stretch.at.saturating_add(stretch.length)));
            }
            for range in state.touched.ranges() {
                kvm::prefault(first, range);
            }
        }
        frame.timeline.step("vcpus set up");
        frame.finish(furnished, memory, vcpus, true)
    }
}
