//! The tx queue: frames from the guest.

use super::header::Header;
use super::vectors::{Side, Vectors};
use super::{BUDGET, HEADER, Offloads};
use crate::device::{DeviceError, Memory};
use std::io;
use std::os::fd::BorrowedFd;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

/// The queue, and what is agreed about its frames.
pub(super) struct Transmit<'m> {
    queue: &'m mut Queue,
    memory: &'m Memory,
    agreed: Offloads,
    vectors: Vectors<'m>,
    /// There may be frames.
    pub(super) pending: bool,
    /// The network does not take any more at the moment.
    pub(super) blocked: bool,
}

impl<'m> Transmit<'m> {
    pub(super) fn new(queue: &'m mut Queue, memory: &'m Memory, features: u64) -> Transmit<'m> {
        let agreed = Offloads::of_driver(features);
        // What the driver put there before it was ready has no kick to come.
        Transmit { queue, memory, agreed, vectors: Vectors::new(memory), pending: true, blocked: false }
    }

    /// Sends what there is, at most [`BUDGET`] frames; true if the driver is to be told.
    pub(super) fn serve(&mut self, to: BorrowedFd<'_>) -> Result<bool, DeviceError> {
        if !self.pending || self.blocked {
            return Ok(false);
        }
        let mut used = false;
        for _ in 0..BUDGET {
            let Some(chain) = self.queue.iter(self.memory)?.next() else {
                self.pending = self.queue.enable_notification(self.memory)?;
                if self.pending {
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            self.vectors.clear();
            let frame = self.vectors.add(chain, Side::Readable);
            if !self.send(to, frame.map_or(0, |(_, bytes)| bytes)) {
                self.queue.go_to_previous_position();
                self.blocked = true;
                break;
            }
            self.queue.add_used(self.memory, head, 0)?;
            used = true;
        }
        Ok(used && self.queue.needs_notification(self.memory)?)
    }

    /// Sends one frame, or drops it; false if it has to wait.
    fn send(&mut self, to: BorrowedFd<'_>, bytes: usize) -> bool {
        let mut header = [0; HEADER];
        if !self.vectors.take_front(&mut header) {
            return true;
        }
        let Ok(header) = Header::parse(&header, bytes.saturating_sub(HEADER), self.agreed) else {
            return true;
        };
        match self.vectors.write(to, &header.bytes()) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }
}
