//! Queues and rings that make no sense. Whatever they hold, the device stays where it is, and a reset helps.

use crate::mmio::{INDIRECT, QUEUE_NOTIFY, QUEUE_READY, VERSION_1, Window};
use crate::queue::{Descriptor, IN_TABLE, NEXT, Rings, WRITE};
use crate::{Failure, device, memory, time};
use husk_evil_guest::message::init;

/// Each case, in each queue of each device.
pub fn perform(memory_end: u64) -> Result<u64, Failure> {
    let mut done = 0;
    for (id, number) in [(device::FILES, 0), (device::FILES, 1), (device::VSOCK, 0), (device::ENTROPY, 0)] {
        let window = Window::find(id, number)?;
        done += impossible(window, memory_end)?;
        for index in 0.. {
            let size = window.queue(index);
            if size == 0 {
                break;
            }
            for (case, make) in (0..).zip(CASES) {
                live(window, index)?;
                let ring = Ring { rings: Rings::of_index(index), size, memory_end };
                make(&ring);
                window.write(QUEUE_NOTIFY, index);
                window.write(QUEUE_NOTIFY, u32::MAX);
                let moved = || window.is_broken() || ring.rings.used() != 0;
                time::wait(time::SHORT, moved);
                // Once more, while it may be at it.
                window.write(QUEUE_NOTIFY, index);
                window.reset().map_err(|Failure(what, _)| Failure(what, [id.into(), index.into(), case]))?;
                done += 1;
            }
        }
    }
    Ok(done)
}

/// A live device with good queues, all empty.
fn live(window: Window, under_test: u32) -> Result<(), Failure> {
    // With indirect descriptors there is more to get wrong.
    window.begin(VERSION_1 | INDIRECT)?;
    memory::put(BUFFER, init(1).whole());
    for index in 0.. {
        let (size, rings) = (window.queue(index), Rings::of_index(index));
        if size == 0 {
            break;
        }
        rings.clear();
        if !window.set_up(size.into(), rings.descriptors, rings.driver, rings.device) {
            return Err(Failure("a good queue is not taken", [index.into(), under_test.into(), 0]));
        }
    }
    window.go()
}

/// Places and sizes that no queue can have: none becomes ready.
fn impossible(window: Window, end: u64) -> Result<u64, Failure> {
    window.begin(VERSION_1)?;
    let most = u32::from(window.queue(0));
    let Rings { descriptors, driver, device } = Rings::of_index(0);
    let cases = [
        (0, descriptors, driver, device),
        (3, descriptors, driver, device),
        (most * 2, descriptors, driver, device),
        (1 << 15, descriptors, driver, device),
        (1 << 16, descriptors, driver, device),
        (u32::MAX, descriptors, driver, device),
        (8, 0, driver, device),
        (8, descriptors, 0, device),
        (8, descriptors, driver, 0),
        (8, descriptors + 8, driver, device),
        (8, descriptors, driver + 1, device),
        (8, descriptors, driver, device + 2),
        (8, end - 112, driver, device),
        (8, descriptors, end - 16, device),
        (8, descriptors, driver, end - 64),
        (8, end, end, end),
        (8, 0xd000_0000, driver, device),
        (8, descriptors, 0xfee0_0000, device),
        (8, 1 << 40, driver, device),
        (8, u64::MAX - 15, driver, device),
        (8, descriptors, u64::MAX - 1, device),
        (8, descriptors, driver, u64::MAX - 3),
    ];
    for (number, (size, descriptors, driver, device)) in (0..).zip(cases) {
        window.write(QUEUE_READY, 0);
        window.queue(0);
        if window.set_up(size, descriptors, driver, device) {
            return Err(Failure("an impossible queue is taken", [number, size.into(), device]));
        }
    }
    // Queues that there are not, either.
    for index in [5, 1 << 16, u32::MAX] {
        window.queue(index);
        if window.set_up(8, descriptors, driver, device) {
            return Err(Failure("a queue that is not there is taken", [index.into(), 0, 0]));
        }
    }
    // And what may be taken although it makes no sense: all parts at one place, and the very end of memory.
    for (at, used) in [(descriptors, descriptors), (end - 128, end - 128)] {
        window.queue(0);
        window.write(QUEUE_READY, 0);
        window.set_up(8, at, at, used);
    }
    window.go()?;
    window.write(QUEUE_NOTIFY, 0);
    time::wait(time::SHORT, || false);
    window.reset()?;
    Ok(cases.len() as u64)
}

/// A good ring, to be spoilt.
struct Ring {
    rings: Rings,
    size: u16,
    memory_end: u64,
}

impl Ring {
    fn describe(&self, number: u16, address: u64, length: u32, flags: u16, next: u16) {
        self.rings.describe(number, Descriptor { address, length, flags, next });
    }

    /// Offers the chain that begins at each of these.
    fn offer(&self, heads: &[u16]) {
        for (place, head) in (0..).zip(heads) {
            self.rings.place(place, *head);
        }
        self.rings.filled(heads.len() as u16);
    }

    /// One descriptor, alone.
    fn only(&self, address: u64, length: u32, flags: u16) {
        self.describe(0, address, length, flags, 0);
        self.offer(&[0]);
    }

