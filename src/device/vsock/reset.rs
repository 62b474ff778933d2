//! The event queue: tells a guest that goes on somewhere else that all its connections are over (virtio 1.2, 5.10.6.7).
//!
//! Said once, at the beginning of a session that goes on where an earlier one stopped. A guest that gives no buffer for
//! it is told when it does.

use crate::device::{DeviceError, Memory};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::Bytes;

/// The event queue, and whether something is still to be said.
pub(super) struct Reset<'m> {
    queue: &'m mut Queue,
    owed: bool,
    /// Something was used since the driver was last notified.
    pub(super) used: bool,
}

impl<'m> Reset<'m> {
    pub(super) fn new(queue: &'m mut Queue, resumed: bool) -> Reset<'m> {
        let owed = resumed && queue.ready();
        Reset { queue, owed, used: false }
    }

    /// To be called when the session begins, and when the driver has added a buffer.
    pub(super) fn tell(&mut self, memory: &Memory) -> Result<(), DeviceError> {
        while self.owed {
            let Some(chain) = self.queue.iter(memory)?.next() else {
                if self.queue.enable_notification(memory)? {
                    continue;
                }
                return Ok(());
            };
            let head = chain.head_index();
            let room = chain.writable().next().filter(|buffer| buffer.len() >= EVENT_LENGTH);
            let length = match room {
                Some(buffer) => {
                    memory.write_slice(&TRANSPORT_RESET.to_le_bytes(), buffer.addr())?;
                    self.owed = false;
                    EVENT_LENGTH
                }
                // Too small for an event: given back empty.
                None => 0,
            };
            self.queue.add_used(memory, head, length)?;
            self.used = true;
        }
        Ok(())
    }

    pub(super) fn queue(&mut self) -> &mut Queue {
        self.queue
    }
}

// Virtio 1.2, 5.10.6.7: `struct virtio_vsock_event { le32 id; }`.
const TRANSPORT_RESET: u32 = 0;
const EVENT_LENGTH: u32 = 4;
