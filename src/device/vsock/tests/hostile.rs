//! What a hostile guest does.

use super::super::connection::WINDOW;
use super::super::inbound::MAX_REFUSALS;
use super::super::packet::*;
use super::super::{GUEST_CID, HOST_CID};
use super::guest::*;
use crate::device::testing::{Chain, PATIENCE};
use std::io::Read;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

#[test]
fn everything_but_a_request_to_an_offered_port_is_refused() {
    let mut guest = Guest::start(16);
    let (_reader, endpoint) = stdout();
    let (port, _stream) = guest.switchboard.offer(endpoint).unwrap();
    let nobody = Socket { guest_port: 7, host_port: 80, ..Socket::default() };
    let offered = Socket { host_port: port, ..nobody.clone() };
    let cases = [
        nobody.header(OP_REQUEST),
        nobody.header(OP_RW),
        offered.header(OP_RW),
        offered.header(OP_RESPONSE),
        Header { kind: 2, ..offered.header(OP_REQUEST) },
        Header { destination_cid: 1, ..offered.header(OP_REQUEST) },
        Header { destination_cid: u64::MAX, ..offered.header(OP_REQUEST) },
        offered.header(999),
    ];
    for case in cases {
        guest.send(case, &[]);
        let answer = guest.receive().header;
        assert_eq!(answer.op, OP_RST, "{case:?}");
        assert_eq!((answer.source_port, answer.destination_port), (case.destination_port, 7));
        assert_eq!((answer.source_cid, answer.destination_cid), (case.destination_cid, GUEST_CID));
    }
    guest.send(nobody.header(OP_RST), &[]);
    guest.send(Header { source_cid: HOST_CID, ..offered.header(OP_REQUEST) }, &[]);
    guest.expect_silence();
    guest.connect(port);
}

#[test]
fn data_beyond_the_window_resets_that_connection_alone() {
    let mut guest = Guest::start(16);
    let (_stuck, endpoint) = stdout();
    let (mut greedy, stream) = guest.open(endpoint);
    let (mut reader, endpoint) = stdout();
    let (port, _other_stream) = guest.switchboard.offer(endpoint).unwrap();
    while !greedy.reset {
        greedy.write_some(&mut guest, &pattern(60_000));
        while let Some(packet) = guest.receive_until(Instant::now() + Duration::from_millis(5)) {
            assert!(greedy.accepts(&packet));
        }
        assert!(greedy.sent < WINDOW + (1 << 20), "it is stopped");
    }
    assert!(!stream.is_over(), "what was within the window still waits for its reader");
    let mut other = guest.connect(port);
    other.write(&mut guest, b"fine");
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"fine");
    stream.abort();
    assert!(stream.wait_delivered(u64::MAX, Some(Instant::now() + PATIENCE)));
}

#[test]
fn a_packet_cut_short_resets_its_connection() {
    let mut guest = Guest::start(16);
    let (_reader, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    let header = Header { length: 100, ..socket.header(OP_RW) };
    guest.send(header, &[0; 99]);
    socket.receive_until(&mut guest, |socket| socket.reset);
    assert!(stream.wait_delivered(1, Some(Instant::now() + PATIENCE)));
    // No connection to reset: nothing happens.
    guest.send_chain(&Chain::new().readable([0xff; 43]));
    guest.send_chain(&Chain::new().writable(4096));
    guest.send_chain(&Chain::new().readable([]));
    guest.expect_silence();
}

#[test]
fn a_flood_without_room_for_answers_is_bounded_and_nothing_owed_is_lost() {
    let mut guest = Guest::start(0);
    let nobody = Socket { guest_port: 7, host_port: 80, ..Socket::default() };
    let flood = Chain::new().readable(nobody.header(OP_REQUEST).encode());
    let (mut sent, mut idle) = (0, Instant::now());
    while idle.elapsed() < Duration::from_millis(300) {
        while guest.driver.take(1).is_some() {}
        if guest.driver.offer(TX, &flood).is_some() {
            sent += 1;
            idle = Instant::now();
        }
        assert!(sent < 10_000, "the device stops taking packets that it cannot answer");
    }
    assert!(sent >= MAX_REFUSALS);
    let mut answers = 0;
    while answers < sent {
        let owed = (sent - answers).min(64);
        guest.give_buffers(owed);
        for _ in 0..owed {
            let packet = guest.keep_until(Instant::now() + PATIENCE).expect("every request is answered");
            assert_eq!(packet.header.op, OP_RST);
            answers += 1;
        }
    }
}

#[test]
fn a_hundred_thousand_connects_cost_nothing() {
    let mut guest = Guest::start(128);
    let before = memory_in_use();
    for round in 0..1_000_u32 {
        for port in 0..100 {
            let socket = Socket { guest_port: round, host_port: 100 + port, ..Socket::default() };
            guest.send(socket.header(OP_REQUEST), &[]);
        }
        for _ in 0..100 {
            assert_eq!(guest.receive().header.op, OP_RST);
        }
    }
    let grown = memory_in_use().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more than before");
}

#[test]
fn rx_buffers_that_are_no_use_are_given_back_empty() {
    let mut guest = Guest::start(0);
    for _ in 0..10 {
        guest.driver.add(RX, &Chain::new().writable(43)).unwrap();
        guest.driver.add(RX, &Chain::new().readable([0; 100])).unwrap();
    }
    let outside = guest.driver.add(RX, &Chain::new().writable(4096)).unwrap();
    let (table, ..) = guest.driver.rings(RX);
    guest.driver.memory().write_obj(u64::MAX - 100, GuestAddress(table + 16 * u64::from(outside))).unwrap();
    guest.give_buffers(2);
    let nobody = Socket { guest_port: 7, host_port: 80, ..Socket::default() };
    guest.send(nobody.header(OP_REQUEST), &[]);
    for _ in 0..21 {
        assert_eq!(guest.driver.wait(RX).length, 0);
    }
    assert_eq!(guest.receive().header.op, OP_RST);
}

#[test]
fn a_ring_that_makes_no_sense_needs_a_reset_and_a_reset_helps() {
    for queue in [RX, TX] {
        let mut guest = Guest::start(4);
        let (mut reader, endpoint) = stdout();
        let (mut socket, stream) = guest.open(endpoint);
        socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
        let (_, avail, _) = guest.driver.rings(queue);
        guest.driver.memory().write_obj(5000_u16, GuestAddress(avail + 2)).unwrap();
        guest.driver.kick(queue);
        if queue == RX {
            // It looks there when it has something to say.
            let nobody = Socket { guest_port: 7, host_port: 80, ..Socket::default() };
            guest.send(nobody.header(OP_REQUEST), &[]);
        }
        guest.driver.wait_needs_reset();
        assert!(stream.is_over());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        guest.driver.initialise();
        guest.give_buffers(4);
        let (_reader, endpoint) = stdout();
        guest.open(endpoint);
    }
}

/// Resident bytes of this process.
pub fn memory_in_use() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
