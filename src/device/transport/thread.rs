//! The thread that a device lives on.
//!
//! ```text
//!   waiting --Session--> running --stop, or an error--> (Session given back) waiting ... until the transport is gone
//!      +-- Reset, Save, Restore: between sessions
//! ```
//! The thread is made before the guest's first instruction, so that its walls can be put up first; it sleeps until
//! the driver is ready. A session that ended with an error is given back at once, with DEVICE_NEEDS_RESET shown; it
//! waits in the channel until the driver resets the device.

use super::signals::Signals;
use crate::device::event::borrow;
use crate::device::{Device, DeviceError, Session};
use crate::host::deadline::poll;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The transport's end.
pub struct DeviceThread {
    pub(super) start: Sender<Work>,
    pub(super) back: Receiver<Session>,
}

/// The thread's end, for [`serve`].
pub struct Seat {
    work: Receiver<Work>,
    back: Sender<Session>,
}

/// What the device's thread is to do.
pub(super) enum Work {
    /// Serve the driver.
    Serve { session: Session, signals: Arc<Signals> },
    /// Forget the last session: the driver has reset the device.
    Reset,
    /// Say what there is to save.
    Save(Sender<Result<Vec<u8>, DeviceError>>),
    /// Take over what was saved.
    Restore(Vec<u8>, Sender<Result<(), DeviceError>>),
}

/// Both ends.
pub fn device_thread() -> (DeviceThread, Seat) {
    let (start, work) = channel();
    let (give, back) = channel();
    (DeviceThread { start, back }, Seat { work, back: give })
}

/// Serves session after session; the body of a device's thread. Returns when the transport is closed or dropped.
pub fn serve(mut device: Box<dyn Device>, seat: Seat) {
    let name = device.description().name;
    let mut complaints = 0_u32;
    while let Ok(work) = seat.work.recv() {
        let (mut session, signals) = match work {
            Work::Serve { session, signals } => (session, signals),
            Work::Reset => {
                device.reset();
                continue;
            }
            // Whoever does not wait for the answer does not want it.
            Work::Save(answer) => {
                let _ = answer.send(device.save());
                continue;
            }
            Work::Restore(saved, answer) => {
                let _ = answer.send(device.restore(&saved));
                continue;
            }
        };
        if let Err(error) = device.run(&mut session) {
            // A guest can break its driver as often as it likes.
            if complaints < MAX_COMPLAINTS {
                complaints = complaints.saturating_add(1);
                tracing::warn!(device = name, error = crate::error::chain(&error), "device needs a reset");
            }
            signals.set_needs_reset();
        }
        if seat.back.send(session).is_err() {
            return;
        }
    }
}

/// Serves nobody: each session is given back as it came when the device is to stop. For a guest that is to be saved before
/// its device has heard anything of it.
pub fn hold(seat: Seat) {
    while let Ok(work) = seat.work.recv() {
        let Work::Serve { session, .. } = work else { continue };
        let mut stop = [PollFd::new(borrow(&session.stop), PollFlags::POLLIN)];
        while matches!(poll(&mut stop, PollTimeout::NONE), Err(Errno::EINTR)) {}
        if seat.back.send(session).is_err() {
            return;
        }
    }
}

/// Log lines that one device may write about its driver.
const MAX_COMPLAINTS: u32 = 8;
