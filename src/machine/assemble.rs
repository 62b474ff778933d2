//! Puts a machine together. Everything that can fail for want of something on the host fails here, before a thread
//! exists and before the guest's first instruction.
//!
//! [`Machine::assemble`] makes one that boots; [`Machine::copy`] one that goes on where a template stopped. Both have the
//! same [`Frame`].

use super::arch::current::{boot, layout, vcpu::VcpuState};
use super::boot::command_line::CommandLine;
use super::boot::{initrd, kernel};
use super::bus::Ports;
use super::end::End;
use super::gate::{self, Gate};
use super::growth::Growth;
use super::kvm::{self, Kvm};
use super::memory;
use super::order::MachineConfig;
use super::parts::Parts;
use super::ports::{MARK_PORT, Marks, RESET_PORT, ResetLine};
use super::slots::{Filled, Slots};
use super::spare::{Place, SPARE_SLOTS, Spares};
use super::timeline::Timeline;
use super::vcpu::{Surroundings, Vcpu};
use super::walls::{self, Walls};
use super::{Machine, MachineError};
use crate::device::Memory;
use crate::device::console::{self, Console, KernelLog};
use crate::device::fs::{Exports, Fs, Policy};
use crate::device::rng::Rng;
use crate::device::transport::Mmio;
use crate::device::vsock::{self, Switchboard, Vsock};
use husk_protocol::{ROOT_TAG, SHARE_TAG};
use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{VcpuFd, VmFd};
use std::ops::Range;
use std::sync::Arc;

impl Machine {
    /// Builds a machine that boots. Nothing of the guest has run; no thread was started.
    pub fn assemble(config: &MachineConfig, parts: &Parts) -> Result<Machine, MachineError> {
        let frame = Frame::begin(config)?;
        let memory = frame.map()?;
        let room = layout::HIGH_MEMORY..(u64::from(config.memory_mib) << 20).min(layout::HOLE.start);
        let kernel = kernel::load(&memory, &parts.kernel, room.clone())?;
        let initrd = initrd::load(&memory, &parts.initrd, &kernel, room)?;
        let mut early = layout::filled_early(u64::from(config.memory_mib) << 20, kernel.end);
        early.iter().for_each(|range| memory::expect_use(&memory, range));
        early.extend([kernel.start..kernel.end, initrd.clone()]);
        kvm::add_memory(&frame.vm, &memory)?;
        frame.timeline.step("memory filled");

        let mut furnished = frame.furnish(&memory)?;
        let command_line = std::mem::replace(&mut furnished.command_line, CommandLine::new());
        let command_line = command_line.finish(&config.command_line, layout::COMMAND_LINE_MOST)?;
        let boot = boot::Boot {
            command_line: &command_line,
            initrd,
            vcpus: config.vcpus,
            seed: super::seed::draw()?,
        };
        boot::write(&memory, &boot).map_err(MachineError::Boot)?;

        let supported = frame.kvm.supported_cpuid()?;
        let mut vcpus = Vec::with_capacity(config.vcpus.into());
        for id in 0..config.vcpus {
            let vcpu = frame.vcpu(id)?;
            let state = VcpuState::at_boot(supported.as_slice(), id, config.vcpus, kernel.entry);
            state.apply(&vcpu)?;
            vcpus.push((vcpu, state.cpuid().to_vec()));
        }
        if let Some((first, _)) = vcpus.first() {
            early.iter().for_each(|range| kvm::prefault(first, range));
        }
        frame.timeline.step("vcpus set up");
        frame.finish(furnished, memory, vcpus, false)
    }
}

/// A machine without memory and vcpus.
pub(super) struct Frame {
    pub kvm: Kvm,
    pub vm: Arc<VmFd>,
    pub timeline: Arc<Timeline>,
    end: Arc<End>,
    memory_mib: u32,
    /// Where memory may be plugged.
    room: Range<u64>,
    walls: Walls,
}

