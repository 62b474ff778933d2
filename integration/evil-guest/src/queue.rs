//! A virtqueue (virtio 1.2, 2.7), driven well or badly: nothing here says what may be written where.

use crate::mmio::{QUEUE_NOTIFY, Window};
use crate::{Failure, memory, time};

/// A split virtqueue that a device has taken.
pub struct Queue {
    window: Window,
    index: u32,
    /// How many descriptors it has.
    pub size: u16,
    /// Where its parts are.
    pub rings: Rings,
    offered: u16,
    taken: u16,
}

/// The places of a queue's parts.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
}

impl Rings {
    /// In the part of the arena that belongs to queues of this index.
    pub fn of_index(index: u32) -> Rings {
        let base = memory::ARENA + u64::from(index) * 0x1_0000;
        Rings { descriptors: base, driver: base + 0x4000, device: base + 0x8000 }
    }

    /// Empties them.
    pub fn clear(&self) {
        for at in [self.descriptors, self.driver, self.device] {
            memory::clear(at, 0x4000);
        }
    }

    /// Writes a descriptor.
    pub fn describe(&self, number: u16, to: Descriptor) {
        let at = self.descriptors + u64::from(number) * 16;
        memory::write(at, 8, to.address);
        memory::write(at + 8, 4, to.length.into());
        memory::write(at + 12, 2, to.flags.into());
        memory::write(at + 14, 2, to.next.into());
    }

    /// Writes a place of the driver's ring.
    pub fn place(&self, place: u16, head: u16) {
        memory::write(self.driver + 4 + u64::from(place) * 2, 2, head.into());
    }

    /// Says how far the driver's ring is filled.
    pub fn filled(&self, index: u16) {
        memory::write(self.driver + 2, 2, index.into());
    }

    /// How far the device's ring is filled.
    pub fn used(&self) -> u16 {
        memory::read(self.device + 2, 2) as u16
    }
}

/// A descriptor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// One that the device reads.
    pub fn reads(address: u64, length: u32) -> Descriptor {
        Descriptor { address, length, flags: 0, next: 0 }
    }

    /// One that the device writes.
    pub fn writes(address: u64, length: u32) -> Descriptor {
        Descriptor { address, length, flags: WRITE, next: 0 }
    }

    /// Followed by another.
    pub fn then(self, next: u16) -> Descriptor {
        Descriptor { flags: self.flags | NEXT, next, ..self }
    }
}

impl Queue {
    /// Sets up a queue of a device that agreed on its features.
    pub fn open(window: Window, index: u32) -> Result<Queue, Failure> {
        let (size, rings) = (window.queue(index), Rings::of_index(index));
        rings.clear();
        if !window.set_up(size.into(), rings.descriptors, rings.driver, rings.device) {
            return Err(Failure("a good queue is not taken", [index.into(), size.into(), 0]));
        }
        Ok(Queue { window, index, size, rings, offered: 0, taken: 0 })
    }

    /// Offers a chain of one or two descriptors, at places that belong to it alone.
    pub fn offer(&mut self, number: u16, first: Descriptor, second: Option<Descriptor>) {
        let head = number * 2;
        match second {
            Some(second) => {
                self.rings.describe(head, first.then(head + 1));
                self.rings.describe(head + 1, second);
            }
            None => self.rings.describe(head, first),
        }
        self.rings.place(self.offered % self.size, head);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows the device what was offered.
    pub fn kick(&self) {
        self.rings.filled(self.offered);
        self.window.write(QUEUE_NOTIFY, self.index);
    }

    /// The next chain that the device has used: its number and how much was written.
    pub fn take(&mut self, ticks: u64) -> Option<(u16, u32)> {
        let (rings, taken) = (self.rings, self.taken);
        if !time::wait(ticks, || rings.used() != taken) {
            return None;
        }
        let at = rings.device + 4 + u64::from(taken % self.size) * 8;
        self.taken = taken.wrapping_add(1);
        Some((memory::read(at, 4) as u16 / 2, memory::read(at + 4, 4) as u32))
    }
}

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const IN_TABLE: u16 = 4;
