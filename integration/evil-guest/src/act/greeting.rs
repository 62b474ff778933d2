//! The agent's port, connected to by what is no agent: frames that are too long, too short, and nonsense. The host hears some of
//! it, hangs up, and ends the guest.

use crate::streams::{AGENT, Packet, REQUEST, RESPONSE, RST, RW, SHUTDOWN, Streams};
use crate::{Failure, boot, console, time};
use husk_evil_guest::order::{DONE, Order};
use husk_evil_guest::random::Random;

/// Until the host hangs up; then it waits for its end.
pub fn perform(order: &Order) -> Result<u64, Failure> {
    let mut random = Random::new(order.seed);
    let mut streams = Streams::open()?;
    let ports = [5000, AGENT];
    streams.put(0, &Packet::new(REQUEST, ports), 0);
    streams.flush(1)?;
    match streams.take(time::LONG) {
        Some(Packet { op: RESPONSE, .. }) => {}
        other => {
            let op = other.map_or(u64::MAX, |packet| packet.op.into());
            return Err(Failure("the agent's port is not open", [op, 0, 0]));
        }
    }
    let mut bytes = [0; 1024];
    for number in 0..order.size {
        bytes.iter_mut().for_each(|byte| *byte = random.long() as u8);
        // A frame's length comes first: one that cannot be, one that never ends, or one of nonsense.
        let length = random.one_of(&[u32::MAX, (4 << 20) + 1, 4 << 20, 0, 1, 1020]);
        for (to, byte) in bytes.iter_mut().zip(length.to_le_bytes()) {
            *to = byte;
        }
        streams.fill(0, &bytes);
        streams.put(0, &Packet { length: 1024, ..Packet::new(RW, ports) }, 1024);
        streams.flush(1)?;
        let answer = streams.take(time::SHORT);
        if answer.is_some_and(|packet| matches!(packet.op, RST | SHUTDOWN)) {
            console::say(format_args!("{DONE}{} {number}", order.act));
            boot::spin();
        }
    }
    Err(Failure("the host listens to nonsense", [order.size, 0, 0]))
}