    /// A table of indirect descriptors, of which this says that it is so long.
    fn table(&self, length: u32, entries: &[Descriptor]) {
        for (number, entry) in (0..).zip(entries) {
            Rings { descriptors: TABLE, ..self.rings }.describe(number, *entry);
        }
        self.only(TABLE, length, IN_TABLE);
    }
}

const BUFFER: u64 = memory::BUFFERS;
const TABLE: u64 = memory::BUFFERS + 0x10_0000;

const CASES: &[fn(&Ring)] = &[
    // Addresses and lengths.
    |ring| ring.only(1 << 40, 4096, 0),
    |ring| ring.only(1 << 40, 4096, WRITE),
    |ring| ring.only(u64::MAX, 4096, WRITE),
    |ring| ring.only(u64::MAX - 4095, 4096, WRITE),
    |ring| ring.only(0, u32::MAX, WRITE),
    |ring| ring.only(ring.memory_end - 16, 4096, 0),
    |ring| ring.only(ring.memory_end - 1, 2, WRITE),
    |ring| ring.only(ring.memory_end, u32::MAX, WRITE),
    |ring| ring.only(0xd000_0000, 4096, WRITE),
    |ring| ring.only(0xfee0_0000, 4096, WRITE),
    |ring| ring.only(BUFFER, 0, 0),
    |ring| ring.only(BUFFER, 0, WRITE),
    |ring| ring.only(BUFFER, 43, 0),
    |ring| ring.only(BUFFER, u32::MAX, 0),
    |ring| ring.only(BUFFER, 4096, 0xfff8),
    // Chains: loops, places that are not there, lengths whose sum overflows.
    |ring| {
        ring.describe(0, BUFFER, 16, NEXT, 0);
        ring.offer(&[0]);
    },
    |ring| {
        ring.describe(0, BUFFER, 16, NEXT, 1);
        ring.describe(1, BUFFER, 16, NEXT | WRITE, 0);
        ring.offer(&[0, 1]);
    },
    |ring| {
        ring.describe(0, BUFFER, 16, NEXT, u16::MAX);
        ring.offer(&[0]);
    },
    |ring| {
        ring.describe(0, BUFFER, 16, NEXT, ring.size);
        ring.offer(&[0]);
    },
    |ring| {
        (0..ring.size).for_each(|at| ring.describe(at, BUFFER, 1, NEXT, (at + 1) % ring.size));
        ring.offer(&[0]);
    },
    |ring| {
        (0..ring.size).for_each(|at| ring.describe(at, BUFFER, u32::MAX, NEXT | WRITE, (at + 1) % ring.size));
        ring.offer(&[0]);
    },
    |ring| {
        (0..ring.size).for_each(|at| ring.describe(at, BUFFER, 16 << 20, NEXT, (at + 1) % ring.size));
        ring.offer(&[0]);
    },
    |ring| {
        ring.describe(0, BUFFER, 64, NEXT | WRITE, 1);
        ring.describe(1, BUFFER, 64, NEXT, 2);
        ring.describe(2, BUFFER, 64, WRITE, 0);
        ring.offer(&[0]);
    },
    // The driver's ring: heads that are not there, the same one many times, jumps.
    |ring| ring.offer(&[u16::MAX, ring.size, 0x8000]),
    |ring| {
        ring.describe(0, BUFFER, 64, WRITE, 0);
        ring.offer(&[0; 8]);
    },
    |ring| ring.rings.filled(ring.size + 1),
    |ring| ring.rings.filled(0x8000),
    |ring| ring.rings.filled(u16::MAX),
    // Tables of indirect descriptors.
    |ring| ring.only(TABLE, 0, IN_TABLE),
    |ring| ring.only(TABLE, 15, IN_TABLE),
    |ring| ring.only(TABLE, u32::MAX, IN_TABLE),
    |ring| ring.only(TABLE, u32::MAX - 15, IN_TABLE),
    |ring| ring.only(ring.memory_end - 16, 64, IN_TABLE),
    |ring| ring.only(u64::MAX - 15, 32, IN_TABLE),
    |ring| ring.only(TABLE, 64, IN_TABLE | NEXT),
    |ring| ring.only(TABLE, 64, IN_TABLE | WRITE),
    |ring| ring.table(16, &[Descriptor { address: TABLE, length: 16, flags: IN_TABLE, next: 0 }]),
    |ring| ring.table(32, &[Descriptor { address: BUFFER, length: 16, flags: NEXT, next: 0 }]),
    |ring| ring.table(32, &[Descriptor { address: BUFFER, length: 16, flags: NEXT, next: 4096 }]),
    |ring| {
        ring.describe(0, TABLE, 16, IN_TABLE, 0);
        Rings { descriptors: TABLE, ..ring.rings }.describe(0, Descriptor::writes(TABLE, u32::MAX));
        ring.offer(&[0]);
    },
    // Buffers that lie over the rings, so that an answer changes what is read next.
    |ring| ring.only(ring.rings.device, 0x4000, WRITE),
    |ring| ring.only(ring.rings.driver, 0x4000, WRITE),
    |ring| ring.only(ring.rings.descriptors, 0x4000, WRITE),
    |ring| {
        ring.describe(0, BUFFER, 104, NEXT, 1);
        ring.describe(1, ring.rings.device, 0x1000, WRITE, 0);
        ring.offer(&[0, 0, 0]);
    },
];
