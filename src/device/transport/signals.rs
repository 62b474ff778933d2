//! What a device's thread and the vcpus tell each other without a lock: the interrupt status, and that the device
//! needs a reset.

use super::mirror::Mirror;
use super::registers as register;
use crate::device::Interrupt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// Shared by the transport and the device's thread.
pub(super) struct Signals {
    /// Of use only without a mirror, which holds it otherwise.
    interrupt_status: AtomicU32,
    mirror: Option<Mirror>,
    needs_reset: AtomicBool,
    /// Registered as irqfd: a write is an interrupt.
    irq: EventFd,
}

impl Signals {
    pub(super) fn new(irq: EventFd, mirror: Option<Mirror>) -> Signals {
        let (interrupt_status, needs_reset) = (AtomicU32::new(0), AtomicBool::new(false));
        Signals { interrupt_status, mirror, needs_reset, irq }
    }

    pub(super) fn interrupt_status(&self) -> u32 {
        self.status().load(Ordering::SeqCst)
    }

    fn status(&self) -> &AtomicU32 {
        let mirrored = self.mirror.as_ref().and_then(|mirror| mirror.register(register::INTERRUPT_STATUS));
        mirrored.unwrap_or(&self.interrupt_status)
    }

    /// The driver has seen these bits.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.status().fetch_and(!bits, Ordering::SeqCst);
    }

    /// Shows DEVICE_NEEDS_RESET, and says so by a configuration change (virtio 1.2, 2.1.2).
    pub(super) fn set_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.show_needs_reset();
        self.raise(CONFIG_CHANGED);
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// Whoever shows the device status calls this afterwards: the device may have needed a reset just then.
    pub(super) fn show_needs_reset(&self) {
        let shown = self.mirror.as_ref().and_then(|mirror| mirror.register(register::STATUS));
        if let Some(shown) = shown.filter(|_| self.needs_reset()) {
            shown.fetch_or(register::DEVICE_NEEDS_RESET, Ordering::SeqCst);
        }
    }

    /// Back to the state after a reset.
    pub(super) fn clear(&self) {
        self.status().store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
    }

    /// As saved; an interrupt that was not yet acknowledged is sent again.
    pub(super) fn restore(&self, interrupt_status: u32, needs_reset: bool) {
        self.needs_reset.store(needs_reset, Ordering::SeqCst);
        self.status().store(0, Ordering::SeqCst);
        if interrupt_status != 0 {
            self.raise(interrupt_status & (USED_BUFFER | CONFIG_CHANGED));
        }
    }

    fn raise(&self, bit: u32) {
        // The bit first: the driver reads it when the interrupt arrives.
        self.status().fetch_or(bit, Ordering::SeqCst);
        // It can only fail when the counter is at its limit, and then an interrupt is pending anyway.
        let _ = self.irq.write(1);
    }
}

impl Interrupt for Signals {
    fn used(&self) {
        self.raise(USED_BUFFER);
    }

    fn config_changed(&self) {
        self.raise(CONFIG_CHANGED);
    }
}

// Bits of InterruptStatus (virtio 1.2, 4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGED: u32 = 2;
