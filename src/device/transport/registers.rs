//! The registers of a virtio-mmio device, version 2 (virtio 1.2, 4.2.2), as a state machine without I/O.
//!
//! ```text
//!   reset --ACKNOWLEDGE--> --DRIVER--> --FEATURES_OK--> --DRIVER_OK--> live
//!     ^                      features     queues            |  configuration is frozen: an attempt to change it
//!     +---------------------------- status 0 ---------------+  is ignored, and shows DEVICE_NEEDS_RESET
//! ```
//! The driver may only add status bits, one step at a time. A queue's size and addresses can be set between
//! FEATURES_OK and DRIVER_OK while it is not ready, and are checked against memory when it is made ready, so that a
//! live device only ever has queues that lie in memory.
//!
//! [`Registers`] is plain data: it is what is saved. InterruptStatus, and DEVICE_NEEDS_RESET shown by the device
//! itself, live with the transport (the device's thread sets them) and are merged into what is saved.

use crate::device::Memory;
use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::{GuestAddress, GuestMemory};

/// What the driver has written, and how far it has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    pub(super) status: u32,
    /// Bits not yet acknowledged; of use only in what is saved.
    pub(super) interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    pub(super) queues: Vec<SavedQueue>,
}

/// One queue, as the driver configured it and as far as the device has come in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQueue {
    size: u16,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
    next_avail: u16,
    next_used: u16,
}

/// What a device offers; does not change in its life.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) device_id: u32,
    pub(super) features: u64,
    pub(super) queue_sizes: Vec<u16>,
}

/// What has to be done after a register was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// The driver is ready: start the device.
    Start,
    /// Stop the device; the registers are clear already.
    Reset,
    /// The driver broke the rules while the device is live.
    NeedsReset,
}

impl Registers {
    pub(super) fn new(offer: &Offer) -> Registers {
        let queues = offer.queue_sizes.iter().map(|_| SavedQueue::default()).collect();
        Registers { queues, ..Registers::default() }
    }

