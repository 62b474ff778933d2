//! The driver's side of a split virtqueue with event index (virtio 1.2, 2.7).

use super::arena::Arena;
use crate::device::Memory;
use std::collections::HashMap;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Bytes, GuestAddress};

/// A chain of buffers to offer.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    parts: Vec<Part>,
    indirect: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Readable(Vec<u8>),
    Writable(u32),
}

impl Chain {
    /// An empty chain.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// With bytes for the device to read.
    pub fn readable(mut self, bytes: impl Into<Vec<u8>>) -> Chain {
        self.parts.push(Part::Readable(bytes.into()));
        self
    }

    /// With room for the device to write.
    pub fn writable(mut self, length: u32) -> Chain {
        self.parts.push(Part::Writable(length));
        self
    }

    /// Through an indirect table.
    pub fn indirect(mut self) -> Chain {
        self.indirect = true;
        self
    }
}

/// A chain that the device has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Which one.
    pub head: u16,
    /// How many bytes the device says that it has written.
    pub length: u32,
    /// The chain's writable bytes, up to that length.
    pub written: Vec<u8>,
}

pub(super) struct DriverQueue {
    size: u16,
    base: u64,
    free: Vec<u16>,
    pending: HashMap<u16, Pending>,
    next_avail: u16,
    published: u16,
    next_used: u16,
}

struct Pending {
    slots: Vec<u16>,
    buffers: Vec<(u64, u32)>,
    writable: Vec<(u64, u32)>,
}

impl DriverQueue {
    pub(super) fn new(memory: &Memory, arena: &mut Arena, size: u16) -> DriverQueue {
        let base = arena.take(DriverQueue::length(size));
        memory.write_slice(&vec![0; DriverQueue::length(size) as usize], GuestAddress(base)).unwrap();
        let free = (0..size).rev().collect();
        DriverQueue { size, base, free, pending: HashMap::new(), next_avail: 0, published: 0, next_used: 0 }
    }

    pub(super) fn release(mut self, arena: &mut Arena) {
        for (_, pending) in self.pending.drain() {
            for (at, length) in pending.buffers {
                arena.give(at, length.into());
            }
        }
        arena.give(self.base, DriverQueue::length(self.size));
    }

    pub(super) fn descriptors(&self) -> u64 {
        self.base
    }

    pub(super) fn avail(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    pub(super) fn used(&self) -> u64 {
        (self.avail() + 6 + 2 * u64::from(self.size)).next_multiple_of(16)
    }

    fn length(size: u16) -> u64 {
        (16 + 2 + 8) * u64::from(size) + 64
    }

    pub(super) fn outstanding(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn add(&mut self, memory: &Memory, arena: &mut Arena, chain: &Chain) -> Option<u16> {
        let slots_needed = if chain.indirect { 1 } else { chain.parts.len().max(1) };
        if self.free.len() < slots_needed {
            return None;
        }
        let slots: Vec<u16> = (0..slots_needed).map(|_| self.free.pop().unwrap()).collect();
        let mut pending = Pending { slots: slots.clone(), buffers: Vec::new(), writable: Vec::new() };
        let mut descriptors = Vec::new();
        for part in &chain.parts {
            let (length, flag) = match part {
                Part::Readable(bytes) => (bytes.len() as u32, 0),
                Part::Writable(length) => (*length, WRITE),
            };
            let at = arena.take(length.into());
            pending.buffers.push((at, length));
            match part {
                Part::Readable(bytes) => memory.write_slice(bytes, GuestAddress(at)).unwrap(),
                Part::Writable(_) => pending.writable.push((at, length)),
            }
            descriptors.push((at, length, flag));
        }
        if chain.indirect {
            let table = arena.take(16 * descriptors.len() as u64);
            pending.buffers.push((table, 16 * descriptors.len() as u32));
            let indexes: Vec<u16> = (0..descriptors.len() as u16).collect();
            write_descriptors(memory, table, &indexes, &descriptors);
            descriptors = vec![(table, 16 * descriptors.len() as u32, INDIRECT)];
        } else if descriptors.is_empty() {
            descriptors.push((0, 0, 0));
        }
        write_descriptors(memory, self.base, &slots, &descriptors);
        let ring = self.avail() + 4 + 2 * u64::from(self.next_avail % self.size);
        memory.write_obj(slots[0], GuestAddress(ring)).unwrap();
        self.next_avail = self.next_avail.wrapping_add(1);
        self.pending.insert(slots[0], pending);
        Some(slots[0])
    }

    /// Shows the new chains to the device; true if it wants to be kicked (2.7.7.2).
    pub(super) fn publish(&mut self, memory: &Memory) -> bool {
        let (old, new) = (self.published, self.next_avail);
        memory.store(new, GuestAddress(self.avail() + 2), Ordering::Release).unwrap();
        self.published = new;
        fence(Ordering::SeqCst);
        let event: u16 =
            memory.load(GuestAddress(self.used() + 4 + 8 * u64::from(self.size)), Ordering::Relaxed).unwrap();
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    pub(super) fn take(&mut self, memory: &Memory, arena: &mut Arena) -> Option<Used> {
        let index: u16 = memory.load(GuestAddress(self.used() + 2), Ordering::Acquire).unwrap();
        if index == self.next_used {
            return None;
        }
        let element = self.used() + 4 + 8 * u64::from(self.next_used % self.size);
        let head: u32 = memory.read_obj(GuestAddress(element)).unwrap();
        let length: u32 = memory.read_obj(GuestAddress(element + 4)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(head).unwrap();
        let pending = self.pending.remove(&head).expect("the device used a chain that it was given, once");
        let room: u32 = pending.writable.iter().map(|(_, length)| *length).sum();
        assert!(length <= room, "the device says it wrote {length} bytes into {room}");
        let mut written = Vec::new();
        for (at, room) in &pending.writable {
            let part = (*room).min(length - written.len() as u32);
            let mut bytes = vec![0; part as usize];
            memory.read_slice(&mut bytes, GuestAddress(*at)).unwrap();
            written.extend(bytes);
        }
        self.free.extend(pending.slots);
        for (at, length) in pending.buffers {
            arena.give(at, length.into());
        }
        Some(Used { head, length, written })
    }

    /// Asks for an interrupt at the next used chain; true if there is one already.
    pub(super) fn want_interrupt(&mut self, memory: &Memory) -> bool {
        let at = self.avail() + 4 + 2 * u64::from(self.size);
        memory.store(self.next_used, GuestAddress(at), Ordering::Relaxed).unwrap();
        fence(Ordering::SeqCst);
        let index: u16 = memory.load(GuestAddress(self.used() + 2), Ordering::Acquire).unwrap();
        index != self.next_used
    }
}

fn write_descriptors(memory: &Memory, table: u64, slots: &[u16], descriptors: &[(u64, u32, u16)]) {
    for (position, (at, length, flag)) in descriptors.iter().enumerate() {
        let (next, flags) = match slots.get(position + 1) {
            Some(next) => (*next, flag | NEXT),
            None => (0, *flag),
        };
        let entry = table + 16 * u64::from(slots[position]);
        memory.write_obj(*at, GuestAddress(entry)).unwrap();
        memory.write_obj(*length, GuestAddress(entry + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(entry + 12)).unwrap();
        memory.write_obj(next, GuestAddress(entry + 14)).unwrap();
    }
}

// Descriptor flags (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
