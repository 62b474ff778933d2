//! Slots that are kept for devices that come while the guest runs.
//!
//! ```text
//!   vacant --plug--> the device's window, a thread --(the guest binds its driver)--> in use
//!     ^                                                                               |
//!     +------------------ unplug (whether or not the guest has let go) ---------------+
//! ```
//! A vacant slot answers as a placeholder: a device of id 0, which a driver passes over without a word (virtio 1.2,
//! 4.2.2.1). Linux then looks at it again when it is told to bind it. So a spare slot costs the guest three reads at
//! boot, and the host nothing: event descriptors, interrupt line and thread are made when a device comes.
//!
//! May be called by any thread whose walls let it make a device's ([`super::walls`]).

use super::arch::current::layout;
use super::bus::Target;
use super::running::unknown;
use super::slots::{self, SlotError};
use super::walls::{Thread, Walls, entered};
use crate::device::transport::{DeviceThread, Mmio, Seat, device_thread, mmio, serve};
use crate::device::{Device, Memory};
use kvm_ioctls::{IoEventAddress, VmFd};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The spare slots of a machine.
pub struct Spares {
    vm: Arc<VmFd>,
    memory: Memory,
    slots: Mutex<Vec<Spare>>,
    walls: Walls,
}

struct Spare {
    /// Its number among all slots: the guest's name for it.
    slot: usize,
    place: Arc<Place>,
    occupied: Option<Occupant>,
}

struct Occupant {
    window: Arc<Mmio>,
    interrupt: EventFd,
}

/// What the guest finds at a spare slot's addresses.
#[derive(Default)]
pub(super) struct Place {
    window: RwLock<Option<Arc<Mmio>>>,
}

impl Spares {
    /// Slots with these numbers, whose places are on the bus already.
    pub(super) fn new(
        vm: Arc<VmFd>,
        memory: Memory,
        places: Vec<(usize, Arc<Place>)>,
        walls: Walls,
    ) -> Spares {
        let slots = places.into_iter().map(|(slot, place)| Spare { slot, place, occupied: None }).collect();
        Spares { vm, memory, slots: Mutex::new(slots), walls }
    }

    /// Puts a device into a vacant slot, and says which. The guest does not notice by itself.
    pub fn plug(&self, device: Box<dyn Device>) -> Result<u32, SlotError> {
        let description = device.description();
        let name = description.name;
        let failed = |what| move |source: io::Error| SlotError::Connect { device: name, what, source };
        let mut slots = self.lock();
        let Some(spare) = slots.iter_mut().find(|spare| spare.occupied.is_none()) else {
            return Err(SlotError::Full { device: name });
        };
        let (address, line) = slots::place(spare.slot).ok_or(SlotError::Full { device: name })?;
        let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(failed("event descriptor"))?;
        let ours = interrupt.try_clone().map_err(failed("event descriptor"))?;
        let (thread, seat): (DeviceThread, Seat) = device_thread();
        let window = Arc::new(Mmio::open(description, self.memory.clone(), interrupt, None, thread)?);
        let occupant = Occupant { window, interrupt: ours };
        let connected = self
            .connect(&occupant, address, line)
            .map_err(failed("notifications"))
            .and_then(|()| seat_device(name, device, seat, self.walls).map_err(failed("thread")));
        if let Err(error) = connected {
            self.disconnect(&occupant, address, line);
            return Err(error);
        }
        spare.place.set(Some(Arc::clone(&occupant.window)));
        spare.occupied = Some(occupant);
        Ok(u32::try_from(spare.slot).unwrap_or(u32::MAX))
    }

    /// Takes the device out of a slot; its thread ends, and what it held is closed.
    pub fn unplug(&self, slot: u32) {
        let mut slots = self.lock();
        let number = usize::try_from(slot).unwrap_or(usize::MAX);
        let Some(spare) = slots.iter_mut().find(|spare| spare.slot == number) else { return };
        let Some(occupant) = spare.occupied.take() else { return };
        spare.place.set(None);
        if let Some((address, line)) = slots::place(spare.slot) {
            self.disconnect(&occupant, address, line);
        }
        // A vcpu may be in it at this moment, and drops it then.
        occupant.window.close();
    }

    fn connect(&self, occupant: &Occupant, address: u64, line: u32) -> io::Result<()> {
        self.vm.register_irqfd(&occupant.interrupt, line)?;
        for (queue, kick) in (0u32..).zip(occupant.window.kicks()) {
            self.vm.register_ioevent(kick, &notify(address), queue)?;
        }
        Ok(())
    }

    /// Undoes as much of `connect` as was done.
    fn disconnect(&self, occupant: &Occupant, address: u64, line: u32) {
        let _ = self.vm.unregister_irqfd(&occupant.interrupt, line);
        for (queue, kick) in (0u32..).zip(occupant.window.kicks()) {
            let _ = self.vm.unregister_ioevent(kick, &notify(address), queue);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn notify(address: u64) -> IoEventAddress {
    IoEventAddress::Mmio(address.saturating_add(mmio::QUEUE_NOTIFY))
}

fn seat_device(name: &'static str, mut device: Box<dyn Device>, seat: Seat, walls: Walls) -> io::Result<()> {
    let thread = Thread::of_device(name).ok_or_else(|| unknown(name))?;
    let body = move || {
        if entered(walls, thread, || device.settle()) {
            serve(device, seat);
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

impl Place {
    fn set(&self, window: Option<Arc<Mmio>>) {
        *self.window.write().unwrap_or_else(PoisonError::into_inner) = window;
    }

    fn occupant(&self) -> Option<Arc<Mmio>> {
        self.window.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Target for Place {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // Not under the lock: an access may wait until the device has stopped.
        if let Some(window) = self.occupant() {
            return window.read(offset, data);
        }
        let value = match offset {
            MAGIC_AT => MAGIC,
            VERSION_AT => VERSION,
            _ => 0,
        };
        data.fill(0);
        for (to, byte) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = byte;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(window) = self.occupant() {
            window.write(offset, data);
        }
    }
}

/// How many there are: for the interfaces that a container may have, for the balloon, and for memory that is plugged.
pub const SPARE_SLOTS: usize = INTERFACE_SLOTS + 2;
/// How many interfaces a container may have.
pub const INTERFACE_SLOTS: usize = 8;
const _: () = assert!(SPARE_SLOTS < layout::DEVICE_SLOTS);

// Virtio 1.2, 4.2.2: magic value, version, and no device id.
const MAGIC_AT: u64 = 0;
const MAGIC: u32 = 0x7472_6976;
const VERSION_AT: u64 = 4;
const VERSION: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vacant_slot_is_a_placeholder() {
        let place = Place::default();
        let read = |at| {
            let mut data = [0xff; 4];
            place.read(at, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!([read(0), read(4), read(8), read(0xc), read(0x70)], [MAGIC, 2, 0, 0, 0]);
        place.write(0x70, &[1, 0, 0, 0]);
        assert_eq!(read(0x70), 0);
        let mut byte = [0xff];
        place.read(0, &mut byte);
        assert_eq!(byte, [0x76]);
    }
}
