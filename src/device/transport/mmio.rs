//! A virtio device on the memory bus: a window of 4 KiB whose accesses the machine hands to [`Mmio`].
//!
//! | The guest can | and then |
//! |---|---|
//! | access any offset with any width, in any order | registers answer to aligned 4-byte accesses alone, the configuration space to any; the rest reads as 0 and is not written |
//! | set up queues anywhere, of any size | a queue that is not wholly in memory, aligned and of an allowed size never becomes ready |
//! | change a queue of a live device | it is ignored, and DEVICE_NEEDS_RESET is shown |
//! | reset at any time | the vcpu waits until the device's thread has stopped, so nothing is written into the guest's memory afterwards |
//! | notify queues that do not exist | nothing |
//!
//! Vcpu threads call [`Mmio::read`] and [`Mmio::write`], several at a time; the registers are behind a lock that the
//! device's thread never takes.

use super::mirror::Mirror;
use super::registers::{self as register, Effect, Offer, Registers};
use super::signals::Signals;
use super::thread::{DeviceThread, Work};
use super::{TransportError, registers};
use crate::device::{ActiveQueue, Description, DeviceError, Memory, Session};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A device's window on the bus.
pub struct Mmio {
    description: Description,
    offer: Offer,
    memory: Memory,
    signals: Arc<Signals>,
    /// What the guest reads instead of coming here.
    mirror: Option<Mirror>,
    /// One for each queue; the device holds duplicates.
    kicks: Vec<EventFd>,
    /// Tells the device to stop; the device holds a duplicate.
    stop: EventFd,
    inner: Mutex<Inner>,
}

struct Inner {
    registers: Registers,
    thread: Option<DeviceThread>,
    life: Life,
}

/// Where the descriptors are that a session needs. They are made once, so that a start cannot fail for want of them.
enum Life {
    Idle(Parts),
    /// With the device's thread.
    Running,
    /// The thread is gone.
    Over,
}

struct Parts {
    kicks: Vec<EventFd>,
    stop: EventFd,
}

impl Mmio {
    /// A window onto the device of `description`, whose thread is at the other end of `thread`. A write to `irq` must
    /// interrupt the guest (an irqfd).
    pub fn open(
        description: Description,
        memory: Memory,
        irq: EventFd,
        mirror: Option<Mirror>,
        thread: DeviceThread,
    ) -> Result<Mmio, TransportError> {
        let device = description.name;
        if description.queue_sizes.iter().any(|size| Queue::new(*size).is_err()) {
            return Err(TransportError::QueueSize { device });
        }
        let events = || -> std::io::Result<_> {
            let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            let kicks = description.queue_sizes.iter().map(|_| event()).collect::<Result<Vec<_>, _>>()?;
            let stop = event()?;
            let parts = Parts {
                kicks: kicks.iter().map(EventFd::try_clone).collect::<Result<_, _>>()?,
                stop: stop.try_clone()?,
            };
            Ok((kicks, stop, parts))
        };
        let (kicks, stop, parts) = events().map_err(|source| TransportError::Events { device, source })?;
        let offer = Offer {
            device_id: description.id,
            features: description.features
                | registers::FEATURE_VERSION_1
                | registers::FEATURE_EVENT_INDEX
                | registers::FEATURE_INDIRECT_DESCRIPTORS,
            queue_sizes: description.queue_sizes.clone(),
        };
        let inner =
            Inner { registers: Registers::new(&offer), thread: Some(thread), life: Life::Idle(parts) };
        let signals = Arc::new(Signals::new(irq, mirror.clone()));
        if let Some(mirror) = &mirror {
            description.config.show_in(mirror.clone());
        }
        let inner = Mutex::new(inner);
        let mmio = Mmio { description, offer, memory, signals, mirror, kicks, stop, inner };
        mmio.show();
        Ok(mmio)
    }

