//! Random packets, buffers and host actions: nothing panics, nothing hangs, memory stays bounded, and afterwards the
//! device serves an honest stream.

use super::super::connection::WINDOW;
use super::super::packet::*;
use super::super::{Endpoint, GUEST_CID, HOST_CID, Stream};
use super::guest::*;
use super::hostile::memory_in_use;
use crate::device::testing::Chain;
use proptest::prelude::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

/// A stream as the host holds it.
struct Offered {
    port: u32,
    stream: Arc<Stream>,
    caller: Vec<File>,
}

fn offer(guest: &Guest, dice: &mut Dice) -> Offered {
    let mut caller: Vec<File> = Vec::new();
    let mut end = |ours: OwnedFd, theirs: OwnedFd| {
        caller.push(theirs.into());
        Some(ours)
    };
    let endpoint = match dice.roll(4) {
        0 => {
            let (one, other) = UnixStream::pair().unwrap();
            one.set_nonblocking(true).unwrap();
            let two = other.try_clone().unwrap();
            let twin = one.try_clone().unwrap();
            Endpoint { from_guest: end(other.into(), one.into()), to_guest: end(two.into(), twin.into()) }
        }
        kind => {
            let (output, write) = std::io::pipe().unwrap();
            let (read, input) = std::io::pipe().unwrap();
            for fd in [OwnedFd::from(output.try_clone().unwrap()), OwnedFd::from(input.try_clone().unwrap())]
            {
                use nix::fcntl::{FcntlArg, OFlag, fcntl};
                fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            }
            Endpoint {
                from_guest: if kind != 1 { end(write.into(), output.into()) } else { None },
                to_guest: if kind != 2 { end(read.into(), input.into()) } else { None },
            }
        }
    };
    let (port, stream) = guest.switchboard.offer(endpoint).unwrap();
    Offered { port, stream, caller }
}

fn random_packet(dice: &mut Dice, ports: &[u32]) -> Chain {
    let payload = dice.pick(&[0, 0, 1, 100, 1000, 4000, 60_000]) as usize;
    let length = match dice.roll(12) {
        0 => dice.roll(1 << 31) as u32 * 2,
        1 => payload as u32 + 1,
        2 => WINDOW,
        _ => payload as u32,
    };
    let header = Header {
        source_cid: dice.pick(&[GUEST_CID, GUEST_CID, GUEST_CID, GUEST_CID, GUEST_CID, HOST_CID, u64::MAX]),
        destination_cid: dice.pick(&[HOST_CID, HOST_CID, HOST_CID, HOST_CID, HOST_CID, GUEST_CID, 1]),
        source_port: dice.pick(&[5000, 5000, 5000, 5000, 5000, 5000, 5001]),
        destination_port: dice.pick(ports),
        length,
        kind: dice.pick(&[1, 1, 1, 1, 1, 1, 1, 2]),
        op: dice.pick(&[1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 7, 4, 0, 2, 3, 8]),
        flags: dice.pick(&[0, 1, 2, 3, u32::MAX]),
        buffer_size: dice.pick(&[GUEST_BUFFER, GUEST_BUFFER, 0, 1, u32::MAX]),
        forwarded: dice.pick(&[0, 0, 0, 0, 0, 1, 4096, u32::MAX]),
    };
    let bytes = header.encode();
    let cut = dice.roll(60).min(44) as usize;
    let mut chain = Chain::new();
    match dice.roll(8) {
        0 => chain = chain.readable(&bytes[..cut]),
        1 => chain = chain.readable(&bytes[..cut]).readable(&bytes[cut..]).readable(vec![7; payload]),
        2 => chain = chain.writable(64).readable(bytes),
        _ => {
            chain = chain.readable(bytes);
            if payload > 0 {
                chain = chain.readable(vec![7; payload]);
            }
        }
    }
    if dice.roll(4) == 0 { chain.indirect() } else { chain }
}

/// What callers do.
fn act(guest: &Guest, dice: &mut Dice, offered: &mut Vec<Offered>) {
    let at = dice.roll(offered.len() as u64) as usize;
    let entry = &mut offered[at];
    let mut bytes = vec![3; dice.pick(&[1, 500, 40_000])];
    match dice.roll(12) {
        0 => entry.stream.abort(),
        1 => guest.switchboard.withdraw(entry.port),
        2 => drop(entry.caller.pop()),
        3..6 => {
            if let Some(file) = entry.caller.last_mut() {
                let _ = file.write(&bytes);
            }
        }
        _ => {
            if let Some(file) = entry.caller.first_mut() {
                let _ = file.read(&mut bytes);
            }
        }
    }
    if entry.stream.is_over() {
        offered.swap_remove(at);
    }
    if offered.len() < 6 {
        let more = offer(guest, dice);
        offered.push(more);
    }
}

