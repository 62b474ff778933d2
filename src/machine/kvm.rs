//! The host's KVM: opened, checked, and asked for a virtual machine. Every ioctl that husk uses is listed here, because
//! a system-call filter will be written from this list.
//!
//! | descriptor | before the guest runs | while it runs |
//! |---|---|---|
//! | /dev/kvm | GET_API_VERSION, CHECK_EXTENSION, GET_VCPU_MMAP_SIZE, GET_SUPPORTED_CPUID, CREATE_VM | |
//! | vm | CHECK_EXTENSION, SET_TSS_ADDR, SET_IDENTITY_MAP_ADDR, CREATE_IRQCHIP, SET_USER_MEMORY_REGION, IRQFD, IOEVENTFD, CREATE_VCPU; from a template: SET_IRQCHIP, SET_CLOCK | IRQFD, IOEVENTFD, SET_USER_MEMORY_REGION for what is plugged; to save: GET_IRQCHIP, GET_CLOCK |
//! | vcpu | SET_CPUID2, SET_MSRS, SET_XCRS, GET_SREGS, SET_SREGS, SET_REGS, GET_LAPIC, SET_LAPIC, PRE_FAULT_MEMORY; from a template: SET_TSC_KHZ, SET_XSAVE, SET_DEBUGREGS, SET_VCPU_EVENTS, SET_MP_STATE | RUN, KVMCLOCK_CTRL; to save: the same with GET |
//!
//! There is no PIT: with the time stamp counter's frequency from KVM's clock and the local APIC's deadline timer, a
//! kernel has no use for it.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION hands our memory to the guest

use super::arch::current::layout;
use super::memory;
use crate::device::Memory;
use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_SIMUL_EX, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, kvm_clock_data, kvm_irqchip,
    kvm_run, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

/// The host's KVM.
pub struct Kvm {
    system: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens /dev/kvm and sees whether it has what a machine needs. Success does not mean that it runs a guest: only
    /// running one tells.
    pub fn open() -> Result<Kvm, KvmError> {
        let system = kvm_ioctls::Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::Missing(error.into()),
            libc::EACCES | libc::EPERM => KvmError::Denied(error.into()),
            _ => KvmError::Open(error.into()),
        })?;
        let version = system.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(KvmError::Version(version));
        }
        for (capability, name) in NEEDED {
            if !system.check_extension(*capability) {
                return Err(KvmError::Capability(name));
            }
        }
        Ok(Kvm { system })
    }

    /// A virtual machine with interrupt controllers, and no memory and no vcpu yet.
    pub fn create_machine(&self, vcpus: u8) -> Result<VmFd, KvmError> {
        let most = self.system.get_max_vcpus();
        if usize::from(vcpus) > most {
            return Err(KvmError::Vcpus { wanted: vcpus, most });
        }
        let vm = self.system.create_vm().map_err(|source| KvmError::CreateMachine(source.into()))?;
        let failed = |what| move |source: kvm_ioctls::Error| KvmError::SetUp { what, source: source.into() };
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(failed("the identity map"))?;
        vm.set_tss_address(layout::KVM_TSS).map_err(failed("the task state segment"))?;
        vm.create_irq_chip().map_err(failed("interrupt controllers"))?;
        Ok(vm)
    }

    /// The processor features that KVM can give to a guest on this host.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.system
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|source| KvmError::SetUp { what: "processor features", source: source.into() })
    }
}

impl Kvm {
    /// The model-specific registers that are part of a vcpu's state on this host.
    pub fn msrs(&self) -> Result<Vec<u32>, KvmError> {
        let list = self.system.get_msr_index_list();
        let list =
            list.map_err(|source| KvmError::SetUp { what: "lists of registers", source: source.into() })?;
        Ok(list.as_slice().to_vec())
    }
}

/// What KVM keeps of a machine beside memory and vcpus: its interrupt controllers and its clock.
#[derive(Serialize, Deserialize)]
pub struct SavedChips {
    controllers: Vec<kvm_irqchip>,
    clock: kvm_clock_data,
}

impl SavedChips {
    /// Takes them from a machine whose vcpus do not run.
    pub fn of(vm: &VmFd) -> Result<SavedChips, KvmError> {
        let failed = |source: kvm_ioctls::Error| KvmError::SetUp {
            what: "interrupt controllers and clock to be saved",
            source: source.into(),
        };
        let controller = |chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip).map_err(failed).map(|()| chip)
        };
        let controllers = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];
        let controllers = controllers.into_iter().map(controller).collect::<Result<_, _>>()?;
        // The guest's time goes on from here, whenever and wherever it does; no flag: not from the host's.
        let clock = vm.get_clock().map_err(failed)?.clock;
        Ok(SavedChips { controllers, clock: kvm_clock_data { clock, ..Default::default() } })
    }

    /// Gives them to a new machine.
    pub fn apply(&self, vm: &VmFd) -> Result<(), KvmError> {
        let failed = |what| move |source: kvm_ioctls::Error| KvmError::SetUp { what, source: source.into() };
        for chip in &self.controllers {
            vm.set_irqchip(chip).map_err(failed("interrupt controllers as they were"))?;
        }
        vm.set_clock(&self.clock).map_err(failed("the clock as it was"))
    }
}

