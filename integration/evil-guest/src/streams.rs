//! A vsock driver: packets out, packets in.

use crate::mmio::{STATUS, VERSION_1, Window};
use crate::queue::{Descriptor, Queue};
use crate::{Failure, device, memory, time};

/// The vsock device, with buffers to answer into.
pub struct Streams {
    window: Window,
    receive: Queue,
    send: Queue,
}

/// A packet's header (virtio 1.2, 5.10.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packet {
    pub cids: [u64; 2],
    /// Ours, then theirs.
    pub ports: [u32; 2],
    pub length: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    /// The size of our buffer, and how much of what came has left it.
    pub credit: [u32; 2],
}

impl Packet {
    /// A packet as it should be.
    pub fn new(op: u16, ports: [u32; 2]) -> Packet {
        Packet { cids: [GUEST, HOST], ports, kind: STREAM, op, credit: [1 << 18, 0], ..Packet::default() }
    }

    fn put(&self, at: u64) {
        for (offset, width, value) in [
            (0, 8, self.cids[0]),
            (8, 8, self.cids[1]),
            (16, 4, self.ports[0].into()),
            (20, 4, self.ports[1].into()),
            (24, 4, self.length.into()),
            (28, 2, self.kind.into()),
            (30, 2, self.op.into()),
            (32, 4, self.flags.into()),
            (36, 4, self.credit[0].into()),
            (40, 4, self.credit[1].into()),
        ] {
            memory::write(at + offset, width, value);
        }
    }

    fn get(at: u64) -> Packet {
        let long = |offset| memory::read(at + offset, 8);
        let word = |offset| memory::read(at + offset, 4) as u32;
        let half = |offset| memory::read(at + offset, 2) as u16;
        Packet {
            cids: [long(0), long(8)],
            ports: [word(16), word(20)],
            length: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            credit: [word(36), word(40)],
        }
    }
}

impl Streams {
    /// Begins.
    pub fn open() -> Result<Streams, Failure> {
        let window = Window::find(device::VSOCK, 0)?;
        window.begin(VERSION_1)?;
        let mut receive = Queue::open(window, 0)?;
        let send = Queue::open(window, 1)?;
        Queue::open(window, 2)?;
        window.go()?;
        for number in 0..BATCH {
            receive.offer(number, Descriptor::writes(answer_at(number), ANSWER_ROOM), None);
        }
        receive.kick();
        Ok(Streams { window, receive, send })
    }

    /// Whether a request to a port that nobody offers is refused.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.put(0, &Packet::new(REQUEST, [1000, NOBODY]), 0);
        self.flush(1)?;
        match self.take(time::LONG) {
            Some(Packet { op: RST, ports: [NOBODY, 1000], .. }) => Ok(()),
            other => {
                Err(Failure("a request is not refused", [other.map_or(u64::MAX, |got| got.op.into()), 0, 0]))
            }
        }
    }

    /// Puts a packet into its place, and so many bytes behind it; nobody is told yet.
    pub fn put(&mut self, number: u16, packet: &Packet, payload: u32) {
        let at = packet_at(number);
        packet.put(at);
        self.send.offer(number, Descriptor::reads(at, HEADER + payload), None);
    }

    /// Puts bytes behind the header that is put there next.
    pub fn fill(&self, number: u16, bytes: &[u8]) {
        memory::put(packet_at(number) + u64::from(HEADER), bytes);
    }

    /// Tells the device, and waits until it has taken that many packets.
    pub fn flush(&mut self, count: u16) -> Result<(), Failure> {
        self.send.kick();
        for done in 0..count {
            if self.send.take(time::LONG).is_none() {
                return Err(Failure("the device takes no packets", [done.into(), count.into(), 0]));
            }
        }
        Ok(())
    }

    /// The next packet that has come.
    pub fn take(&mut self, ticks: u64) -> Option<Packet> {
        let (number, _) = self.receive.take(ticks)?;
        let packet = Packet::get(answer_at(number));
        self.receive.offer(number, Descriptor::writes(answer_at(number), ANSWER_ROOM), None);
        self.receive.kick();
        Some(packet)
    }
}
/// All devices' rings lie at the same places: one that is done with must not look there again.
impl Drop for Streams {
    fn drop(&mut self) {
        self.window.write(STATUS, 0);
    }
}

fn packet_at(number: u16) -> u64 {
    memory::BUFFERS + u64::from(number) * 0x4000
}

fn answer_at(number: u16) -> u64 {
    packet_at(number) + 0x2000
}

/// How many packets there is room for at a time.
pub const BATCH: u16 = 64;
const ANSWER_ROOM: u32 = 0x1000;
pub const HEADER: u32 = 44;
pub const GUEST: u64 = 3;
pub const HOST: u64 = 2;
pub const STREAM: u16 = 1;
/// A port that nobody offers.
pub const NOBODY: u32 = 99;
/// The port at which the agent is waited for.
pub const AGENT: u32 = 1;

pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RST: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const RW: u16 = 5;
