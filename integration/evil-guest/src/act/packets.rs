//! Packets of every kind to ports that nobody offers. Each is refused, once; and a flood of requests is.

use crate::streams::{BATCH, GUEST, Packet, REQUEST, RST, STREAM, Streams};
use crate::{Failure, time};
use husk_evil_guest::order::Order;
use husk_evil_guest::random::Random;

/// First at random, then a flood.
pub fn perform(order: &Order) -> Result<u64, Failure> {
    let mut random = Random::new(order.seed);
    let mut streams = Streams::open()?;
    let mut sent = 0;
    while sent < order.size / 2 {
        let mut owed = 0;
        for place in 0..BATCH / 2 {
            let (packet, payload) = any(&mut random);
            owed += u64::from(is_answered(&packet));
            streams.put(place, &packet, payload);
        }
        streams.flush(BATCH / 2)?;
        for number in 0..owed {
            expect_refusal(&mut streams, number)?;
        }
        if let Some(more) = streams.take(time::SHORT) {
            return Err(Failure("an answer to nothing", [more.op.into(), more.ports[0].into(), owed]));
        }
        sent += u64::from(BATCH / 2);
    }
    while sent < order.size {
        for place in 0..BATCH {
            let port = 100 + random.below(60_000) as u32;
            streams.put(place, &Packet::new(REQUEST, [port, port]), 0);
        }
        streams.flush(BATCH)?;
        for number in 0..BATCH {
            expect_refusal(&mut streams, number.into())?;
        }
        sent += u64::from(BATCH);
    }
    streams.check()?;
    Ok(sent)
}

/// Whether there is an answer to a packet that belongs to no connection: only refusals and what comes from others have none.
fn is_answered(packet: &Packet) -> bool {
    packet.cids[0] == GUEST && packet.op != RST
}

fn expect_refusal(streams: &mut Streams, number: u64) -> Result<(), Failure> {
    match streams.take(time::LONG) {
        Some(Packet { op: RST, .. }) => Ok(()),
        Some(packet) => {
            Err(Failure("something else than a refusal", [packet.op.into(), number, packet.ports[0].into()]))
        }
        None => Err(Failure("a packet is not refused", [number, 0, 0])),
    }
}

/// A packet, and how much follows it.
fn any(random: &mut Random) -> (Packet, u32) {
    // Not the agent's port, and below those that are offered at random.
    let ports = [random.word(), 2 + random.below(65_000) as u32];
    let mut packet = Packet::new(random.below(10) as u16, ports);
    let payload = random.one_of(&[0, 1, 44, 1000, 4096]);
    packet.length = random.one_of(&[payload, payload, 0, 1, 4097, 1 << 31, u32::MAX]);
    packet.credit = [random.one_of(&[0, 1, 1 << 18, u32::MAX]), random.one_of(&[0, 1, u32::MAX])];
    packet.flags = random.one_of(&[0, 1, 2, 3, u32::MAX]);
    packet.kind = random.one_of(&[STREAM, STREAM, STREAM, 0, 2, u16::MAX]);
    if random.chance(10) {
        packet.op = random.long() as u16;
    }
    if random.chance(20) {
        packet.cids[random.below(2) as usize] = random.one_of(&[0, 1, 2, 3, 4, u32::MAX.into(), u64::MAX]);
    }
    (packet, payload)
}
