//! The tx queue: packets from the guest.
//!
//! Payloads of packets that follow each other on one connection are gathered, and written with one system call straight
//! from guest memory; their buffers are given back after that.

use super::HOST_CID;
use super::connection::Received;
use super::packet::{HEADER_LENGTH, Header, OP_REQUEST, OP_RST, TYPE_STREAM};
use super::worker::{BUDGET, Worker};
use crate::device::{DeviceError, Memory};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemory, VolatileSlice};

/// The tx queue and what was gathered from it.
pub(super) struct Inbound<'m> {
    pub(super) queue: &'m mut Queue,
    /// There may be something in the queue.
    pub(super) pending: bool,
    /// Something was used since the driver was last notified.
    pub(super) used: bool,
    gathered: Gathered<'m>,
    complaints: u32,
}

/// Payload for one link that is not written yet, and the buffers that it lies in.
#[derive(Default)]
struct Gathered<'m> {
    link: usize,
    slices: Vec<VolatileSlice<'m>>,
    heads: Vec<u16>,
}

impl<'m> Inbound<'m> {
    pub(super) fn new(queue: &'m mut Queue) -> Inbound<'m> {
        // What the driver put there before it was ready has no kick to come.
        Inbound { queue, pending: true, used: false, gathered: Gathered::default(), complaints: 0 }
    }
}

impl<'m> Worker<'m> {
    /// Takes what the guest has sent, at most a budget of it.
    pub(super) fn take_from_guest(&mut self, memory: &'m Memory) -> Result<(), DeviceError> {
        if !self.inbound.pending {
            return Ok(());
        }
        for _ in 0..BUDGET {
            // An answer may be owed for each packet, and a guest that gives no room for answers gets no further.
            if self.outbound.is_full() {
                break;
            }
            if let Some(chain) = self.inbound.queue.iter(memory)?.next() {
                self.take_chain(chain, memory)?;
                continue;
            }
            self.write_gathered(memory)?;
            if !self.inbound.queue.enable_notification(memory)? {
                self.inbound.pending = false;
                break;
            }
        }
        self.write_gathered(memory)
    }

    fn take_chain(
        &mut self,
        chain: DescriptorChain<&'m Memory>,
        memory: &'m Memory,
    ) -> Result<(), DeviceError> {
        let head = chain.head_index();
        let mut slices = readable(chain, memory);
        let data_for = match split_header(&mut slices) {
            Some(header) => self.take_packet(&header, &mut slices),
            None => None,
        };
        if let Some(link) = data_for {
            if self.inbound.gathered.link != link || self.inbound.gathered.heads.len() >= MAX_GATHERED {
                self.write_gathered(memory)?;
            }
            let gathered = &mut self.inbound.gathered;
            gathered.link = link;
            gathered.slices.append(&mut slices);
            gathered.heads.push(head);
            return Ok(());
        }
        self.inbound.queue.add_used(memory, head, 0)?;
        self.inbound.used = true;
        Ok(())
    }

    /// Handles a packet; for one with payload, cuts the payload to its length and names the link that gets it.
    fn take_packet(&mut self, header: &Header, payload: &mut Vec<VolatileSlice<'m>>) -> Option<usize> {
        if header.source_cid != self.guest_cid {
            // Somebody else's, and not ours to answer.
            return None;
        }
        let addressed = header.destination_cid == HOST_CID && header.kind == TYPE_STREAM;
        let found = self.links.find(header.destination_port).filter(|_| addressed);
        // One that is over may still be writing to its reader; for the guest it does not exist.
        let known = found.and_then(|index| {
            let link = self.links.get_mut(index)?;
            (link.guest_port == header.source_port && !link.connection.is_over()).then_some((index, link))
        });
        let Some((index, link)) = known else {
            if addressed
                && header.op == OP_REQUEST
                && let Some(offer) = self.board.connect(header.destination_port)
            {
                self.connect(header, offer);
            } else if header.op != OP_RST {
                self.outbound.refuse(header);
            }
            return None;
        };
        match link.connection.receive(header) {
            Received::Data(length @ 1..) if cut(payload, length) => return Some(index),
            Received::Data(1..) => {
                link.connection.reset();
                self.complain("a packet is shorter than it says");
            }
            Received::Violation => self.complain("a packet breaks the protocol"),
            // An empty one may still bring credit.
            Received::State | Received::Data(0) => {}
        }
        // What came before it goes first.
        self.write_out();
        self.settle(index);
        None
    }

