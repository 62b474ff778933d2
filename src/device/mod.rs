//! What the guest sees: paravirtual devices, and the contract between them and the machine.
//!
//! ```text
//!   guest driver --registers--> transport --Session--> Device::run (its own thread) --Interrupt--> guest driver
//!                                   ^ Description                    |
//!                                   +--------------------------------+ stop
//! ```
//! A device knows neither its transport nor the machine. It says what it is ([`Description`]), and serves the driver
//! from one thread of its own while there is a [`Session`]: from the driver's DRIVER_OK until it resets the device or
//! the machine stops. The thread exists before the guest's first instruction, so that its walls can be put up first.
//!
//! Everything that a device remembers between two requests stands in a plain struct that can be saved and restored.
//!
//! Every byte of guest memory and every register write comes from the guest and is hostile: read once, check, then use.
//! Nothing here may panic on it, and the lints of this module see to that.

pub mod balloon;
pub mod console;
mod event;
pub mod fs;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
pub mod mem;
pub mod memory;
pub mod net;
mod release;
pub mod rng;
mod single;
#[cfg(test)]
pub mod testing;
pub mod transport;
pub mod vsock;

pub use memory::{Memory, Region};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

/// A virtio device. Made by the machine before the guest starts, then moved to its own thread.
pub trait Device: Send {
    /// What the transport offers to the driver. Called once, before the guest starts.
    fn description(&self) -> Description;

    /// Called once, first of all on the device's own thread, before that may do no more than serve: what it takes from the
    /// host that has to be taken there.
    fn settle(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    /// Serves the driver until `session.stop` is readable, then returns with nothing under way and the queues in a
    /// state that can be saved. Called on the device's own thread, once for each time the driver sets DRIVER_OK; after
    /// a reset it may be called again, and must then start afresh.
    ///
    /// An error means that the driver broke the protocol beyond repair (or the host failed): the transport then shows
    /// DEVICE_NEEDS_RESET. It never ends the machine.
    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError>;

    /// The driver has reset the device after a session: nothing of that is to be remembered. Called on the device's own
    /// thread, as all that follows.
    fn reset(&mut self) {}

    /// What the device remembers between two sessions besides its queues, as bytes that know their version. Called while it is
    /// suspended. Nothing, for most.
    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        Ok(Vec::new())
    }

    /// Takes over what [`Device::save`] gave, perhaps in another process: the bytes are hostile. The next session is a
    /// resumed one.
    fn restore(&mut self, saved: &[u8]) -> Result<(), DeviceError> {
        if saved.is_empty() { Ok(()) } else { Err(DeviceError::NothingToRestore) }
    }
}

/// What a device is, as its driver may ask.
#[derive(Clone)]
pub struct Description {
    /// For thread names and logs: `fs`, `vsock`, ...
    pub name: &'static str,
    /// Virtio device id (virtio 1.2, section 5).
    pub id: u32,
    /// Device feature bits beyond VIRTIO_F_VERSION_1, VIRTIO_F_EVENT_IDX and VIRTIO_F_INDIRECT_DESC, which the
    /// transport adds.
    pub features: u64,
    /// The largest size of each queue.
    pub queue_sizes: Vec<u16>,
    /// The configuration space, shared with the device.
    pub config: Arc<ConfigSpace>,
}

/// A device's configuration space: read by the driver, changed by the device, in places written by the driver.
#[derive(Default)]
pub struct ConfigSpace {
    inner: Mutex<ConfigBytes>,
}

#[derive(Default)]
struct ConfigBytes {
    bytes: Vec<u8>,
    /// Which bytes the driver may write.
    writable: std::ops::Range<usize>,
    generation: u32,
    /// Where the driver reads it, if not here.
    mirror: Option<transport::Mirror>,
}

impl ConfigBytes {
    fn show(&self) {
        if let Some(mirror) = &self.mirror {
            mirror.show_config(&self.bytes, self.generation);
        }
    }
}

impl ConfigSpace {
    /// A space that holds `bytes`, of which the driver may write those in `writable`.
    pub fn new(bytes: Vec<u8>, writable: std::ops::Range<usize>) -> Arc<ConfigSpace> {
        Arc::new(ConfigSpace {
            inner: Mutex::new(ConfigBytes { bytes, writable, generation: 0, mirror: None }),
        })
    }

    /// Shows the space in a mirror from here on.
    pub fn show_in(&self, mirror: transport::Mirror) {
        let mut space = self.lock();
        space.mirror = Some(mirror);
        space.show();
    }

    /// Reads for the driver; what lies beyond the space reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let space = self.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let held = space.bytes.get(from..).unwrap_or(&[]).iter().copied();
        for (to, byte) in data.iter_mut().zip(held.chain(std::iter::repeat(0))) {
            *to = byte;
        }
    }

    /// Writes for the driver; bytes that it may not write stay as they are.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut space = self.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let writable = space.writable.clone();
        for (index, byte) in data.iter().enumerate() {
            let Some(at) = from.checked_add(index).filter(|at| writable.contains(at)) else { continue };
            if let Some(to) = space.bytes.get_mut(at) {
                *to = *byte;
            }
        }
        space.show();
    }

    /// Changes the space for the device. The caller then signals [`Interrupt::config_changed`].
    pub fn update(&self, change: impl FnOnce(&mut [u8])) {
        let mut space = self.lock();
        change(&mut space.bytes);
        space.generation = space.generation.wrapping_add(1);
        space.show();
    }

    /// Counts the changes made by the device.
    pub fn generation(&self) -> u32 {
        self.lock().generation
    }

    fn lock(&self) -> MutexGuard<'_, ConfigBytes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stretch of a device's life with its driver.
pub struct Session {
    /// The guest's memory.
    pub memory: Memory,
    /// As many queues as [`Description::queue_sizes`]; those that the driver did not enable are not `ready()`.
    pub queues: Vec<ActiveQueue>,
    /// The features that the driver accepted.
    pub features: u64,
    /// Whether this goes on where an earlier session stopped, perhaps in another process: its state was restored, and the
    /// driver knows of no interruption. False: the driver has just set DRIVER_OK.
    pub resumed: bool,
    /// How to reach the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// Readable when the device has to stop serving.
    pub stop: EventFd,
}

/// A queue, and how the driver calls for attention to it.
pub struct ActiveQueue {
    /// The virtqueue.
    pub queue: Queue,
    /// Readable when the driver has added buffers.
    pub kick: EventFd,
}

/// How a device calls its driver. Implemented by the transport.
pub trait Interrupt: Send + Sync {
    /// The device has used buffers of a queue. The caller has asked the queue first whether the driver wants to know.
    fn used(&self);
    /// The device has changed its configuration space.
    fn config_changed(&self);
}

/// Why a device stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke the protocol.
    #[error("the guest's driver broke the protocol: {0}")]
    Driver(&'static str),
    /// A virtqueue could not be used (its addresses lie outside memory, its indexes make no sense, ...).
    #[error("a virtqueue cannot be used")]
    Queue(#[from] virtio_queue::Error),
    /// The guest's memory could not be reached where the driver said.
    #[error("guest memory cannot be reached where the driver says")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// A session was to go on of which nothing is known.
    #[error("nothing was saved from which the device could go on")]
    NothingSaved,
    /// A device that remembers nothing was given something.
    #[error("the device has no state that could be restored")]
    NothingToRestore,
    /// What the device remembers could not be saved or restored.
    #[error("the device's state cannot be saved or restored")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The host failed us.
    #[error("the host failed a device: {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
