//! What callers and containers do.

use super::super::connection::WINDOW;
use super::super::packet::*;
use super::super::{Endpoint, VsockError};
use super::guest::*;
use crate::device::testing::{Chain, PATIENCE};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

#[test]
fn much_output_arrives_whole_and_its_end_is_seen() {
    let mut guest = Guest::start(64);
    let (mut reader, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    let sent = pattern(20 << 20);
    let caller = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    });
    socket.write(&mut guest, &sent);
    socket.shutdown(&mut guest, BOTH);
    socket.receive_until(&mut guest, |socket| socket.reset);
    let received = caller.join().unwrap();
    assert!(received == sent, "{} of {} bytes, or not the same", received.len(), sent.len());
    assert!(stream.wait_delivered(sent.len() as u64, soon()));
    assert_eq!(stream.delivered(), sent.len() as u64);
    assert!(stream.is_over());
}

#[test]
fn much_input_arrives_whole_and_its_end_is_seen() {
    let mut guest = Guest::start(64);
    let (mut writer, endpoint) = stdin();
    let (mut socket, stream) = guest.open(endpoint);
    let sent = pattern(20 << 20);
    let copy = sent.clone();
    let caller = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let received = socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    caller.join().unwrap();
    assert!(received == sent, "{} of {} bytes, or not the same", received.len(), sent.len());
    assert!(stream.is_over());
    socket.shutdown(&mut guest, BOTH);
    socket.receive_until(&mut guest, |socket| socket.reset);
    guest.expect_silence();
}

#[test]
fn a_socket_carries_both_directions_and_closes_each_alone() {
    let mut guest = Guest::start(64);
    let (mut caller, ours) = UnixStream::pair().unwrap();
    let endpoint =
        Endpoint { from_guest: Some(ours.try_clone().unwrap().into()), to_guest: Some(ours.into()) };
    let (mut socket, stream) = guest.open(endpoint);
    caller.write_all(b"to the guest").unwrap();
    let received = socket.receive_until(&mut guest, |socket| socket.forwarded == 12);
    assert_eq!(received, b"to the guest");
    caller.shutdown(std::net::Shutdown::Write).unwrap();
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    socket.write(&mut guest, b"to the host");
    let mut bytes = [0; 11];
    caller.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the host");
    socket.shutdown(&mut guest, BOTH);
    assert_eq!(caller.read(&mut bytes).unwrap(), 0, "the caller sees the end");
    socket.receive_until(&mut guest, |socket| socket.reset);
    assert!(stream.is_over());
}

