//! Puts a machine together. Everything that can fail for want of something on the host fails here, before a thread
//! exists and before the guest's first instruction.

use super::arch::current::{boot, layout, vcpu::VcpuState};
use super::boot::command_line::CommandLine;
use super::boot::{initrd, kernel};
use super::bus::Ports;
use super::end::End;
use super::gate::{self, Gate};
use super::kvm::{self, Kvm};
use super::memory::{self, Source};
use super::order::MachineConfig;
use super::parts::Parts;
use super::ports::{MARK_PORT, Marks, RESET_PORT, ResetLine};
use super::slots::Slots;
use super::spare::{SPARE_SLOTS, Spares};
use super::timeline::Timeline;
use super::vcpu::Surroundings;
use super::{Machine, MachineError};
use crate::device::console::{self, Console, KernelLog};
use crate::device::fs::{Exports, Fs, Policy};
use crate::device::rng::Rng;
use crate::device::vsock::{self, Vsock};
use husk_protocol::{ROOT_TAG, SHARE_TAG};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

impl Machine {
    /// Builds a machine. Nothing of the guest has run; no thread was started.
    pub fn assemble(config: &MachineConfig, parts: &Parts) -> Result<Machine, MachineError> {
        let timeline = Arc::new(Timeline::new());
        check(config)?;
        let kvm = Kvm::open()?;
        let vm = Arc::new(kvm.create_machine(config.vcpus)?);
        timeline.step("machine created");

        let memory = memory::map(&layout::memory(u64::from(config.memory_mib) << 20), Source::Fresh)?;
        let room = layout::HIGH_MEMORY..(u64::from(config.memory_mib) << 20).min(layout::HOLE.start);
        let kernel = kernel::load(&memory, &parts.kernel, room.clone())?;
        let initrd = initrd::load(&memory, &parts.initrd, &kernel, room)?;
        let mut early = layout::filled_early(u64::from(config.memory_mib) << 20, kernel.end);
        early.iter().for_each(|range| memory::expect_use(&memory, range));
        early.extend([kernel.start..kernel.end, initrd.clone()]);
        kvm::add_memory(&vm, &memory)?;
        timeline.step("memory filled");

        let kernel_log = KernelLog::new();
        let end = Arc::new(End::open().map_err(MachineError::Events)?);
        let mut ports = Ports::new();
        let console = Arc::new(Console::new(kernel_log.clone()));
        ports.add(console::FIRST_PORT, console::PORTS, console)?;
        ports.add(RESET_PORT, 1, Arc::new(ResetLine(end.clone())))?;
        ports.add(MARK_PORT, 1, Arc::new(Marks(timeline.clone())))?;

        let mut command_line = CommandLine::new();
        let mut slots = Slots::new(&vm, &memory);
        let (root_exports, share_exports) = (Exports::new(), Exports::new());
        let root = Fs::new(ROOT_TAG, Policy::Exclusive, root_exports.clone());
        let share = Fs::new(SHARE_TAG, Policy::Shared, share_exports.clone());
        let (vsock, switchboard) = Vsock::new(vsock::GUEST_CID);
        slots.add(Box::new(vsock), &mut command_line)?;
        slots.add(Box::new(root), &mut command_line)?;
        slots.add(Box::new(share), &mut command_line)?;
        slots.add(Box::new(Rng::new()), &mut command_line)?;
        // Last: whoever adds a device adds it before them.
        let spares = slots.spare(SPARE_SLOTS, &mut command_line)?;
        let devices = slots.finish();
        timeline.step("devices connected");

        let command_line = command_line.finish(&config.command_line, layout::COMMAND_LINE_MOST)?;
        let boot = boot::Boot {
            command_line: &command_line,
            initrd,
            vcpus: config.vcpus,
            seed: super::seed::draw()?,
        };
        boot::write(&memory, &boot).map_err(MachineError::Boot)?;

        let supported = kvm.supported_cpuid()?;
        let mut vcpus = Vec::with_capacity(config.vcpus.into());
        for id in 0..config.vcpus {
            let vcpu = vm
                .create_vcpu(id.into())
                .map_err(|source| MachineError::Vcpu { id, source: source.into() })?;
            VcpuState::at_boot(supported.as_slice(), id, config.vcpus, kernel.entry).apply(&vcpu)?;
            vcpus.push(vcpu);
        }
        if let Some(first) = vcpus.first() {
            early.iter().for_each(|range| kvm::prefault(first, range));
        }
        gate::install_handler().map_err(MachineError::Signal)?;
        timeline.step("vcpus set up");

        let gate = Gate::new(vcpus.len());
        let around = Surroundings { ports, bus: devices.bus, gate, end, exits: AtomicU64::new(0) };
        Ok(Machine {
            vcpus,
            around: Arc::new(around),
            seats: devices.seats,
            switchboard,
            root_exports,
            share_exports,
            kernel_log,
            timeline,
            spares: Arc::new(Spares::new(vm.clone(), memory.clone(), spares)),
            held: super::Held { vm, memory, windows: devices.windows },
        })
    }
}

fn check(config: &MachineConfig) -> Result<(), MachineError> {
    if !(1..=MOST_VCPUS).contains(&config.vcpus) {
        return Err(MachineError::Vcpus(config.vcpus));
    }
    if config.memory_mib < LEAST_MEMORY_MIB {
        return Err(MachineError::Memory(config.memory_mib));
    }
    Ok(())
}

/// The MP table has room for that many.
pub const MOST_VCPUS: u8 = 32;
/// Below that no kernel of ours boots.
pub const LEAST_MEMORY_MIB: u32 = 64;
