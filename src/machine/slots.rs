//! Gives devices their places: a window on the bus, an interrupt line, a thread.

use super::arch::current::layout;
use super::boot::command_line::CommandLine;
use super::bus::{Bus, BusError, Target};
use super::spare;
use super::windows::Windows;
use crate::device::transport::{DeviceThread, Mmio, Seat, TransportError, device_thread, mmio};
use crate::device::{Device, Memory};
use kvm_ioctls::{IoEventAddress, VmFd};
use std::io;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The slots of a machine, filled from the first on.
pub struct Slots<'m> {
    vm: &'m VmFd,
    memory: &'m Memory,
    bus: Bus,
    pages: Option<Windows>,
    windows: Vec<Arc<Mmio>>,
    seats: Vec<(Box<dyn Device>, Seat)>,
}

/// What came of it.
pub struct Filled {
    /// The bus with the devices on it.
    pub bus: Bus,
    /// The devices' windows, by slot.
    pub windows: Vec<Arc<Mmio>>,
    /// The devices, which have no threads yet.
    pub seats: Vec<(Box<dyn Device>, Seat)>,
}

impl<'m> Slots<'m> {
    /// All free.
    pub fn new(vm: &'m VmFd, memory: &'m Memory) -> Slots<'m> {
        Slots {
            vm,
            memory,
            bus: Bus::new(),
            pages: Windows::open(vm),
            windows: Vec::new(),
            seats: Vec::new(),
        }
    }

    /// Puts `device` into the next slot and names it on the kernel's command line.
    pub fn add(&mut self, device: Box<dyn Device>, command_line: &mut CommandLine) -> Result<(), SlotError> {
        let description = device.description();
        let name = description.name;
        let failed = |what| move |source: io::Error| SlotError::Connect { device: name, what, source };
        let slot = self.windows.len();
        let (address, line) = place(slot).ok_or(SlotError::Full { device: name })?;
        let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(failed("event descriptor"))?;
        self.vm.register_irqfd(&interrupt, line).map_err(|source| failed("interrupt line")(source.into()))?;
        let (thread, seat): (DeviceThread, Seat) = device_thread();
        let mirror = match &self.pages {
            Some(pages) => pages.mirror(self.vm, name, slot)?,
            None => None,
        };
        let window = Mmio::open(description, self.memory.clone(), interrupt, mirror, thread)?;
        let notify = IoEventAddress::Mmio(address.saturating_add(mmio::QUEUE_NOTIFY));
        for (queue, kick) in (0u32..).zip(window.kicks()) {
            self.vm
                .register_ioevent(kick, &notify, queue)
                .map_err(|source| failed("queue notification")(source.into()))?;
        }
        let window = Arc::new(window);
        self.bus.add(address, layout::DEVICE_SIZE, window.clone())?;
        command_line.device(address, layout::DEVICE_SIZE, line);
        self.windows.push(window);
        self.seats.push((device, seat));
        Ok(())
    }

    /// Keeps the next `count` slots for devices that come later. They are named on the kernel's command line too.
    pub(super) fn spare(
        &mut self,
        count: usize,
        command_line: &mut CommandLine,
    ) -> Result<Vec<(usize, Arc<spare::Place>)>, SlotError> {
        let mut places = Vec::with_capacity(count);
        let first = self.windows.len();
        for slot in (first..layout::DEVICE_SLOTS).take(count) {
            let (address, line) = place(slot).ok_or(SlotError::Full { device: "spare" })?;
            let vacant = Arc::new(spare::Place::default());
            self.bus.add(address, layout::DEVICE_SIZE, vacant.clone())?;
            command_line.device(address, layout::DEVICE_SIZE, line);
            places.push((slot, vacant));
        }
        Ok(places)
    }

    /// The result.
    pub fn finish(self) -> Filled {
        if let Some(pages) = &self.pages {
            pages.show(self.vm, self.windows.len());
        }
        Filled { bus: self.bus, windows: self.windows, seats: self.seats }
    }
}

impl Target for Mmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.write(offset, data);
    }
}

/// Address and interrupt line of a slot.
pub(super) fn place(slot: usize) -> Option<(u64, u32)> {
    let number = u32::try_from(slot).ok().filter(|_| slot < layout::DEVICE_SLOTS)?;
    let address = u64::from(number).checked_mul(layout::DEVICE_SIZE)?.checked_add(layout::DEVICES)?;
    Some((address, layout::DEVICE_LINE.checked_add(number)?))
}

/// A device could not be given its place.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// No slot left.
    #[error("no slot is left for the {device} device")]
    Full {
        /// Its name.
        device: &'static str,
    },
    /// KVM or the host refused.
    #[error("cannot connect the {device} device's {what}")]
    Connect {
        /// Its name.
        device: &'static str,
        /// Which connection.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No transport.
    #[error("cannot make a device's transport")]
    Transport(#[from] TransportError),
    /// Taken; a mistake of ours.
    #[error("cannot put a device on the bus")]
    Bus(#[from] BusError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_in_the_hole_and_have_lines_of_the_io_apic() {
        assert_eq!(place(0), Some((0xd000_0000, 5)));
        assert_eq!(place(15), Some((0xd000_f000, 20)));
        assert_eq!(place(16), None);
        assert!(layout::DEVICE_LINE as usize + layout::DEVICE_SLOTS <= 24);
    }
}