#[test]
fn the_peer_of_a_connection_sees_each_way_end_alone() {
    let mut guest = Guest::start(64);
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let (port, stream) = guest.switchboard.offer_connection(ours.into()).unwrap();
    let mut socket = guest.connect(port);
    socket.write(&mut guest, b"a question");
    socket.shutdown(&mut guest, SHUTDOWN_SEND);
    let mut said = String::new();
    peer.read_to_string(&mut said).unwrap();
    assert_eq!(said, "a question");
    peer.write_all(b"the answer").unwrap();
    assert_eq!(socket.receive_until(&mut guest, |socket| socket.forwarded == 10), b"the answer");
    assert!(!stream.is_over());
    socket.shutdown(&mut guest, BOTH);
    socket.receive_until(&mut guest, |socket| socket.reset);
    assert!(stream.is_over());
    assert_eq!(peer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_half_close_by_the_guest_ends_its_output_and_leaves_its_input() {
    let mut guest = Guest::start(64);
    let (mut output, write) = std::io::pipe().unwrap();
    let (read, mut input) = std::io::pipe().unwrap();
    let endpoint = Endpoint { from_guest: Some(write.into()), to_guest: Some(read.into()) };
    let (mut socket, stream) = guest.open(endpoint);
    socket.write(&mut guest, b"last words");
    socket.shutdown(&mut guest, SHUTDOWN_SEND);
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "last words");
    input.write_all(b"still here").unwrap();
    assert_eq!(socket.receive_until(&mut guest, |socket| socket.forwarded == 10), b"still here");
    assert!(!stream.is_over());
    drop(input);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    assert!(stream.is_over());
}

#[test]
fn a_reader_that_leaves_is_reported_at_once_even_when_nothing_is_written() {
    let mut guest = Guest::start(64);
    let (reader, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    drop(reader);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == BOTH);
    assert!(stream.wait_delivered(1, soon()), "waiting for bytes that nobody can get ends");
    assert!(stream.is_over());
    // What was under way is thrown away without harm.
    for _ in 0..10 {
        socket.write(&mut guest, &pattern(100_000));
    }
    assert_eq!(stream.delivered(), 0);
}

#[test]
fn a_reader_that_leaves_with_output_pending_is_reported() {
    let mut guest = Guest::start(64);
    let (mut reader, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    socket.write(&mut guest, &pattern(WINDOW as usize));
    // As `head -1` does.
    let mut line = [0; 100];
    reader.read_exact(&mut line).unwrap();
    drop(reader);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == BOTH);
    assert!(stream.is_over());
    assert!(stream.delivered() < u64::from(WINDOW));
}

#[test]
fn a_reader_that_stops_stops_its_own_stream_and_nobody_else() {
    let mut guest = Guest::start(64);
    let (mut slow, endpoint) = stdout();
    let (mut stalled, stalled_stream) = guest.open(endpoint);
    let mut held = 0;
    while stalled.credit() > 0 {
        let part = stalled.credit().min(50_000);
        stalled.write_some(&mut guest, &pattern(part as usize));
        held += part;
        while let Some(packet) = guest.receive_until(Instant::now() + Duration::from_millis(20)) {
            assert!(stalled.accepts(&packet));
        }
    }
    // A pipe's worth was delivered; of the rest, the window is the limit.
    assert!(held <= WINDOW + (1 << 20), "{held} bytes are kept for a reader that does not read");
    assert!(
        !stalled_stream.wait_delivered(u64::from(held), Some(Instant::now() + Duration::from_millis(10)))
    );

    let (mut reader, endpoint) = stdout();
    let (port, _stream) = guest.switchboard.offer(endpoint).unwrap();
    let mut other = guest.connect(port);
    let sent = pattern(1 << 20);
    let copy = sent.clone();
    let caller = std::thread::spawn(move || {
        let mut all = vec![0; copy.len()];
        reader.read_exact(&mut all).unwrap();
        assert!(all == copy);
    });
    other.write(&mut guest, &sent);
    caller.join().unwrap();

    // The guest closes; what it sent before is not lost.
    stalled.shutdown(&mut guest, BOTH);
    while !stalled.reset {
        let packet = guest.receive();
        assert!(stalled.accepts(&packet) || other.accepts(&packet));
    }
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), held as usize);
    assert!(stalled_stream.wait_delivered(u64::from(held), soon()));
}

#[test]
fn a_guest_that_reads_nothing_stops_its_input_alone() {
    let mut guest = Guest::start(120);
    let (mut writer, endpoint) = stdin();
    let (mut lazy, _stream) = guest.open(endpoint);
    let feeder = std::thread::spawn(move || {
        let all = pattern(1 << 20);
        let _ = writer.write_all(&all);
    });
    lazy.reads_nothing = true;
    lazy.receive_until(&mut guest, |socket| socket.forwarded == GUEST_BUFFER);
    guest.expect_silence();
    let (mut other_writer, endpoint) = stdin();
    let (port, _other_stream) = guest.switchboard.offer(endpoint).unwrap();
    let mut other = guest.connect(port);
    other_writer.write_all(b"hello").unwrap();
    assert_eq!(other.receive_until(&mut guest, |socket| socket.forwarded == 5), b"hello");
    lazy.tell_credit(&mut guest);
    lazy.reads_nothing = false;
    lazy.receive_until(&mut guest, |socket| socket.forwarded == 1 << 20);
    feeder.join().unwrap();
}

#[test]
fn a_port_is_good_for_one_connection() {
    let mut guest = Guest::start(16);
    let (_reader, endpoint) = stdout();
    let stream = guest.switchboard.offer_at(1, endpoint).unwrap();
    assert_eq!(stream.port(), 1);
    let (_, second) = stdout();
    assert!(matches!(guest.switchboard.offer_at(1, second), Err(VsockError::PortInUse { port: 1 })));
    let mut socket = guest.connect(1);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown != 0);
    let mut again = Socket { guest_port: 5001, ..socket.clone() };
    guest.send(again.header(OP_REQUEST), &[]);
    assert!(again.accepts(&guest.receive()));
    assert!(again.reset);
    assert!(!stream.is_over(), "the first one is not disturbed");
    let (_, third) = stdout();
    assert!(guest.switchboard.offer_at(1, third).is_err(), "while it is connected, the port is taken");
    guest.send(socket.header(OP_RST), &[]);
    assert!(stream.wait_delivered(1, soon()));
    let (_keep, fourth) = stdout();
    let deadline = soon().unwrap();
    let mut offered = guest.switchboard.offer_at(1, fourth);
    while offered.is_err() && Instant::now() < deadline {
        let (_, next) = stdout();
        offered = guest.switchboard.offer_at(1, next);
    }
    offered.expect("afterwards it can be offered again");
}

