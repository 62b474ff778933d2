//! The guest's side of the device, as far as its kernel's vsock driver would go.

use super::super::packet::*;
use super::super::{Endpoint, GUEST_CID, HOST_CID, Switchboard, Vsock};
use crate::device::testing::{Chain, Driver, PATIENCE};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

pub const RX: usize = 0;
pub const TX: usize = 1;

/// What the guest announces as its receive buffer.
pub const GUEST_BUFFER: u32 = 256 * 1024;

pub struct Guest {
    pub driver: Driver,
    pub switchboard: Switchboard,
}

/// A packet as received.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub header: Header,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.header.fmt(formatter)
    }
}

impl Guest {
    /// With `rx` buffers of 4 KiB for packets from the host.
    pub fn start(rx: usize) -> Guest {
        let (device, switchboard) = Vsock::new(GUEST_CID);
        let mut guest = Guest { driver: Driver::start(device), switchboard };
        guest.give_buffers(rx);
        guest
    }

    pub fn give_buffers(&mut self, count: usize) {
        for _ in 0..count {
            self.driver.add(RX, &Chain::new().writable(4096)).expect("room in the rx queue");
        }
        self.driver.publish(RX);
    }

    /// Sends a packet, waiting for room in the queue.
    pub fn send(&mut self, header: Header, payload: &[u8]) {
        let chain = Chain::new().readable(header.encode());
        let chain = if payload.is_empty() { chain } else { chain.readable(payload) };
        self.send_chain(&chain);
    }

    pub fn send_chain(&mut self, chain: &Chain) {
        while self.driver.take(TX).is_some() {}
        while self.driver.offer(TX, chain).is_none() {
            let used = self.driver.wait(TX);
            assert_eq!(used.length, 0, "the device writes nothing into what it reads");
        }
    }

    /// The next packet; its buffer goes back to the device.
    pub fn receive(&mut self) -> Packet {
        self.receive_until(Instant::now() + PATIENCE).expect("a packet in time")
    }

    pub fn receive_until(&mut self, deadline: Instant) -> Option<Packet> {
        let packet = self.keep_until(deadline)?;
        self.give_buffers(1);
        Some(packet)
    }

    /// The next packet, without giving its buffer back.
    pub fn keep_until(&mut self, deadline: Instant) -> Option<Packet> {
        let used = self.driver.wait_until(RX, deadline)?;
        assert_eq!(used.length as usize, used.written.len());
        let (header, payload) = used.written.split_at(HEADER_LENGTH);
        let header = Header::parse(header.try_into().unwrap());
        assert_eq!(header.length as usize, payload.len());
        Some(Packet { header, payload: payload.to_vec() })
    }

    /// Fails if the host says anything within a moment.
    pub fn expect_silence(&mut self) {
        let said = self.receive_until(Instant::now() + Duration::from_millis(50));
        assert_eq!(said, None, "the host has nothing to say");
    }

    /// Connects to a port and expects to be accepted.
    pub fn connect(&mut self, port: u32) -> Socket {
        let mut socket = Socket { guest_port: 5000, host_port: port, ..Socket::default() };
        self.send(socket.header(OP_REQUEST), &[]);
        let response = self.receive();
        assert_eq!(response.header.op, OP_RESPONSE);
        assert!(socket.accepts(&response));
        socket
    }

    /// Offers and connects.
    pub fn open(&mut self, endpoint: Endpoint) -> (Socket, std::sync::Arc<super::super::Stream>) {
        let (port, stream) = self.switchboard.offer(endpoint).unwrap();
        (self.connect(port), stream)
    }
}

/// One connected socket in the guest: keeps credit as Linux does.
#[derive(Debug, Clone, Default)]
pub struct Socket {
    pub guest_port: u32,
    pub host_port: u32,
    /// Sent; of these, taken by the host, whose buffer is this large.
    pub sent: u32,
    pub host_forwarded: u32,
    pub host_buffer: u32,
    /// Received and read.
    pub forwarded: u32,
    /// Shutdown flags of the host.
    pub host_shutdown: u32,
    pub reset: bool,
    /// Takes everything in and tells the host nothing of it.
    pub reads_nothing: bool,
}