    /// One descriptor for each queue. The machine may register each as an ioeventfd for writes of the queue's index
    /// to [`QUEUE_NOTIFY`], so that a notification does not leave the kernel; writes that arrive here work as well.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// The guest reads. `offset` is within the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(at) = offset.checked_sub(register::CONFIG) {
            return self.description.config.read(at, data);
        }
        let value = if is_register(offset, data.len()) { self.read_register(offset) } else { 0 };
        for (to, byte) in data.iter_mut().zip(value.to_le_bytes().into_iter().chain(std::iter::repeat(0))) {
            *to = byte;
        }
    }

    /// The guest writes. `offset` is within the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(register::CONFIG) {
            return self.description.config.write(at, data);
        }
        if !is_register(offset, data.len()) {
            return;
        }
        if let Ok(bytes) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
    }

    /// Stops the device and says where everything stands. Call [`Mmio::resume`] to go on. The vcpus must not run.
    pub fn suspend(&self) -> Registers {
        let mut inner = self.lock();
        inner.stop(&self.stop);
        let mut saved = inner.registers.clone();
        saved.interrupt_status = self.signals.interrupt_status();
        if self.signals.needs_reset() {
            saved.status |= register::DEVICE_NEEDS_RESET;
        }
        saved
    }

    /// Goes on after [`Mmio::suspend`] or [`Mmio::restore`].
    pub fn resume(&self) {
        let mut inner = self.lock();
        let broken = inner.registers.status & (register::FAILED | register::DEVICE_NEEDS_RESET) != 0;
        if inner.registers.is_live() && !broken && !self.signals.needs_reset() {
            inner.start(self, true);
        }
    }

    /// Begins after [`Mmio::restore`], for a device that had heard nothing of its driver when the registers were saved: as
    /// if the driver were ready at this moment.
    pub fn begin(&self) {
        let mut inner = self.lock();
        if inner.registers.is_live() {
            inner.start(self, false);
        }
    }

    /// Takes over what [`Mmio::suspend`] gave, perhaps in another process. Nothing is believed that was not checked.
    /// The device starts with [`Mmio::resume`].
    pub fn restore(&self, saved: Registers) -> Result<(), TransportError> {
        let device = self.description.name;
        saved.fits(&self.offer, &self.memory).map_err(|what| TransportError::Saved { device, what })?;
        let mut inner = self.lock();
        if !matches!(inner.life, Life::Idle(_)) {
            return Err(TransportError::InUse { device });
        }
        self.signals.restore(saved.interrupt_status, saved.status & register::DEVICE_NEEDS_RESET != 0);
        inner.registers = saved;
        drop(inner);
        self.show();
        Ok(())
    }

    /// What the device remembers besides its registers. To be called after [`Mmio::suspend`].
    pub fn save_device(&self) -> Result<Vec<u8>, TransportError> {
        self.ask(Work::Save)
    }

    /// Has the device take over what [`Mmio::save_device`] gave, perhaps in another process. To be called before
    /// [`Mmio::resume`].
    pub fn restore_device(&self, saved: Vec<u8>) -> Result<(), TransportError> {
        self.ask(|answer| Work::Restore(saved, answer))
    }

    /// Has the device's thread do something, which no session is on, and waits for the answer.
    fn ask<T>(&self, work: impl FnOnce(Sender<Result<T, DeviceError>>) -> Work) -> Result<T, TransportError> {
        let device = self.description.name;
        let inner = self.lock();
        let (Some(thread), Life::Idle(_)) = (&inner.thread, &inner.life) else {
            return Err(TransportError::InUse { device });
        };
        let (answer, answered) = channel();
        // Should the thread be gone, so is the other end.
        let _ = thread.start.send(work(answer));
        let outcome = answered.recv().map_err(|_| TransportError::Gone { device })?;
        outcome.map_err(|source| TransportError::State { device, source })
    }

    /// Stops the device for good; its thread ends.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.stop(&self.stop);
        inner.thread = None;
        inner.life = Life::Over;
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::INTERRUPT_STATUS => self.signals.interrupt_status(),
            register::CONFIG_GENERATION => self.description.config.generation(),
            register::STATUS => {
                let shown = if self.signals.needs_reset() { register::DEVICE_NEEDS_RESET } else { 0 };
                self.lock().registers.status | shown
            }
            _ => self.lock().registers.read(offset, &self.offer),
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            register::QUEUE_NOTIFY => {
                if let Some(kick) = usize::try_from(value).ok().and_then(|index| self.kicks.get(index)) {
                    // It can only fail when the counter is full, and then the device has not seen the last one yet.
                    let _ = kick.write(1);
                }
            }
            register::INTERRUPT_ACK => self.signals.acknowledge(value),
            _ => {
                let mut inner = self.lock();
                match inner.registers.write(offset, value, &self.offer, &self.memory) {
                    Effect::Nothing => {}
                    Effect::Start => inner.start(self, false),
                    Effect::NeedsReset => self.signals.set_needs_reset(),
                    Effect::Reset => {
                        if inner.stop(&self.stop)
                            && let Some(thread) = &inner.thread
                        {
                            // Should the thread be gone, it has forgotten.
                            let _ = thread.start.send(Work::Reset);
                        }
                        inner.registers = Registers::new(&self.offer);
                        self.signals.clear();
                    }
                }
                drop(inner);
                self.show();
            }
        }
    }

    /// Shows all registers as they are now.
    fn show(&self) {
        let Some(mirror) = &self.mirror else { return };
        // The interrupt status is there all the time.
        for offset in
            (0..register::CONFIG_GENERATION).step_by(4).filter(|at| *at != register::INTERRUPT_STATUS)
        {
            mirror.show(offset, self.read_register(offset));
        }
        self.signals.show_needs_reset();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mmio {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    /// Hands the device a session.
    fn start(&mut self, mmio: &Mmio, resumed: bool) {
        let (Some(thread), Life::Idle(_)) = (&self.thread, &self.life) else { return };
        let Some(queues) = self.registers.activate(&mmio.offer) else {
            mmio.signals.set_needs_reset();
            return;
        };
        let Life::Idle(parts) = std::mem::replace(&mut self.life, Life::Running) else { return };
        // What was written to them in an earlier life does not count; a device looks at its queues when it starts.
        for event in parts.kicks.iter().chain([&parts.stop]) {
            let _ = event.read();
        }
        let queues = queues.into_iter().zip(parts.kicks).map(|(queue, kick)| ActiveQueue { queue, kick });
        let session = Session {
            memory: mmio.memory.clone(),
            queues: queues.collect(),
            features: self.registers.features(),
            resumed,
            interrupt: mmio.signals.clone(),
            stop: parts.stop,
        };
        if thread.start.send(Work::Serve { session, signals: mmio.signals.clone() }).is_err() {
            self.life = Life::Over;
            mmio.signals.set_needs_reset();
        }
    }

    /// Stops the device if it runs, and waits for it: when this returns, it touches nothing any more. Whether it ran.
    fn stop(&mut self, stop: &EventFd) -> bool {
        let (Some(thread), Life::Running) = (&self.thread, &self.life) else { return false };
        let _ = stop.write(1);
        let Ok(session) = thread.back.recv() else {
            self.life = Life::Over;
            return false;
        };
        self.registers.record_progress(session.queues.iter().map(|active| &active.queue));
        let kicks = session.queues.into_iter().map(|active| active.kick).collect();
        self.life = Life::Idle(Parts { kicks, stop: session.stop });
        true
    }
}

fn is_register(offset: u64, width: usize) -> bool {
    width == 4 && offset & 3 == 0
}

/// Offset of the register to which a driver writes a queue's index (virtio 1.2, 4.2.2).
pub const QUEUE_NOTIFY: u64 = register::QUEUE_NOTIFY;

/// Offset of the register to which a driver writes what it has seen of [`INTERRUPT_STATUS`](register::INTERRUPT_STATUS),
/// and what it writes nearly always. With a mirror it need not arrive here: a bit that stays set makes the driver look
/// at its queues once more at the next change of the configuration, and nothing else.
pub const INTERRUPT_ACK: (u64, u32) = (register::INTERRUPT_ACK, 1);

/// Size of the window on the bus.
pub const WINDOW: u64 = 0x1000;