    /// What the driver reads, but for those registers that the transport answers itself (interrupt status, the
    /// configuration's generation). Registers that do not exist, or only take writes, are 0.
    pub(super) fn read(&self, offset: u64, offer: &Offer) -> u32 {
        match offset {
            MAGIC_VALUE => 0x7472_6976,
            VERSION => 2,
            DEVICE_ID => offer.device_id,
            VENDOR_ID => 0x6b73_7568,
            DEVICE_FEATURES => match self.device_features_select {
                0 => low(offer.features),
                1 => high(offer.features),
                _ => 0,
            },
            QUEUE_SIZE_MAX => self.selected_max(offer).unwrap_or(0).into(),
            QUEUE_READY => self.selected().is_some_and(|queue| queue.ready).into(),
            STATUS => self.status,
            // There is no shared memory region: its length is -1 (4.2.2.1).
            SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// What the driver writes. Anything that makes no sense, or comes at the wrong time, changes nothing.
    pub(super) fn write(&mut self, offset: u64, value: u32, offer: &Offer, memory: &Memory) -> Effect {
        match offset {
            DEVICE_FEATURES_SELECT => self.device_features_select = value,
            DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            QUEUE_SELECT => self.queue_select = value,
            DRIVER_FEATURES => return self.accept_features(value),
            STATUS => return self.set_status(value, offer),
            QUEUE_SIZE..=QUEUE_DEVICE_HIGH if is_queue_setting(offset) => {
                return self.configure_queue(offset, value, offer, memory);
            }
            _ => {}
        }
        Effect::Nothing
    }

    pub(super) fn is_live(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    pub(super) fn features(&self) -> u64 {
        self.driver_features
    }

    /// The queues of a live device, in the form that devices use. Every check was made before; `None` would mean that
    /// the registers did not come from [`Registers::write`].
    pub(super) fn activate(&self, offer: &Offer) -> Option<Vec<Queue>> {
        let event_index = self.driver_features & FEATURE_EVENT_INDEX != 0;
        let activate = |(saved, max): (&SavedQueue, &u16)| {
            if !saved.ready {
                return Queue::new(*max).ok();
            }
            Queue::try_from(QueueState {
                max_size: *max,
                next_avail: saved.next_avail,
                next_used: saved.next_used,
                event_idx_enabled: event_index,
                size: saved.size,
                ready: true,
                desc_table: saved.descriptors,
                avail_ring: saved.driver,
                used_ring: saved.device,
            })
            .ok()
        };
        self.queues.iter().zip(&offer.queue_sizes).map(activate).collect()
    }

    /// Remembers how far a stopped device has come in its queues.
    pub(super) fn record_progress<'a>(&mut self, queues: impl Iterator<Item = &'a Queue>) {
        for (saved, queue) in self.queues.iter_mut().zip(queues) {
            if saved.ready {
                saved.next_avail = queue.next_avail();
                saved.next_used = queue.next_used();
            }
        }
    }

    /// Whether these registers could have come about by [`Registers::write`]; asked before restored ones are used.
    pub(super) fn fits(&self, offer: &Offer, memory: &Memory) -> Result<(), &'static str> {
        let steps = self.status & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        if ![0, 1, 3, 11, 15].contains(&steps) || self.status & !ALL_STATUS != 0 {
            return Err("status");
        }
        let negotiated = self.status & FEATURES_OK != 0;
        if negotiated && !acceptable(self.driver_features, offer.features) {
            return Err("features");
        }
        if self.queues.len() != offer.queue_sizes.len() {
            return Err("number of queues");
        }
        let sound = |(queue, max): (&SavedQueue, &u16)| !queue.ready || queue.is_sound(*max, memory);
        if !self.queues.iter().zip(&offer.queue_sizes).all(sound) {
            return Err("a queue");
        }
        if !negotiated && self.queues.iter().any(|queue| queue.ready) {
            return Err("a queue is ready too early");
        }
        Ok(())
    }

    fn selected(&self) -> Option<&SavedQueue> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn selected_max(&self, offer: &Offer) -> Option<u16> {
        offer.queue_sizes.get(usize::try_from(self.queue_select).ok()?).copied()
    }

    fn accept_features(&mut self, value: u32) -> Effect {
        if self.is_live() {
            return self.break_down();
        }
        if self.status & DRIVER != 0 && self.status & FEATURES_OK == 0 {
            let (old, new) = (self.driver_features, u64::from(value));
            match self.driver_features_select {
                0 => self.driver_features = (old & !0xffff_ffff) | new,
                1 => self.driver_features = (old & 0xffff_ffff) | (new << 32),
                // There are no features beyond bit 63; a driver that asks for some asks in vain.
                _ => {}
            }
        }
        Effect::Nothing
    }

    fn set_status(&mut self, value: u32, offer: &Offer) -> Effect {
        if value == 0 {
            *self = Registers::new(offer);
            return Effect::Reset;
        }
        // The device's own bit is not the driver's to write: take it as read back.
        let value = value & !DEVICE_NEEDS_RESET;
        let now = self.status & !DEVICE_NEEDS_RESET;
        if value & !ALL_STATUS != 0 || value & now != now {
            return Effect::Nothing;
        }
        let added = value & !now;
        // Giving up is allowed at any time, beside at most one step forward.
        let step = added & !FAILED;
        let before = match step {
            0 => now & !FAILED,
            ACKNOWLEDGE => 0,
            DRIVER => ACKNOWLEDGE,
            FEATURES_OK => ACKNOWLEDGE | DRIVER,
            DRIVER_OK => ACKNOWLEDGE | DRIVER | FEATURES_OK,
            _ => return Effect::Nothing,
        };
        if now & !FAILED != before {
            return Effect::Nothing;
        }
        // A driver sees by reading it back that FEATURES_OK did not stick.
        if step == FEATURES_OK && !acceptable(self.driver_features, offer.features) {
            return Effect::Nothing;
        }
        self.status |= added;
        // A device that needs a reset does not start.
        if step == DRIVER_OK && self.status & (FAILED | DEVICE_NEEDS_RESET) == 0 {
            return Effect::Start;
        }
        Effect::Nothing
    }

    fn configure_queue(&mut self, offset: u64, value: u32, offer: &Offer, memory: &Memory) -> Effect {
        if self.is_live() {
            return self.break_down();
        }
        let Some(max) = self.selected_max(offer) else { return Effect::Nothing };
        if self.status & FEATURES_OK == 0 {
            return Effect::Nothing;
        }
        let Some(queue) = usize::try_from(self.queue_select).ok().and_then(|at| self.queues.get_mut(at))
        else {
            return Effect::Nothing;
        };
        if offset == QUEUE_READY {
            queue.ready = value & 1 != 0 && queue.is_sound(max, memory);
        } else if !queue.ready {
            queue.configure(offset, value, max);
        }
        Effect::Nothing
    }

    /// The driver touched what is frozen while the device is live.
    fn break_down(&mut self) -> Effect {
        if self.status & DEVICE_NEEDS_RESET != 0 {
            return Effect::Nothing;
        }
        self.status |= DEVICE_NEEDS_RESET;
        Effect::NeedsReset
    }
}

impl SavedQueue {
    fn configure(&mut self, offset: u64, value: u32, max: u16) {
        match offset {
            QUEUE_SIZE => self.size = u16::try_from(value).ok().filter(|size| fits(*size, max)).unwrap_or(0),
            QUEUE_DESCRIPTORS_LOW => set_low(&mut self.descriptors, value),
            QUEUE_DESCRIPTORS_HIGH => set_high(&mut self.descriptors, value),
            QUEUE_DRIVER_LOW => set_low(&mut self.driver, value),
            QUEUE_DRIVER_HIGH => set_high(&mut self.driver, value),
            QUEUE_DEVICE_LOW => set_low(&mut self.device, value),
            QUEUE_DEVICE_HIGH => set_high(&mut self.device, value),
            _ => {}
        }
    }

