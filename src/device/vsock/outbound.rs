//! The rx queue: packets to the guest.
//!
//! First the refusals, then what connections owe, then data, a batch for each connection in turn. Data is read from the
//! caller's descriptor straight into the guest's buffers: several at once, of which those that stayed empty are put
//! back as if they had never been taken.

use super::inbound::MAX_REFUSALS;
use super::packet::{HEADER_LENGTH, Header, OP_RST};
use super::worker::{BUDGET, Worker};
use crate::device::{DeviceError, Memory};
use std::collections::VecDeque;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemory, VolatileSlice};

/// The rx queue and who was refused.
pub(super) struct Outbound<'m> {
    pub(super) queue: &'m mut Queue,
    /// There was something to send and no buffer for it; the driver will kick when it adds some.
    pub(super) starved: bool,
    /// Something was used since the driver was last notified.
    pub(super) used: bool,
    refusals: VecDeque<Header>,
}

/// A buffer of the guest.
struct Buffer<'m> {
    head: u16,
    /// Its writable pieces, the header's place first.
    slices: Vec<VolatileSlice<'m>>,
}

/// Whose turn it is.
enum Turn {
    Refusal(Header),
    Control(usize),
    /// And how many bytes it may have.
    Data(usize, u32),
}

impl<'m> Outbound<'m> {
    pub(super) fn new(queue: &'m mut Queue) -> Outbound<'m> {
        Outbound { queue, starved: false, used: false, refusals: VecDeque::new() }
    }

    /// Whether no more refusals may be added.
    pub(super) fn is_full(&self) -> bool {
        self.refusals.len() >= MAX_REFUSALS
    }

    pub(super) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Answers a packet that has no connection.
    pub(super) fn refuse(&mut self, packet: &Header) {
        self.refusals.push_back(Header {
            source_cid: packet.destination_cid,
            destination_cid: packet.source_cid,
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            kind: packet.kind,
            op: OP_RST,
            ..Header::default()
        });
    }

    /// The next buffer with room for a header and `room` bytes. Smaller ones are given back empty.
    fn next_buffer(&mut self, room: usize, memory: &'m Memory) -> Result<Option<Buffer<'m>>, DeviceError> {
        // At most a queue's worth of useless ones a time.
        for _ in 0..BUDGET {
            let Some(chain) = self.queue.iter(memory)?.next() else {
                if self.queue.enable_notification(memory)? {
                    continue;
                }
                self.starved = true;
                return Ok(None);
            };
            let head = chain.head_index();
            let buffer = Buffer { head, slices: writable(chain, memory) };
            if buffer.room().is_some_and(|has| has >= room) {
                return Ok(Some(buffer));
            }
            self.use_buffer(head, 0, memory)?;
        }
        Ok(None)
    }

    /// More buffers for the same batch, until they have room for `wanted` bytes or there are no more good ones.
    fn more_buffers(
        &mut self,
        buffers: &mut Vec<Buffer<'m>>,
        wanted: usize,
        memory: &'m Memory,
    ) -> Result<(), DeviceError> {
        let mut total: usize = buffers.iter().filter_map(Buffer::room).fold(0, usize::saturating_add);
        while total < wanted && buffers.len() < MAX_BATCH {
            let Some(chain) = self.queue.iter(memory)?.next() else { break };
            let buffer = Buffer { head: chain.head_index(), slices: writable(chain, memory) };
            let Some(room @ 1..) = buffer.room() else {
                // It is dealt with when it comes first.
                self.queue.go_to_previous_position();
                break;
            };
            total = total.saturating_add(room);
            buffers.push(buffer);
        }
        Ok(())
    }

    fn use_buffer(&mut self, head: u16, length: usize, memory: &Memory) -> Result<(), DeviceError> {
        self.queue.add_used(memory, head, u32::try_from(length).unwrap_or(0))?;
        self.used = true;
        Ok(())
    }

    fn send(
        &mut self,
        buffer: &Buffer,
        header: &Header,
        length: usize,
        memory: &Memory,
    ) -> Result<(), DeviceError> {
        buffer.write_header(header);
        self.use_buffer(buffer.head, HEADER_LENGTH.saturating_add(length), memory)
    }
}

impl<'m> Worker<'m> {
    /// Sends what there is to send, at most a budget of it.
    pub(super) fn give_to_guest(&mut self, memory: &'m Memory) -> Result<(), DeviceError> {
        for _ in 0..BUDGET {
            if self.outbound.starved {
                break;
            }
            let Some(turn) = self.next_turn() else { break };
            let room = if let Turn::Data(..) = turn { 1 } else { 0 };
            let Some(buffer) = self.outbound.next_buffer(room, memory)? else { break };
            match turn {
                Turn::Refusal(header) => {
                    self.outbound.send(&buffer, &header, 0, memory)?;
                    self.outbound.refusals.pop_front();
                }
                Turn::Control(index) => self.send_control(index, &buffer, memory)?,
                Turn::Data(index, wanted) => self.send_data(index, wanted, buffer, memory)?,
            }
        }
        Ok(())
    }

    /// Whose turn it is; nothing is taken from the lists but what has lost its reason to be there.
    fn next_turn(&mut self) -> Option<Turn> {
        if let Some(header) = self.outbound.refusals.front() {
            return Some(Turn::Refusal(*header));
        }
        while let Some(index) = self.links.control.front().copied() {
            match self.links.get_mut(index) {
                Some(link) if link.connection.owes() => return Some(Turn::Control(index)),
                Some(link) => link.in_control = false,
                None => {}
            }
            self.links.control.pop_front();
        }
        while let Some(index) = self.links.data.front().copied() {
            match self.links.get_mut(index) {
                Some(link) if link.wanted() > 0 => return Some(Turn::Data(index, link.wanted())),
                Some(link) => link.in_data = false,
                None => {}
            }
            self.links.data.pop_front();
        }
        None
    }

    fn send_control(&mut self, index: usize, buffer: &Buffer, memory: &Memory) -> Result<(), DeviceError> {
        self.links.control.pop_front();
        if let Some(link) = self.links.get_mut(index) {
            link.in_control = false;
            if let Some(header) = link.connection.pay() {
                let header = link.address(header);
                self.outbound.send(buffer, &header, 0, memory)?;
            }
        }
        self.settle(index);
        Ok(())
    }

    fn send_data(
        &mut self,
        index: usize,
        wanted: u32,
        first: Buffer<'m>,
        memory: &'m Memory,
    ) -> Result<(), DeviceError> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(BATCH);
        let mut buffers = vec![first];
        self.outbound.more_buffers(&mut buffers, wanted, memory)?;
        let mut slices = Vec::with_capacity(buffers.len());
        let mut left = wanted;
        for buffer in &buffers {
            left = buffer.payload(left, &mut slices);
        }
        self.links.data.pop_front();
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        link.in_data = false;
        let mut bytes = link.read(&slices, &mut self.io);
        for buffer in &buffers {
            let part = buffer.room().unwrap_or(0).min(bytes);
            if part == 0 {
                // They were the last that were taken, so this puts exactly them back.
                self.outbound.queue.go_to_previous_position();
                continue;
            }
            bytes = bytes.saturating_sub(part);
            let header = link.connection.send(u32::try_from(part).unwrap_or(0));
            self.outbound.send(buffer, &link.address(header), part, memory)?;
        }
        self.settle(index);
        Ok(())
    }
}

impl<'m> Buffer<'m> {
    /// Room for payload; `None` if not even a header fits.
    fn room(&self) -> Option<usize> {
        let total = self.slices.iter().fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        total.checked_sub(HEADER_LENGTH)
    }