    /// Writes what was gathered, and gives its buffers back.
    fn write_gathered(&mut self, memory: &Memory) -> Result<(), DeviceError> {
        self.write_out();
        let gathered = &mut self.inbound.gathered;
        for head in gathered.heads.drain(..) {
            self.inbound.queue.add_used(memory, head, 0)?;
            self.inbound.used = true;
        }
        Ok(())
    }

    fn write_out(&mut self) {
        let gathered = &mut self.inbound.gathered;
        if gathered.slices.is_empty() {
            return;
        }
        let index = gathered.link;
        if let Some(link) = self.links.get_mut(index) {
            link.take(&gathered.slices, &mut self.io);
        }
        gathered.slices.clear();
        self.settle(index);
    }

    fn complain(&mut self, what: &'static str) {
        // A guest can do it as often as it likes.
        if self.inbound.complaints < MAX_COMPLAINTS {
            self.inbound.complaints = self.inbound.complaints.saturating_add(1);
            tracing::debug!(what, "vsock connection reset");
        }
    }
}

/// The bytes of a chain that are for the device, as far as they make sense: no more pieces than any driver needs, and
/// nothing after a piece that is outside memory.
fn readable<'m>(chain: DescriptorChain<&'m Memory>, memory: &'m Memory) -> Vec<VolatileSlice<'m>> {
    let mut slices = Vec::with_capacity(4);
    for descriptor in chain.take(MAX_PIECES) {
        if descriptor.is_write_only() {
            break;
        }
        let length = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
        for slice in memory.get_slices(descriptor.addr(), length) {
            let Ok(slice) = slice else { return slices };
            slices.push(slice);
        }
    }
    slices
}

/// Reads the header, once, and leaves what follows it.
fn split_header(slices: &mut Vec<VolatileSlice>) -> Option<Header> {
    let mut bytes = [0; HEADER_LENGTH];
    let (mut read, mut whole) = (0_usize, 0_usize);
    for slice in slices.iter_mut() {
        let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) else { break };
        let copied = slice.copy_to(rest);
        read = read.saturating_add(copied);
        *slice = slice.offset(copied).ok()?;
        whole = whole.saturating_add(usize::from(slice.is_empty()));
    }
    slices.drain(..whole.min(slices.len()));
    (read == HEADER_LENGTH).then(|| Header::parse(&bytes))
}

/// Cuts `slices` to `length` bytes; false if there are fewer.
fn cut(slices: &mut Vec<VolatileSlice>, length: u32) -> bool {
    let mut left = usize::try_from(length).unwrap_or(usize::MAX);
    let mut keep = 0_usize;
    for slice in slices.iter_mut() {
        if left == 0 {
            break;
        }
        let part = slice.len().min(left);
        if let Ok(shorter) = slice.subslice(0, part) {
            *slice = shorter;
        }
        left = left.saturating_sub(part);
        keep = keep.saturating_add(1);
    }
    slices.truncate(keep);
    left == 0
}

/// Refusals that may wait for room in the rx queue.
pub(super) const MAX_REFUSALS: usize = 256;

/// Pieces of one packet: Linux uses at most 18.
const MAX_PIECES: usize = 256;

/// Packets that are written together.
const MAX_GATHERED: usize = 64;

const MAX_COMPLAINTS: u32 = 16;
