//! How the driver reaches a device: registers, queues, interrupts.
//!
//! ```text
//!   vcpu threads                                    the device's own thread
//!   Mmio::read/write -> Registers --DRIVER_OK-->  Session  --> serve() -> Device::run
//!                            ^      <--status 0-- Session  <--
//!                            +-- Signals (interrupt status, needs reset; atomics) --+
//! ```
//! [`registers`] is the state machine alone: what the driver wrote, what it may read, what has to happen next. It is
//! plain data that can be saved. [`mmio`] joins it to a place on the bus, [`thread`] to the device's thread, and
//! `signals` carries what both threads need without a lock, so that a device can interrupt its driver while a vcpu
//! waits for the device to stop.
//!
//! The machine makes a pair with [`device_thread`], starts a thread that calls [`serve`] with one end, and gives the
//! other end to [`Mmio::open`]. The thread ends when the [`Mmio`] is closed or dropped.
//!
//! Not here: where the window lies on the bus, which interrupt line it has, KVM's ioeventfd and irqfd (the machine).

#[cfg(fuzzing)]
#[allow(clippy::expect_used, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
pub mod mirror;
pub mod mmio;
pub mod registers;
mod signals;
#[cfg(test)]
mod tests;
pub mod thread;

pub use mirror::Mirror;
pub use mmio::Mmio;
pub use registers::{Registers, SavedQueue};
pub use thread::{DeviceThread, Seat, device_thread, hold, serve};

/// Why a transport could not be made or restored.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host did not give an event descriptor.
    #[error("cannot make event descriptors for the {device} device")]
    Events {
        /// Its name.
        device: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The device describes a queue whose size is not a power of two up to 32768.
    #[error("the {device} device describes a queue of impossible size")]
    QueueSize {
        /// Its name.
        device: &'static str,
    },
    /// Saved registers do not belong to this device, or make no sense.
    #[error("saved registers do not fit the {device} device: {what}")]
    Saved {
        /// Its name.
        device: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// What the device remembers could not be saved or restored.
    #[error("the state of the {device} device cannot be saved or restored")]
    State {
        /// Its name.
        device: &'static str,
        /// Why.
        #[source]
        source: super::DeviceError,
    },
    /// The device's thread has ended.
    #[error("the thread of the {device} device is gone")]
    Gone {
        /// Its name.
        device: &'static str,
    },
    /// Only what does not run can be saved or restored.
    #[error("the {device} device is in use")]
    InUse {
        /// Its name.
        device: &'static str,
    },
}