/// What the device said, to know how deep the random packets went.
#[derive(Debug, Default)]
struct Said {
    ops: [usize; 8],
    data: usize,
}

fn listen(guest: &mut Guest, said: &mut Said) {
    while let Some(used) = guest.driver.take(RX) {
        if let Some((header, payload)) = used.written.split_first_chunk::<HEADER_LENGTH>() {
            said.ops[usize::from(Header::parse(header).op)] += 1;
            said.data += payload.len();
        }
    }
}

fn assault(guest: &mut Guest, seed: u64, packets: usize) -> Said {
    let mut said = Said::default();
    let mut dice = Dice(seed);
    let mut offered: Vec<Offered> = (0..6).map(|_| offer(guest, &mut dice)).collect();
    let mut sent = 0;
    let mut stuck = 0_u32;
    while sent < packets {
        while guest.driver.take(TX).is_some() {}
        listen(guest, &mut said);
        let ports: Vec<u32> = offered.iter().map(|offered| offered.port).chain([80]).collect();
        let chain = random_packet(&mut dice, &ports);
        match guest.driver.add(TX, &chain) {
            Some(head) => {
                sent += 1;
                stuck = 0;
                if dice.roll(200) == 0 {
                    // A buffer somewhere else.
                    let (table, ..) = guest.driver.rings(TX);
                    let address = dice.pick(&[0, u64::MAX, u64::MAX - 20, (32 << 20) - 10, 1 << 40]);
                    guest
                        .driver
                        .memory()
                        .write_obj(address, GuestAddress(table + 16 * u64::from(head)))
                        .unwrap();
                }
                if dice.roll(4) != 0 {
                    guest.driver.publish(TX);
                }
            }
            None => {
                // The queue is full: the device is slower, or waits for room for its answers.
                guest.driver.publish(TX);
                stuck += 1;
                assert!(stuck < 2_000_000, "the device goes on once it has room");
                std::thread::yield_now();
            }
        }
        if stuck > 100 || dice.roll(8) == 0 {
            let room = dice.pick(&[4096, 4096, 4096, 200, 45, 44, 43, 1, 70_000]);
            let chain = Chain::new().writable(if stuck > 100 { 4096 } else { room });
            for _ in 0..dice.roll(16) {
                guest.driver.add(RX, &chain);
            }
            guest.driver.publish(RX);
        }
        if dice.roll(4) == 0 {
            act(guest, &mut dice, &mut offered);
        }
    }
    for entry in offered {
        entry.stream.abort();
    }
    said
}

/// After everything: an honest stream still works.
fn still_serves(guest: &mut Guest) {
    guest.driver.initialise();
    guest.give_buffers(16);
    let (mut reader, endpoint) = stdout();
    let (mut socket, _stream) = guest.open(endpoint);
    socket.write(guest, b"all is well");
    let mut said = [0; 11];
    reader.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"all is well");
}

#[test]
fn a_hundred_thousand_random_packets_do_no_harm() {
    let mut guest = Guest::start(16);
    assault(&mut guest, 1, 10_000);
    let before = memory_in_use();
    let said = assault(&mut guest, 2, 100_000);
    let often = [OP_RESPONSE, OP_RST, OP_SHUTDOWN].iter().all(|op| said.ops[usize::from(*op)] > 100);
    assert!(
        often && said.ops[usize::from(OP_CREDIT_UPDATE)] > 5 && said.data > 1 << 20,
        "too tame: {said:?}"
    );
    let grown = memory_in_use().saturating_sub(before);
    // Six streams have a window each at a time; other tests in this process take some, too.
    assert!(grown < 32 << 20, "{grown} bytes more than before");
    still_serves(&mut guest);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_packets_leaves_a_device_that_serves(seed in any::<u64>(), packets in 1..800_usize) {
        let mut guest = Guest::start(16);
        assault(&mut guest, seed, packets);
        still_serves(&mut guest);
    }
}
