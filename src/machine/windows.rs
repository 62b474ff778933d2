//! The devices' registers as memory that the guest can read and cannot write.
//!
//! Every interrupt of a device costs its driver a read of the interrupt status and a write of what it has seen. Without
//! this, both leave the guest for this process; with it the read is a read of memory, and the write ends in KVM.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION

use super::arch::current::layout;
use super::slots::SlotError;
use crate::device::transport::{Mirror, mmio};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, VmFd};
use std::io;
use std::sync::Arc;
use vm_memory::MmapRegion;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The pages of all slots. Each [`Mirror`] holds the mapping, and so does each device's window as long as the machine
/// exists.
pub struct Windows {
    pages: Arc<MmapRegion>,
    /// Where acknowledgements go. Nobody reads it.
    sink: EventFd,
}

impl Windows {
    /// Pages that the guest does not see yet; `None` when the host's KVM cannot show any, which costs time and nothing
    /// else.
    pub fn open(vm: &VmFd) -> Option<Windows> {
        if !vm.check_extension(Cap::ReadonlyMem) {
            return None;
        }
        let size = usize::try_from(layout::DEVICE_SIZE).ok()?.checked_mul(layout::DEVICE_SLOTS)?;
        let pages = Arc::new(MmapRegion::new(size).ok()?);
        let sink = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).ok()?;
        Some(Windows { pages, sink })
    }

    /// Shows the pages of the first `count` slots to the guest. (Spare ones change with what is plugged in: what is read
    /// there has to arrive.) Should it fail, all reads arrive.
    pub fn show(&self, vm: &VmFd, count: usize) {
        let Ok(count) = u64::try_from(count.min(layout::DEVICE_SLOTS)) else { return };
        let region = kvm_userspace_memory_region {
            slot: MEMORY_SLOT,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: layout::DEVICES,
            memory_size: layout::DEVICE_SIZE.saturating_mul(count),
            userspace_addr: self.pages.as_ptr() as u64,
        };
        // SAFETY: the mapping is ours, used for nothing but this, and lives as long as the windows on the machine's bus,
        // which the machine keeps until its descriptors are closed.
        if let Err(error) = unsafe { vm.set_user_memory_region(region) } {
            tracing::debug!(%error, "devices' registers are not shown as memory");
        }
    }

    /// The page of a slot, whose acknowledgements from here on end in KVM.
    pub fn mirror(&self, vm: &VmFd, device: &'static str, slot: usize) -> Result<Option<Mirror>, SlotError> {
        let at = usize::try_from(layout::DEVICE_SIZE).ok().and_then(|size| size.checked_mul(slot));
        let Some(mirror) = at.and_then(|at| Mirror::new(self.pages.clone(), at)) else { return Ok(None) };
        let offset = layout::DEVICE_SIZE.saturating_mul(u64::try_from(slot).unwrap_or(u64::MAX));
        let (register, value) = mmio::INTERRUPT_ACK;
        let address = layout::DEVICES.saturating_add(offset).saturating_add(register);
        vm.register_ioevent(&self.sink, &IoEventAddress::Mmio(address), value).map_err(|source| {
            SlotError::Connect { device, what: "acknowledgements", source: io::Error::from(source) }
        })?;
        Ok(Some(mirror))
    }
}

/// Far above those of the guest's memory.
const MEMORY_SLOT: u32 = 31;