impl Socket {
    pub fn header(&self, op: u16) -> Header {
        Header {
            source_cid: GUEST_CID,
            destination_cid: HOST_CID,
            source_port: self.guest_port,
            destination_port: self.host_port,
            kind: TYPE_STREAM,
            op,
            buffer_size: GUEST_BUFFER,
            forwarded: self.forwarded,
            ..Header::default()
        }
    }

    /// Takes in a packet if it is for this socket.
    pub fn accepts(&mut self, packet: &Packet) -> bool {
        let header = &packet.header;
        if header.source_port != self.host_port || header.destination_port != self.guest_port {
            return false;
        }
        assert_eq!(
            (header.source_cid, header.destination_cid, header.kind),
            (HOST_CID, GUEST_CID, TYPE_STREAM)
        );
        if header.op == OP_RST {
            self.reset = true;
            return true;
        }
        self.host_buffer = header.buffer_size;
        self.host_forwarded = header.forwarded;
        if header.op == OP_SHUTDOWN {
            self.host_shutdown |= header.flags;
        }
        self.forwarded = self.forwarded.wrapping_add(header.length);
        true
    }

    pub fn credit(&self) -> u32 {
        self.host_buffer - self.sent.wrapping_sub(self.host_forwarded)
    }

    /// Sends data within the credit, waiting for more of it where needed.
    pub fn write(&mut self, guest: &mut Guest, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let part = bytes.len().min(self.credit() as usize).min(64 * 1024);
            if part == 0 {
                let packet = guest.receive();
                assert!(self.accepts(&packet));
                assert!(!self.reset, "the host still wants it");
                continue;
            }
            self.write_some(guest, &bytes[..part]);
            bytes = &bytes[part..];
        }
    }

    /// One packet, credit or not.
    pub fn write_some(&mut self, guest: &mut Guest, bytes: &[u8]) {
        let header = Header { length: bytes.len() as u32, ..self.header(OP_RW) };
        guest.send(header, bytes);
        self.sent = self.sent.wrapping_add(bytes.len() as u32);
    }

    pub fn shutdown(&mut self, guest: &mut Guest, flags: u32) {
        guest.send(Header { flags, ..self.header(OP_SHUTDOWN) }, &[]);
    }

    pub fn tell_credit(&mut self, guest: &mut Guest) {
        guest.send(self.header(OP_CREDIT_UPDATE), &[]);
    }

    /// Receives until `done`; every packet must be for this socket. Tells the host what was read, as Linux does when
    /// its buffer gets short.
    pub fn receive_until(&mut self, guest: &mut Guest, done: impl Fn(&Socket) -> bool) -> Vec<u8> {
        let (mut data, mut told) = (Vec::new(), self.forwarded);
        while !done(self) {
            let packet = guest.receive();
            assert!(self.accepts(&packet), "{packet:?} is for {self:?}");
            data.extend(packet.payload);
            if !self.reads_nothing && self.forwarded.wrapping_sub(told) > GUEST_BUFFER - 64 * 1024 {
                told = self.forwarded;
                self.tell_credit(guest);
            }
        }
        data
    }
}

/// stdin of a container: the caller's end, and the endpoint.
pub fn stdin() -> (PipeWriter, Endpoint) {
    let (read, write) = std::io::pipe().unwrap();
    (write, Endpoint { from_guest: None, to_guest: Some(OwnedFd::from(read)) })
}

/// stdout of a container.
pub fn stdout() -> (PipeReader, Endpoint) {
    let (read, write) = std::io::pipe().unwrap();
    (read, Endpoint { from_guest: Some(OwnedFd::from(write)), to_guest: None })
}

/// Bytes that are not the same everywhere.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