    /// Whether it may be made ready: its size is allowed, its three parts are aligned and lie in memory.
    fn is_sound(&self, max: u16, memory: &Memory) -> bool {
        let size = usize::from(self.size);
        // A queue has at most 2^15 entries of at most 16 bytes: none of these can be large.
        let parts = [
            (self.descriptors, size.saturating_mul(16), 16_u64),
            (self.driver, size.saturating_mul(2).saturating_add(6), 2),
            (self.device, size.saturating_mul(8).saturating_add(6), 4),
        ];
        fits(self.size, max)
            && parts.iter().all(|(at, length, alignment)| {
                // Address 0 is what a queue has that was never set up.
                *at != 0
                    && at.checked_rem(*alignment) == Some(0)
                    && at.checked_add(u64::try_from(*length).unwrap_or(u64::MAX)).is_some()
                    && memory.check_range(GuestAddress(*at), *length)
            })
    }
}

fn fits(size: u16, max: u16) -> bool {
    size.is_power_of_two() && size <= max
}

/// Nothing that was not offered, and the one feature that this version of the transport stands on (6.1).
fn acceptable(accepted: u64, offered: u64) -> bool {
    accepted & !offered == 0 && accepted & FEATURE_VERSION_1 != 0
}

fn is_queue_setting(offset: u64) -> bool {
    matches!(
        offset,
        QUEUE_SIZE
            | QUEUE_READY
            | QUEUE_DESCRIPTORS_LOW
            | QUEUE_DESCRIPTORS_HIGH
            | QUEUE_DRIVER_LOW
            | QUEUE_DRIVER_HIGH
            | QUEUE_DEVICE_LOW
            | QUEUE_DEVICE_HIGH
    )
}

fn low(wide: u64) -> u32 {
    (wide & 0xffff_ffff) as u32
}

fn high(wide: u64) -> u32 {
    (wide >> 32) as u32
}

fn set_low(wide: &mut u64, value: u32) {
    *wide = (*wide & !0xffff_ffff) | u64::from(value);
}

fn set_high(wide: &mut u64, value: u32) {
    *wide = (*wide & 0xffff_ffff) | (u64::from(value) << 32);
}

// Register offsets (virtio 1.2, 4.2.2).
pub(super) const MAGIC_VALUE: u64 = 0x000;
pub(super) const VERSION: u64 = 0x004;
pub(super) const DEVICE_ID: u64 = 0x008;
pub(super) const VENDOR_ID: u64 = 0x00c;
pub(super) const DEVICE_FEATURES: u64 = 0x010;
pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x014;
pub(super) const DRIVER_FEATURES: u64 = 0x020;
pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x024;
pub(super) const QUEUE_SELECT: u64 = 0x030;
pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
pub(super) const QUEUE_SIZE: u64 = 0x038;
pub(super) const QUEUE_READY: u64 = 0x044;
pub(super) const QUEUE_NOTIFY: u64 = 0x050;
pub(super) const INTERRUPT_STATUS: u64 = 0x060;
pub(super) const INTERRUPT_ACK: u64 = 0x064;
pub(super) const STATUS: u64 = 0x070;
pub(super) const QUEUE_DESCRIPTORS_LOW: u64 = 0x080;
pub(super) const QUEUE_DESCRIPTORS_HIGH: u64 = 0x084;
pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
pub(super) const SHM_LEN_LOW: u64 = 0x0b0;
pub(super) const SHM_LEN_HIGH: u64 = 0x0b4;
pub(super) const SHM_BASE_LOW: u64 = 0x0b8;
pub(super) const SHM_BASE_HIGH: u64 = 0x0bc;
pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
pub(super) const CONFIG: u64 = 0x100;

// Status bits (2.1).
pub(super) const ACKNOWLEDGE: u32 = 1;
pub(super) const DRIVER: u32 = 2;
pub(super) const DRIVER_OK: u32 = 4;
pub(super) const FEATURES_OK: u32 = 8;
pub(super) const DEVICE_NEEDS_RESET: u32 = 64;
pub(super) const FAILED: u32 = 128;
const ALL_STATUS: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | DEVICE_NEEDS_RESET | FAILED;

// Feature bits that the transport adds (6).
pub(super) const FEATURE_INDIRECT_DESCRIPTORS: u64 = 1 << 28;
pub(super) const FEATURE_EVENT_INDEX: u64 = 1 << 29;
pub(super) const FEATURE_VERSION_1: u64 = 1 << 32;
