//! A virtio device's registers (virtio 1.2, 4.2.2).

use crate::{Failure, memory, time};

/// A device's window.
#[derive(Clone, Copy)]
pub struct Window {
    base: u64,
}

impl Window {
    /// The window of a slot, whether or not a device is there.
    pub fn of_slot(slot: u64) -> Window {
        Window { base: DEVICES + slot * SIZE }
    }

    /// The `number`th device of that kind.
    pub fn find(id: u32, number: usize) -> Result<Window, Failure> {
        let mut all = (0..SLOTS).map(Window::of_slot);
        all.by_ref()
            .filter(|window| window.read(DEVICE_ID) == id)
            .nth(number)
            .ok_or(Failure("a device is not there", [id.into(), number as u64, 0]))
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        memory::read(self.base + offset, 4) as u32
    }

    /// Writes one.
    pub fn write(&self, offset: u64, value: u32) {
        memory::write(self.base + offset, 4, value.into());
    }

    /// Resets the device and agrees with it on these features. Queues come next, then [`Window::go`].
    pub fn begin(&self, features: u64) -> Result<(), Failure> {
        self.reset()?;
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        for (half, value) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(DRIVER_FEATURES_SELECT, half);
            self.write(DRIVER_FEATURES, value);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.expect_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    }

    /// The driver is ready.
    pub fn go(&self) -> Result<(), Failure> {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        Ok(())
    }

    /// Resets the device.
    pub fn reset(&self) -> Result<(), Failure> {
        self.write(STATUS, 0);
        // A reset is done when the write is, but the registers may be shown a moment later.
        time::wait(time::LONG, || self.read(STATUS) == 0);
        self.expect_status(0)
    }

    /// Whether the device says that it needs a reset.
    pub fn is_broken(&self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    fn expect_status(&self, status: u32) -> Result<(), Failure> {
        match self.read(STATUS) {
            now if now == status => Ok(()),
            now => Err(Failure("a device's status is another", [self.base, now.into(), status.into()])),
        }
    }

    /// Chooses a queue and says how large it can be; 0 if there is none.
    pub fn queue(&self, index: u32) -> u16 {
        self.write(QUEUE_SELECT, index);
        self.read(QUEUE_SIZE_MAX) as u16
    }

    /// Sets up the chosen queue; whether the device has taken it.
    pub fn set_up(&self, size: u32, descriptors: u64, driver: u64, device: u64) -> bool {
        self.write(QUEUE_SIZE, size);
        for (low, value) in [(QUEUE_DESCRIPTORS, descriptors), (QUEUE_DRIVER, driver), (QUEUE_DEVICE, device)]
        {
            self.write(low, value as u32);
            self.write(low + 4, (value >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
        self.read(QUEUE_READY) == 1
    }
}

/// The first window, its size, and how many there are.
pub const DEVICES: u64 = 0xd000_0000;
/// Bytes of a window.
pub const SIZE: u64 = 0x1000;
/// How many windows there are.
pub const SLOTS: u64 = 16;

pub const DEVICE_ID: u64 = 0x8;
pub const DRIVER_FEATURES: u64 = 0x20;
pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
pub const QUEUE_SELECT: u64 = 0x30;
pub const QUEUE_SIZE_MAX: u64 = 0x34;
pub const QUEUE_SIZE: u64 = 0x38;
pub const QUEUE_READY: u64 = 0x44;
pub const QUEUE_NOTIFY: u64 = 0x50;
pub const STATUS: u64 = 0x70;
/// The low halves; the high ones follow.
pub const QUEUE_DESCRIPTORS: u64 = 0x80;
pub const QUEUE_DRIVER: u64 = 0x90;
pub const QUEUE_DEVICE: u64 = 0xa0;

pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const NEEDS_RESET: u32 = 64;

/// The one feature without which nothing is agreed on.
pub const VERSION_1: u64 = 1 << 32;
pub const INDIRECT: u64 = 1 << 28;
