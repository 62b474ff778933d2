//! A running machine: one guest with its memory, vcpus, devices, queues and transport.
//!
//! ```text
//!   MachineConfig + Parts --assemble--> Machine --(the process enters its jail)--> run --> Running --> Ended
//! ```
//! - [`assemble`] puts it together: [`kvm`], [`memory`], what is booted ([`parts`], [`elf`], [`boot`]), what the
//!   processor's architecture wants ([`arch`]), devices in their [`slots`] (some of them [`spare`]) on a [`bus`],
//!   a few [`ports`].
//! - [`growth`]: memory that comes while the guest runs.
//! - [`template`]: another way to begin, as a copy of a guest that was booted before.
//! - [`jail`] takes everything else on the host away from the process; [`export`] is what it is left. [`walls`] stand
//!   around each of its threads.
//! - [`running`], [`vcpu`], [`gate`] and [`end`] are the life of the guest. [`timeline`] says how long each step took.
//! - [`order`] and [`control`] are how the process is told what to do.
//!
//! Threads: one for each device and each vcpu, and the one that assembled. Not here: what devices do
//! ([`crate::device`]), what is said to the agent ([`crate::agent`]).
#![allow(clippy::single_range_in_vec_init)] // a list of one range of memory is what is meant

pub mod arch;
pub mod assemble;
pub mod boot;
pub mod bus;
pub mod control;
pub mod elf;
pub mod end;
pub mod export;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
pub mod gate;
pub mod growth;
pub mod jail;
pub mod kvm;
pub mod memory;
pub mod order;
pub mod parts;
pub mod ports;
pub mod running;
pub mod seed;
pub mod slots;
pub mod spare;
pub mod template;
pub mod timeline;
pub mod vcpu;
pub mod walls;
mod windows;

pub use end::Ended;
pub use growth::Growth;
pub use jail::Jail;
pub use parts::Parts;
pub use running::Running;
pub use spare::Spares;
pub use walls::Walls;

use crate::device::console::KernelLog;
use crate::device::fs::Exports;
use crate::device::transport::{Mmio, Seat};
use crate::device::vsock::Switchboard;
use crate::device::{Device, Memory};
use crate::error::{ErrorKind, Kind};
use kvm_ioctls::VmFd;
use std::io;
use std::sync::Arc;

/// A machine that is put together and does not run yet.
pub struct Machine {
    vcpus: Vec<vcpu::Vcpu>,
    around: Arc<vcpu::Surroundings>,
    seats: Vec<(Box<dyn Device>, Seat)>,
    switchboard: Switchboard,
    root_exports: Arc<Exports>,
    share_exports: Arc<Exports>,
    kernel_log: Arc<KernelLog>,
    timeline: Arc<timeline::Timeline>,
    spares: Arc<Spares>,
    growth: Growth,
    /// What it begins with.
    memory_mib: u32,
    /// Its guest goes on where another's stopped: its devices' drivers are there.
    copied: bool,
    walls: Walls,
    held: Held,
}

/// What has to stay as long as the guest may run: without these descriptors and mappings there is no machine.
struct Held {
    vm: Arc<VmFd>,
    memory: Memory,
    /// Their drop would end the devices' threads.
    windows: Vec<Arc<Mmio>>,
}

impl Machine {
    /// Where streams are offered to the guest.
    pub fn switchboard(&self) -> Switchboard {
        self.switchboard.clone()
    }

    /// What the guest may use as root filesystems.
    pub fn root_exports(&self) -> Arc<Exports> {
        self.root_exports.clone()
    }

    /// What the guest may use as bind mounts.
    pub fn share_exports(&self) -> Arc<Exports> {
        self.share_exports.clone()
    }

    /// What the guest's kernel says.
    pub fn kernel_log(&self) -> Arc<KernelLog> {
        self.kernel_log.clone()
    }

    /// Where devices may be put while the guest runs.
    pub fn spares(&self) -> Arc<Spares> {
        self.spares.clone()
    }

    /// How much memory it begins with: as much as it was to have, or less, if it is a copy of a smaller one.
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    /// The walls around its threads.
    pub fn walls(&self) -> Walls {
        self.walls
    }

    /// When each step happened, for steps of others.
    pub fn timeline(&self) -> Arc<timeline::Timeline> {
        self.timeline.clone()
    }
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Too many or none.
    #[error("a machine has 1 to {most} vcpus, not {0}", most = assemble::MOST_VCPUS)]
    Vcpus(u8),
    /// Too little.
    #[error("{0} MiB of memory are too few: a machine has at least {least} MiB", least = assemble::LEAST_MEMORY_MIB)]
    Memory(u32),
    /// KVM.
    #[error("cannot create the machine")]
    Kvm(#[from] kvm::KvmError),
    /// Memory.
    #[error("cannot set up the guest's memory")]
    GuestMemory(#[from] memory::MemoryError),
    /// The kernel.
    #[error("cannot load the guest kernel")]
    Kernel(#[from] boot::kernel::KernelError),
    /// The initrd.
    #[error("cannot load the initrd")]
    Initrd(#[from] boot::initrd::InitrdError),
    /// The command line.
    #[error("cannot make the kernel's command line")]
    CommandLine(#[from] boot::command_line::CommandLineError),
    /// What the kernel is told at its entry.
    #[error("cannot write the guest's boot parameters")]
    Boot(#[source] vm_memory::GuestMemoryError),
    /// Two things at one place.
    #[error("cannot lay out the guest's ports")]
    Ports(#[from] bus::BusError),
    /// A device.
    #[error("cannot connect the machine's devices")]
    Device(#[from] slots::SlotError),
    /// A vcpu cannot be made.
    #[error("KVM does not create vcpu {id}")]
    Vcpu {
        /// Which.
        id: u8,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A vcpu cannot be set up.
    #[error("cannot set up a vcpu")]
    VcpuState(#[from] arch::current::vcpu::VcpuError),
    /// A template is for another host.
    #[error("the template does not fit")]
    Template(#[from] template::Unfit),
    /// No event descriptor.
    #[error("cannot make an event descriptor")]
    Events(#[source] io::Error),
    /// No random numbers.
    #[error("cannot draw a seed for the guest")]
    Seed(#[source] io::Error),
    /// No signal handler.
    #[error("cannot prepare the signal that interrupts vcpus")]
    Signal(#[source] io::Error),
    /// No thread.
    #[error("cannot start a thread for the machine")]
    Thread(#[source] io::Error),
}

impl Kind for MachineError {
    fn kind(&self) -> ErrorKind {
        match self {
            MachineError::Vcpus(_)
            | MachineError::Memory(_)
            | MachineError::Kernel(_)
            | MachineError::Initrd(_)
            | MachineError::CommandLine(_) => ErrorKind::InvalidArgument,
            _ => ErrorKind::Host,
        }
    }
}
