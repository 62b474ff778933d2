//! The rx queue: frames for the guest.
//!
//! Buffers are taken from the queue ahead of time, until the longest frame fits, and kept between frames; a stop gives
//! those back that nothing was read into. A frame goes into as many as it needs (VIRTIO_NET_F_MRG_RXBUF), which are all
//! shown to the driver at once: it would take a frame whose end is missing for a broken one.

use super::vectors::{OUTSIDE, Side, Vectors};
use super::{BUDGET, HEADER, LONGEST, feature};
use crate::device::{DeviceError, Memory};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// The queue, and the buffers that are ready.
pub(super) struct Receive<'m> {
    queue: &'m mut Queue,
    memory: &'m Memory,
    /// A frame may use several buffers.
    merge: bool,
    vectors: Vectors<'m>,
    ready: Vec<Buffer>,
    room: usize,
    /// The driver has given too little room, and will kick.
    pub(super) starved: bool,
    /// The descriptor may have frames.
    pub(super) pending: bool,
}

struct Buffer {
    head: u16,
    parts: usize,
    bytes: usize,
}

impl<'m> Receive<'m> {
    pub(super) fn new(queue: &'m mut Queue, memory: &'m Memory, features: u64) -> Receive<'m> {
        Receive {
            queue,
            memory,
            merge: features & feature::MRG_RXBUF != 0,
            vectors: Vectors::new(memory),
            ready: Vec::with_capacity(64),
            room: 0,
            starved: false,
            pending: true,
        }
    }

    /// Reads what there is, at most [`BUDGET`] frames; true if the driver is to be told.
    pub(super) fn serve(&mut self, from: BorrowedFd<'_>) -> Result<bool, DeviceError> {
        if !self.pending || self.starved {
            return Ok(false);
        }
        let before = self.queue.next_used();
        for _ in 0..BUDGET {
            if !self.prepare()? {
                self.starved = true;
                break;
            }
            let parts =
                if self.merge { usize::MAX } else { self.ready.first().map_or(0, |buffer| buffer.parts) };
            match self.vectors.read(from, parts) {
                Ok(length) if length > HEADER => self.deliver(length)?,
                // Not a frame.
                Ok(1..) => {}
                Ok(_) => {
                    self.pending = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing there; or the interface is gone or down, and then nothing comes.
                Err(_) => {
                    self.pending = false;
                    break;
                }
            }
        }
        self.is_awaited(before)
    }

    /// Gives back what nothing was read into.
    pub(super) fn give_back(&mut self) {
        let count = u16::try_from(self.ready.len()).unwrap_or(0);
        self.queue.set_next_avail(self.queue.next_avail().wrapping_sub(count));
        self.ready.clear();
        self.vectors.clear();
        self.room = 0;
    }

    /// Takes buffers until the longest frame fits; false if there are not enough.
    fn prepare(&mut self) -> Result<bool, DeviceError> {
        while self.room < HEADER.saturating_add(LONGEST) {
            if !self.merge && !self.ready.is_empty() {
                break;
            }
            if self.vectors.room() == 0 {
                // More pieces than one read takes, and still too small.
                return Err(DeviceError::Driver("its receive buffers are in too many pieces"));
            }
            let Some(chain) = self.queue.iter(self.memory)?.next() else {
                if self.queue.enable_notification(self.memory)? {
                    continue;
                }
                return Ok(false);
            };
            let head = chain.head_index();
            let (parts, bytes) = self.vectors.add(chain, Side::Writable).ok_or(OUTSIDE)?;
            if bytes < HEADER.saturating_add(1) {
                // Room for nothing. Kept, it could only be in the way.
                return Err(DeviceError::Driver("a receive buffer has no room for a header"));
            }
            self.ready.push(Buffer { head, parts, bytes });
            self.room = self.room.saturating_add(bytes);
        }
        Ok(true)
    }

    /// A frame was read: shows its buffers to the driver.
    fn deliver(&mut self, length: usize) -> Result<(), DeviceError> {
        let (mut left, mut buffers, mut parts) = (length, 0_u16, 0_usize);
        let used = self.queue.next_used();
        for buffer in &self.ready {
            if left == 0 {
                break;
            }
            let filled = buffer.bytes.min(left);
            let at = used.wrapping_add(buffers);
            self.write_used(at, buffer.head, u32::try_from(filled).unwrap_or(0))?;
            left = left.saturating_sub(filled);
            self.room = self.room.saturating_sub(buffer.bytes);
            parts = parts.saturating_add(buffer.parts);
            buffers = buffers.saturating_add(1);
        }
        self.vectors.put(NUM_BUFFERS, &buffers.to_le_bytes());
        self.vectors.forget(parts);
        self.ready.drain(..usize::from(buffers).min(self.ready.len()));
        let used = used.wrapping_add(buffers);
        self.queue.set_next_used(used);
        self.memory.store(used.to_le(), self.in_used_ring(2)?, Ordering::Release)?;
        Ok(())
    }

    /// Writes an element of the used ring (virtio 1.2, 2.7.8) without showing it.
    fn write_used(&self, at: u16, head: u16, length: u32) -> Result<(), DeviceError> {
        let place =
            u64::from(at.checked_rem(self.queue.size()).unwrap_or(0)).saturating_mul(8).saturating_add(4);
        let to = self.in_used_ring(place)?;
        let [h0, h1, h2, h3] = u32::from(head).to_le_bytes();
        let [l0, l1, l2, l3] = length.to_le_bytes();
        self.memory.write_slice(&[h0, h1, h2, h3, l0, l1, l2, l3], to)?;
        Ok(())
    }

    fn in_used_ring(&self, offset: u64) -> Result<GuestAddress, DeviceError> {
        let at = self.queue.used_ring().checked_add(offset);
        at.map(GuestAddress).ok_or(DeviceError::Driver("a ring wraps around the address space"))
    }

    /// Whether the driver wants to know of what was used since `before` (virtio 1.2, 2.7.10.1). The queue cannot tell:
    /// it has not seen the elements.
    fn is_awaited(&self, before: u16) -> Result<bool, DeviceError> {
        let now = self.queue.next_used();
        if now == before {
            return Ok(false);
        }
        fence(Ordering::SeqCst);
        if !self.queue.event_idx_enabled() {
            return Ok(true);
        }
        let offset = u64::from(self.queue.size()).saturating_mul(2).saturating_add(4);
        let at = self.queue.avail_ring().checked_add(offset).map(GuestAddress);
        let at = at.ok_or(DeviceError::Driver("a ring wraps around the address space"))?;
        let event = u16::from_le(self.memory.load::<u16>(at, Ordering::Relaxed)?);
        Ok(now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before))
    }
}

/// Offset of num_buffers in the header.
const NUM_BUFFERS: usize = 10;