#[test]
fn an_offer_that_was_withdrawn_or_aborted_is_refused() {
    let mut guest = Guest::start(16);
    for withdraw in [true, false] {
        let (mut reader, endpoint) = stdout();
        let (port, stream) = guest.switchboard.offer(endpoint).unwrap();
        if withdraw {
            guest.switchboard.withdraw(port);
        } else {
            stream.abort();
        }
        assert!(stream.is_over());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "its descriptors are closed");
        let mut socket = Socket { guest_port: 9, host_port: port, ..Socket::default() };
        guest.send(socket.header(OP_REQUEST), &[]);
        assert!(socket.accepts(&guest.receive()));
        assert!(socket.reset);
    }
}

#[test]
fn an_abort_resets_the_connection_though_its_reader_is_stuck() {
    let mut guest = Guest::start(16);
    let (_stuck, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    socket.write(&mut guest, &pattern(WINDOW as usize));
    stream.abort();
    socket.receive_until(&mut guest, |socket| socket.reset);
    assert!(stream.wait_delivered(u64::MAX, soon()));
    assert!(stream.is_over());
    stream.abort();
    guest.expect_silence();
}

#[test]
fn a_stream_without_descriptors_ends_both_ways_at_once() {
    let mut guest = Guest::start(16);
    let (mut socket, stream) = guest.open(Endpoint::default());
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    assert!(stream.is_over());
    socket.write(&mut guest, b"is anybody there?");
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == BOTH);
}

#[test]
fn files_and_dev_null_are_always_ready() {
    let mut guest = Guest::start(16);
    let mut file = tempfile::tempfile().unwrap();
    let mut input = tempfile::tempfile().unwrap();
    let bytes = pattern(300_000);
    input.write_all(&bytes).unwrap();
    input.rewind().unwrap();
    let endpoint =
        Endpoint { from_guest: Some(file.try_clone().unwrap().into()), to_guest: Some(input.into()) };
    let (mut socket, stream) = guest.open(endpoint);
    let received = socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    assert!(received == bytes);
    socket.write(&mut guest, &bytes);
    socket.shutdown(&mut guest, BOTH);
    socket.receive_until(&mut guest, |socket| socket.reset);
    assert!(stream.is_over());
    let mut written = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut written).unwrap();
    assert!(written == bytes);

    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let endpoint = Endpoint { from_guest: Some(null()), to_guest: Some(null()) };
    let (mut socket, stream) = guest.open(endpoint);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    socket.write(&mut guest, &bytes);
    assert!(stream.wait_delivered(bytes.len() as u64, soon()));
    assert_eq!(stream.delivered(), bytes.len() as u64);
}

#[test]
fn a_full_disk_ends_the_output_as_a_reader_that_left() {
    let mut guest = Guest::start(16);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (mut socket, stream) = guest.open(Endpoint { from_guest: Some(full.into()), to_guest: None });
    socket.write(&mut guest, b"no room");
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == BOTH);
    assert!(stream.is_over());
}

#[test]
fn packets_in_any_layout_of_buffers_are_understood() {
    let mut guest = Guest::start(0);
    for _ in 0..8 {
        // A header in three pieces, payload in two, one of them indirect.
        let chain = Chain::new().writable(20).writable(1).writable(23).writable(100).writable(4000);
        guest.driver.add(RX, &chain).unwrap();
        guest.driver.add(RX, &chain.indirect()).unwrap();
    }
    guest.driver.publish(RX);
    let (mut reader, write) = std::io::pipe().unwrap();
    let (read, mut writer) = std::io::pipe().unwrap();
    let endpoint = Endpoint { from_guest: Some(write.into()), to_guest: Some(read.into()) };
    let (mut socket, _stream) = guest.open(endpoint);
    let bytes = pattern(10_000);
    writer.write_all(&bytes).unwrap();
    assert!(socket.receive_until(&mut guest, |socket| socket.forwarded == 10_000) == bytes);
    let header = Header { length: 1000, ..socket.header(OP_RW) }.encode();
    let mut packet = Chain::new().readable(&header[..3]).readable(&header[3..40]);
    packet = packet.readable([&header[40..], &bytes[..10]].concat());
    packet = packet.readable(&bytes[10..500]).readable(&bytes[500..2000]);
    guest.send_chain(&packet);
    guest.send_chain(&packet.indirect());
    let mut got = vec![0; 2000];
    reader.read_exact(&mut got).unwrap();
    assert!(got[..1000] == bytes[..1000] && got[1000..] == bytes[..1000], "nothing beyond the length");
}

