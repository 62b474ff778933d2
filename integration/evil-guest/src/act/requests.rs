//! Requests at random: every operation and some that are none, inodes and handles that were given out and that were not,
//! structs cut short and too long, lengths that lie. What a request may do to the share it may do; nothing else changes.

use crate::files::{BATCH, Reply, Server};
use crate::{Failure, time};
use husk_evil_guest::message::{IN_HEADER, Message, ROOT};
use husk_evil_guest::order::Order;
use husk_evil_guest::random::Random;

/// In both file servers in turn. Nothing is known for longer than a batch: some requests make the server forget everything.
pub fn perform(order: &Order) -> Result<u64, Failure> {
    let mut random = Random::new(order.seed);
    let (mut asked, mut served) = (0, 0);
    'servers: for number in (0..2).cycle() {
        if asked >= order.size {
            break;
        }
        let mut server = Server::mount(number)?;
        for _ in 0..BATCHES {
            server.begin()?;
            let top = server.export()?;
            let mut known = Known { nodes: [top, top, top, 2, 3, ROOT, 77, u64::MAX], handles: [1, 2, 3, 4] };
            for place in 0..BATCH {
                let mut message = any(&mut random, &known, server.number());
                let whole = message.whole().len() as u32;
                let told = match random.below(12) {
                    0 => random.one_of(&[0, 1, 39, 40, 41, u32::MAX, 1 << 31, 1 << 20, whole * 2]),
                    _ => whole,
                };
                server.send(place, message.claiming(told));
                // A few at a time, so that what is learnt is of use.
                if place % FEW == FEW - 1 {
                    let answered = server.answers(FEW, time::SHORT * 100, |_, reply| {
                        served += u64::from(reply.error == 0 && reply.length > 0);
                        known.learn(&mut random, &reply);
                        Ok(())
                    })?;
                    asked += u64::from(FEW);
                    // A wait for a lock has no reply before the queue is reset.
                    if answered < FEW {
                        continue 'servers;
                    }
                }
            }
        }
    }
    // Or else the numbers were not such that anything was tried.
    if served < asked / 20 { Err(Failure("too little is served", [served, asked, 0])) } else { Ok(asked) }
}

/// Numbers that may stand for something.
struct Known {
    nodes: [u64; 8],
    handles: [u64; 4],
}

impl Known {
    /// Keeps numbers that were given out, in the place of others.
    fn learn(&mut self, random: &mut Random, reply: &Reply) {
        let slot = match (reply.error, reply.length) {
            (0, ENTRY..) => self.nodes.get_mut(random.below(5) as usize),
            (0, OPENED) => self.handles.get_mut(random.below(3) as usize),
            _ => None,
        };
        if let Some(slot) = slot {
            *slot = reply.node;
        }
    }
}

/// The length of a reply that begins with an inode's number, if it is not a listing; and of one that is a handle.
const ENTRY: u32 = 16 + 128;
const OPENED: u32 = 16 + 16;
const BATCHES: usize = 16;
const FEW: u16 = 8;

/// A request: most have the parts that they should have, with anything in them.
fn any(random: &mut Random, known: &Known, unique: u64) -> Message {
    let (mut opcode, mut longs, mut names) = random.one_of(&OPERATIONS);
    let mut node = random.one_of(&known.nodes);
    if random.chance(15) {
        opcode = if random.chance(50) { random.word() } else { random.below(80) as u32 };
        (node, longs, names) = (ROOT, random.below(12), random.below(3));
    }
    let mut message = Message::new(opcode, node, unique);
    let modest = matches!(opcode, FALLOCATE | COPY_FILE_RANGE);
    for _ in 0..longs {
        let value = match random.below(9) {
            0 => random.one_of(&known.nodes),
            1 | 2 => random.one_of(&known.handles),
            3 if !modest => random.one_of(&[u64::MAX, 1 << 63, (1 << 63) - 1]),
            4 if !modest => random.long(),
            5 | 6 if !modest => {
                let high: u64 = random.one_of(&[0, 0, 1, 2, 0o644]);
                random.one_of(&[1, 2, 8, 0x60, 0o1101, 0o100_644, 0o40_755, u32::MAX.into()]) | high << 32
            }
            _ => random.one_of(&[0, 1, 2, 3, 4, 4096]),
        };
        message.longs(&[value]);
    }
    for _ in 0..names {
        message.name(random.one_of(&NAMES).iter().copied());
    }
    match random.below(20) {
        0 => {
            message.bytes((0..random.below(300)).map(|at| at as u8));
        }
        1 => {
            for _ in 0..random.below(IN_HEADER as u64) {
                message.cut();
            }
        }
        _ => {}
    }
    message
}

const NAMES: [&[u8]; 6] = [b"bin", b"etc", b"file", b"new", b"one", b"../canary"];

/// They make a file as large as they say, and not only its size: the disk is shared with others.
const FALLOCATE: u32 = 43;
const COPY_FILE_RANGE: u32 = 47;

/// What there is, with how many numbers of 64 bits and how many names; without INIT and DESTROY.
const OPERATIONS: [(u32, u64, u64); 39] = [
    (1, 0, 1),
    (2, 1, 0),
    (3, 2, 0),
    (4, 11, 0),
    (5, 0, 0),
    (6, 0, 2),
    (8, 2, 1),
    (9, 1, 1),
    (10, 0, 1),
    (11, 0, 1),
    (12, 1, 2),
    (13, 1, 1),
    (14, 1, 0),
    (15, 5, 0),
    (16, 5, 1),
    (17, 0, 0),
    (18, 3, 0),
    (20, 2, 0),
    (21, 2, 1),
    (22, 1, 1),
    (23, 1, 0),
    (24, 0, 1),
    (25, 3, 0),
    (27, 1, 0),
    (28, 5, 0),
    (29, 3, 0),
    (30, 2, 0),
    (31, 6, 0),
    (32, 6, 0),
    (33, 6, 0),
    (35, 2, 1),
    (36, 1, 0),
    (42, 3, 0),
    (FALLOCATE, 4, 0),
    (44, 5, 0),
    (45, 2, 2),
    (46, 3, 0),
    (COPY_FILE_RANGE, 7, 0),
    (51, 2, 1),
];