    fn write_header(&self, header: &Header) {
        let bytes = header.encode();
        let mut written = 0_usize;
        for slice in &self.slices {
            let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) else { break };
            let part = rest.len().min(slice.len());
            slice.copy_from(rest);
            written = written.saturating_add(part);
        }
    }

    /// Adds the places for at most `left` bytes of payload; how many are left then.
    fn payload(&self, mut left: usize, to: &mut Vec<VolatileSlice<'m>>) -> usize {
        let mut skip = HEADER_LENGTH;
        for slice in &self.slices {
            let Ok(rest) = slice.offset(skip) else {
                skip = skip.saturating_sub(slice.len());
                continue;
            };
            skip = 0;
            let part = rest.len().min(left);
            if let Ok(rest) = rest.subslice(0, part)
                && part > 0
            {
                to.push(rest);
                left = left.saturating_sub(part);
            }
        }
        left
    }
}

/// The bytes of a chain that the device may write, as far as they make sense.
fn writable<'m>(
    chain: virtio_queue::DescriptorChain<&'m Memory>,
    memory: &'m Memory,
) -> Vec<VolatileSlice<'m>> {
    let mut slices = Vec::with_capacity(2);
    for descriptor in chain.take(MAX_PIECES) {
        if !descriptor.is_write_only() {
            continue;
        }
        // A whole buffer may be large; more than a batch of it is never used.
        let length = usize::try_from(descriptor.len()).unwrap_or(usize::MAX).min(BATCH);
        for slice in memory.get_slices(descriptor.addr(), length) {
            let Ok(slice) = slice else { return slices };
            slices.push(slice);
        }
    }
    slices
}

/// Bytes that one connection may send before it is the next one's turn.
const BATCH: usize = 64 * 1024;

/// Buffers in a batch; Linux gives buffers of 4 KiB.
const MAX_BATCH: usize = 32;

/// Pieces of one buffer: Linux uses one.
const MAX_PIECES: usize = 32;