/// Shows `memory` to the guest. It has to stay mapped as long as the machine exists.
pub fn add_memory(vm: &VmFd, memory: &Memory) -> Result<(), KvmError> {
    let mut slots = (0..).zip(memory::slots(memory));
    slots.try_for_each(|(slot, (at, ours, size))| {
        // SAFETY: the region is one of our mappings, used for nothing but guest memory. `Machine` keeps a clone of
        // `memory`, and with it the mapping, until the machine's descriptors are closed.
        unsafe { add_slot(vm, slot, at, ours, size) }
    })
}

/// Shows `size` bytes at `ours` to the guest, at its address `at`, in a slot that is free.
///
/// # Safety
/// They are ours, used for nothing but guest memory, and stay mapped as long as the machine exists.
pub unsafe fn add_slot(vm: &VmFd, slot: u32, at: u64, ours: u64, size: u64) -> Result<(), KvmError> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: at,
        memory_size: size,
        userspace_addr: ours,
    };
    // SAFETY: as the caller promises.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(|source| KvmError::SetUp { what: "memory", source: source.into() })
}

/// Enters `range` into the guest's page tables before the guest asks for it: one call instead of an exit for each page.
/// Nothing happens on hosts that cannot do it (before Linux 6.11).
pub fn prefault(vcpu: &VcpuFd, range: &Range<u64>) {
    let mut left = PreFault {
        address: range.start,
        size: range.end.saturating_sub(range.start),
        flags: 0,
        padding: [0; 5],
    };
    while left.size > 0 {
        // SAFETY: the structure is initialised and of the size that the request's number says; KVM writes to it only
        // what is left to do.
        let result = unsafe { ioctl_with_mut_ref(vcpu, request::KVM_PRE_FAULT_MEMORY(), &mut left) };
        // Only a signal is a reason to go on. Whatever else it is, the guest comes for its pages itself.
        if result != 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// `struct kvm_pre_fault_memory`; the bindings do not have it yet.
#[repr(C)]
struct PreFault {
    address: u64,
    size: u64,
    flags: u64,
    padding: [u64; 5],
}

#[allow(missing_docs)] // the macro makes it public and leaves no place for a word
mod request {
    vmm_sys_util::ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, kvm_bindings::KVMIO, 0xd5, super::PreFault);
}

/// What KVM says about an exit with KVM_EXIT_INTERNAL_ERROR.
pub fn internal_error(run: &kvm_run) -> String {
    // SAFETY: every bit pattern is valid for the integers of this variant, whatever the union holds.
    let error = unsafe { run.__bindgen_anon_1.internal };
    let what = match error.suberror {
        KVM_INTERNAL_ERROR_EMULATION => "an instruction that it cannot emulate",
        KVM_INTERNAL_ERROR_SIMUL_EX => "exceptions at the same time",
        KVM_INTERNAL_ERROR_DELIVERY_EV => "a fault while it delivered an interrupt",
        KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "an exit that it does not know",
        _ => "an internal error",
    };
    let held = usize::try_from(error.ndata).unwrap_or(usize::MAX);
    let data: Vec<_> = error.data.iter().take(held).map(|word| format!("{word:#x}")).collect();
    format!("{what} (suberror {}, data {})", error.suberror, data.join(" "))
}

/// Why there is no virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No such device.
    #[error(
        "there is no /dev/kvm: this host's processor, firmware, kernel or outer machine offers no virtualisation"
    )]
    Missing(#[source] io::Error),
    /// Not allowed.
    #[error("no permission to use /dev/kvm")]
    Denied(#[source] io::Error),
    /// Anything else.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// Not KVM, or a KVM from before 2007.
    #[error("/dev/kvm does not answer as KVM does (interface version {0} instead of {KVM_API_VERSION})")]
    Version(i32),
    /// Too old, or not for this.
    #[error("the host's KVM lacks {0}")]
    Capability(&'static str),
    /// Too many vcpus.
    #[error("the host's KVM allows {most} vcpus, and {wanted} are wanted")]
    Vcpus {
        /// Wanted.
        wanted: u8,
        /// Allowed.
        most: usize,
    },
    /// KVM_CREATE_VM failed.
    #[error("KVM does not create a virtual machine")]
    CreateMachine(#[source] io::Error),
    /// One of the steps after that.
    #[error("KVM does not set up {what}")]
    SetUp {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What a machine cannot do without.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "memory slots (KVM_CAP_USER_MEMORY)"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Irqchip, "interrupt controllers (KVM_CAP_IRQCHIP)"),
    (Cap::Irqfd, "interrupts by descriptor (KVM_CAP_IRQFD)"),
    (Cap::Ioeventfd, "notifications by descriptor (KVM_CAP_IOEVENTFD)"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
    (Cap::TscDeadlineTimer, "a deadline timer (KVM_CAP_TSC_DEADLINE_TIMER)"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];