#[test]
fn a_reset_of_the_device_ends_connections_and_keeps_offers() {
    let mut guest = Guest::start(16);
    let (mut reader, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    socket.write(&mut guest, b"before");
    let (mut later, endpoint) = stdout();
    let (port, _) = guest.switchboard.offer(endpoint).unwrap();
    assert!(stream.wait_delivered(6, soon()));
    guest.driver.initialise();
    guest.give_buffers(16);
    assert!(stream.is_over());
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "before");
    let mut socket = guest.connect(port);
    socket.write(&mut guest, b"after");
    socket.shutdown(&mut guest, BOTH);
    let mut said = String::new();
    later.read_to_string(&mut said).unwrap();
    assert_eq!(said, "after");
}

/// Several buffers are taken for one read; those that stay empty must not be lost to the guest.
#[test]
fn every_buffer_of_the_guest_is_used_in_the_end() {
    let mut guest = Guest::start(8);
    let (mut writer, endpoint) = stdin();
    let (mut socket, _stream) = guest.open(endpoint);
    for key in 0..1000_u32 {
        writer.write_all(&[key as u8]).unwrap();
        assert_eq!(socket.receive_until(&mut guest, |socket| socket.forwarded > key), [key as u8]);
    }
    for key in 0..8 {
        writer.write_all(&[key]).unwrap();
        let packet = guest.keep_until(soon().unwrap()).expect("a buffer for each");
        assert_eq!(packet.payload, [key]);
    }
    assert_eq!(guest.driver.outstanding(RX), 0);
}

#[test]
fn a_connection_that_is_over_is_unknown_to_the_guest_though_its_reader_is_slow() {
    let mut guest = Guest::start(16);
    let (mut slow, endpoint) = stdout();
    let (mut socket, stream) = guest.open(endpoint);
    socket.write(&mut guest, &pattern(WINDOW as usize));
    guest.send(socket.header(OP_RST), &[]);
    let mut again = Socket { reset: false, ..socket.clone() };
    guest.send(again.header(OP_REQUEST), &[]);
    again.receive_until(&mut guest, |socket| socket.reset);
    assert!(!stream.is_over());
    let mut all = Vec::new();
    slow.read_to_end(&mut all).unwrap();
    assert!(all == pattern(WINDOW as usize));
    assert!(stream.wait_delivered(u64::from(WINDOW), soon()));
}

#[test]
fn who_waits_for_a_stream_of_a_machine_that_is_gone_is_let_go() {
    let guest = Guest::start(0);
    let (_reader, endpoint) = stdout();
    let (_, stream) = guest.switchboard.offer(endpoint).unwrap();
    let waiter = std::thread::spawn(move || stream.wait_delivered(1, soon()) && stream.is_over());
    drop(guest);
    assert!(waiter.join().unwrap());
}

#[test]
fn there_is_a_limit_to_streams() {
    let guest = Guest::start(0);
    let offers: Vec<_> = (0..1023).map(|_| guest.switchboard.offer(Endpoint::default()).unwrap()).collect();
    assert!(offers.iter().all(|(port, _)| *port >= 65536 && *port < u32::MAX));
    let refused = guest.switchboard.offer(Endpoint::default());
    assert!(matches!(refused, Err(VsockError::TooManyStreams)));
    guest.switchboard.withdraw(offers[0].0);
    guest.switchboard.offer(Endpoint::default()).unwrap();
}

#[test]
fn a_guest_that_goes_on_elsewhere_is_told_that_its_connections_are_over() {
    const EVENT: usize = 2;
    let mut guest = Guest::start(64);
    let (mut reader, endpoint) = stdout();
    let (mut socket, _stream) = guest.open(endpoint);
    socket.receive_until(&mut guest, |socket| socket.host_shutdown == SHUTDOWN_SEND);
    let head = guest.driver.offer(EVENT, &Chain::new().writable(4)).unwrap();
    let saved = guest.driver.mmio().suspend();
    // Nobody holds the caller's descriptor any more.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.driver.take(EVENT), None, "a guest that was not resumed is told nothing");
    guest.driver.mmio().restore(saved).unwrap();
    guest.driver.mmio().resume();
    let used = guest.driver.wait(EVENT);
    assert_eq!((used.head, &used.written[..]), (head, &[0; 4][..]));
    // The old connection is unknown; a new one can be made.
    guest.send(socket.header(OP_RW), b"");
    assert_eq!(guest.receive().header.op, OP_RST);
    let (_reader, endpoint) = stdout();
    guest.open(endpoint);
    // A reset is no resumption.
    guest.driver.initialise();
    guest.driver.offer(EVENT, &Chain::new().writable(4)).unwrap();
    let moment = Instant::now() + Duration::from_millis(50);
    assert_eq!(guest.driver.wait_until(EVENT, moment), None);
}