/// What it is furnished with.
pub(super) struct Furnished {
    command_line: CommandLine,
    ports: Ports,
    devices: Filled,
    spares: Vec<(usize, Arc<Place>)>,
    switchboard: Switchboard,
    root_exports: Arc<Exports>,
    share_exports: Arc<Exports>,
    kernel_log: Arc<KernelLog>,
}

impl Furnished {
    /// The devices' windows, by slot.
    pub fn windows(&self) -> &[Arc<Mmio>] {
        &self.devices.windows
    }
}

impl Frame {
    /// A machine in KVM, with nothing in it.
    pub fn begin(config: &MachineConfig) -> Result<Frame, MachineError> {
        let timeline = Arc::new(Timeline::new());
        check(config)?;
        walls::use_one_heap();
        let kvm = Kvm::open()?;
        let vm = Arc::new(kvm.create_machine(config.vcpus)?);
        let end = Arc::new(End::open().map_err(MachineError::Events)?);
        timeline.step("machine created");
        let memory_mib = config.memory_mib;
        let room = layout::room(u64::from(memory_mib) << 20, u64::from(config.most_memory_mib) << 20);
        Ok(Frame { kvm, vm, timeline, end, memory_mib, room, walls: Walls::new(config.system_calls) })
    }

    /// Its memory, which KVM does not know of yet.
    pub fn map(&self) -> Result<Memory, MachineError> {
        Ok(memory::map_with_room(&layout::memory(u64::from(self.memory_mib) << 20), &self.room)?)
    }

    /// Its devices and ports, always the same and in the same order.
    pub fn furnish(&self, memory: &Memory) -> Result<Furnished, MachineError> {
        let kernel_log = KernelLog::new();
        let mut ports = Ports::new();
        let console = Arc::new(Console::new(kernel_log.clone()));
        ports.add(console::FIRST_PORT, console::PORTS, console)?;
        ports.add(RESET_PORT, 1, Arc::new(ResetLine(self.end.clone())))?;
        ports.add(MARK_PORT, 1, Arc::new(Marks(self.timeline.clone())))?;

        let mut command_line = CommandLine::new();
        let mut slots = Slots::new(&self.vm, memory);
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
        self.timeline.step("devices connected");
        Ok(Furnished {
            command_line,
            ports,
            devices,
            spares,
            switchboard,
            root_exports,
            share_exports,
            kernel_log,
        })
    }

    /// A vcpu that is still to be set up.
    pub fn vcpu(&self, id: u8) -> Result<VcpuFd, MachineError> {
        let vcpu = self.vm.create_vcpu(id.into());
        vcpu.map_err(|source| MachineError::Vcpu { id, source: source.into() })
    }

    /// The machine. `copied`: its devices' drivers are there already.
    pub fn finish(
        self,
        furnished: Furnished,
        memory: Memory,
        vcpus: Vec<(VcpuFd, Vec<kvm_cpuid_entry2>)>,
        copied: bool,
    ) -> Result<Machine, MachineError> {
        gate::install_handler().map_err(MachineError::Signal)?;
        let Furnished {
            ports, devices, spares, switchboard, root_exports, share_exports, kernel_log, ..
        } = furnished;
        let gate = Gate::new(vcpus.len());
        let around = Surroundings::new(ports, devices.bus, gate, self.end);
        let vcpus = (0..).zip(vcpus).map(|(id, (vcpu, cpuid))| Vcpu { id, vcpu, cpuid }).collect();
        let spares = Arc::new(Spares::new(self.vm.clone(), memory.clone(), spares, self.walls));
        let growth = Growth::new(self.vm.clone(), memory.clone(), spares.clone(), self.room);
        Ok(Machine {
            vcpus,
            around: Arc::new(around),
            seats: devices.seats,
            switchboard,
            root_exports,
            share_exports,
            kernel_log,
            timeline: self.timeline,
            walls: self.walls,
            spares,
            growth,
            memory_mib: self.memory_mib,
            copied,
            held: super::Held { vm: self.vm, memory, windows: devices.windows },
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
