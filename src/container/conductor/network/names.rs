//! Name look-ups: from the guest's 127.0.0.11 to the same address in the container's network namespace, and to no other.
//!
//! Docker's resolver listens there for containers on networks that users made. Its address is one of the loopback's, so
//! no interface leads to it: the agent takes questions inside and sends them over a stream ([`husk_protocol::names`]),
//! and this thread asks.
//!
//! | The guest can | and then |
//! |---|---|
//! | send anything as a question | it is passed on to the resolver, if it has the length of a DNS header; the resolver hears the same from any container |
//! | ask without end, or without taking answers | as many are remembered as there are places; the oldest is forgotten, answers are dropped |
//! | break the framing | the relay ends |

use crate::host::deadline::poll;
use crate::machine::{Walls, walls};
use husk_protocol::names::{Frame, Transport, first_on_connection, put_on_connection};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, getsockopt, recv, send, socket, sockopt,
};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Docker's resolver, in every namespace that has one.
const RESOLVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Whether there is a resolver in the calling thread's namespace.
pub(super) fn is_there() -> bool {
    let Ok(socket) = begin(SockType::Stream) else { return false };
    // On the loopback both ends are here: it is answered by the time it is asked, unless somebody filters it.
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut ready, PollTimeout::from(MOMENT));
    let answered = ready.iter().any(|one| one.any().unwrap_or(false));
    answered && getsockopt(&socket, sockopt::SocketError) == Ok(0)
}

/// Serves the guest at the other end of `guest`, in a thread of its own.
pub(super) fn begin_relay(guest: UnixStream, walls: Walls) -> io::Result<()> {
    guest.set_nonblocking(true)?;
    let relay = Relay {
        resolver: begin(SockType::Datagram)?,
        guest,
        incoming: Vec::new(),
        outgoing: Vec::new(),
        asked: vec![None; PLACES],
        next: 0,
        connections: VecDeque::new(),
    };
    let body = move || match walls.enter(walls::Thread::Names, || Ok(())) {
        Ok(()) => relay.serve(),
        Err(error) => tracing::error!(%error, "the walls of the thread for names do not stand"),
    };
    std::thread::Builder::new().name("names".to_owned()).spawn(body).map(drop)
}

struct Relay {
    guest: UnixStream,
    resolver: OwnedFd,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Questions by datagram, by the number under which the resolver was asked.
    asked: Vec<Option<Asked>>,
    next: u16,
    connections: VecDeque<Connection>,
}

#[derive(Clone, Copy)]
struct Asked {
    number: u16,
    /// The client's own number for it, and whose it is.
    original: [u8; 2],
    token: u32,
}

/// One question, for which a connection is made.
struct Connection {
    token: u32,
    socket: OwnedFd,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    begun: Instant,
    over: bool,
}

impl Relay {
    fn serve(mut self) {
        while self.turn().is_ok() {}
    }

    /// Waits, and does what can be done. An error: the guest is gone, or not worth serving.
    fn turn(&mut self) -> io::Result<()> {
        let both = |outgoing: &[u8]| {
            if outgoing.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
        };
        let mut ready = vec![
            PollFd::new(self.guest.as_fd(), both(&self.outgoing)),
            PollFd::new(self.resolver.as_fd(), PollFlags::POLLIN),
        ];
        ready.extend(self.connections.iter().map(|one| PollFd::new(one.socket.as_fd(), both(&one.outgoing))));
        let timeout = if self.connections.is_empty() { PollTimeout::NONE } else { PollTimeout::from(GLANCE) };
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = ready.iter().map(|one| one.any().unwrap_or(true)).collect();
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        for (at, connection) in self.connections.iter_mut().enumerate() {
            if is_ready(at.saturating_add(2)) {
                connection.serve(&mut self.outgoing);
            }
            connection.over |= connection.begun.elapsed() > PATIENCE;
        }
        self.connections.retain(|connection| !connection.over);
        if is_ready(1) {
            self.take_answers();
        }
        if is_ready(0) {
            self.take_questions()?;
        }
        flush(&self.guest, &mut self.outgoing)
    }

    fn take_questions(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        match recv(self.guest.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.incoming.extend_from_slice(bytes.get(..length).unwrap_or(&[])),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // At most one frame and a read's worth, because all whole ones are taken.
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        while let Some((frame, after)) = Frame::take(rest) {
            rest = after;
            if frame.message.len() < DNS_HEADER {
                continue;
            }
            match frame.transport {
                Transport::Datagram => self.ask(&frame),
                Transport::Connection => self.ask_on_connection(&frame),
            }
        }
        self.incoming = rest.to_vec();
        Ok(())
    }

    /// Asks under a number of ours: those of different clients may be the same.
    fn ask(&mut self, frame: &Frame<'_>) {
        let Some((original, body)) = frame.message.split_first_chunk::<2>() else { return };
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        let Some(place) = self.asked.get_mut(usize::from(number) & (PLACES - 1)) else { return };
        *place = Some(Asked { number, original: *original, token: frame.token });
        let message = [&number.to_be_bytes(), body].concat();
        if send(self.resolver.as_raw_fd(), &message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_err()
        {
            // It was refused, or an earlier one was: the resolver may have moved, and what the kernel remembers of
            // our socket's address with it.
            if let Ok(fresh) = begin(SockType::Datagram) {
                self.resolver = fresh;
                let _ = send(self.resolver.as_raw_fd(), &message, MsgFlags::MSG_DONTWAIT);
            }
        }
    }

    fn take_answers(&mut self) {
        let mut message = vec![0; 65535];
        for _ in 0..BATCH {
            let Ok(length) = recv(self.resolver.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) else {
                return;
            };
            let Some(([n0, n1], body)) = message.get(..length).and_then(|all| all.split_first_chunk::<2>())
            else {
                continue;
            };
            let number = u16::from_be_bytes([*n0, *n1]);
            let Some(place) = self.asked.get_mut(usize::from(number) & (PLACES - 1)) else { continue };
            let Some(asked) = place.take_if(|asked| asked.number == number) else { continue };
            let message = [asked.original.as_slice(), body].concat();
            let frame = Frame { token: asked.token, transport: Transport::Datagram, message: &message };
            // One too many is lost, as datagrams are.
            frame.put(&mut self.outgoing);
        }
    }

    fn ask_on_connection(&mut self, frame: &Frame<'_>) {
        let Ok(socket) = begin(SockType::Stream) else { return };
        let mut outgoing = Vec::with_capacity(frame.message.len().saturating_add(2));
        put_on_connection(frame.message, &mut outgoing);
        if self.connections.len() >= MOST_CONNECTIONS {
            self.connections.pop_front();
        }
        let (incoming, begun) = (Vec::new(), Instant::now());
        let token = frame.token;
        self.connections.push_back(Connection { token, socket, outgoing, incoming, begun, over: false });
    }
}

impl Connection {
    fn serve(&mut self, to_guest: &mut Vec<u8>) {
        if flush(&self.socket, &mut self.outgoing).is_err() {
            self.over = true;
            return;
        }
        let mut bytes = [0; 16 << 10];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(length @ 1..) => self.incoming.extend_from_slice(bytes.get(..length).unwrap_or(&[])),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOTCONN) => {}
            Ok(0) | Err(_) => self.over = true,
        }
        if let Some((message, _)) = first_on_connection(&self.incoming) {
            Frame { token: self.token, transport: Transport::Connection, message }.put(to_guest);
            self.over = true;
        }
    }
}

/// A socket that is being connected to the resolver.
fn begin(kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    match connect(socket.as_raw_fd(), &SockaddrIn::from(RESOLVER)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Sends what can be sent without waiting.
fn flush(to: &impl AsRawFd, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0_usize;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match send(to.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(count) => sent = sent.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOTCONN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    bytes.drain(..sent.min(bytes.len()));
    Ok(())
}

/// Questions by datagram at a time; a power of two.
const PLACES: usize = 1024;
const MOST_CONNECTIONS: usize = 64;
const BATCH: usize = 64;
const DNS_HEADER: usize = 12;
/// For a question on a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// In milliseconds: to see whether somebody listens, and how often connections are looked at.
const MOMENT: u8 = 50;
const GLANCE: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::Netlink;
    use crate::machine::order::SystemCalls;
    use std::io::{Read, Write};
    use std::net::{TcpListener, UdpSocket};

    /// Runs `story` in a network namespace of its own with its loopback up, if that can be had.
    fn alone(story: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                    eprintln!("skipped: needs root to make a network namespace");
                    return;
                }
                assert!(!is_there(), "the loopback is down");
                crate::host::tap::set_up(&mut Netlink::open().unwrap(), 1).unwrap();
                story();
            });
        });
    }

    fn question(number: u16, text: &str) -> Vec<u8> {
        [&number.to_be_bytes(), &[0; 10][..], text.as_bytes()].concat()
    }

    fn say(guest: &mut UnixStream, token: u32, transport: Transport, message: &[u8]) {
        let mut bytes = Vec::new();
        assert!(Frame { token, transport, message }.put(&mut bytes));
        guest.write_all(&bytes).unwrap();
    }

    fn hear(guest: &mut UnixStream) -> (u32, Transport, Vec<u8>) {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            guest.read_exact(&mut byte).unwrap();
            bytes.extend(byte);
            if let Some((frame, _)) = Frame::take(&bytes) {
                return (frame.token, frame.transport, frame.message.to_vec());
            }
        }
    }

    #[test]
    fn questions_with_the_same_number_get_their_own_answers() {
        alone(|| {
            assert!(!is_there(), "nobody listens");
            let resolver = UdpSocket::bind(RESOLVER).unwrap();
            let listener = TcpListener::bind(RESOLVER).unwrap();
            assert!(is_there());
            let (mut guest, ours) = UnixStream::pair().unwrap();
            guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            begin_relay(ours, Walls::new(SystemCalls::Enforce)).unwrap();
            // Too short to be a question; then two that look alike.
            say(&mut guest, 1, Transport::Datagram, b"short");
            say(&mut guest, 2, Transport::Datagram, &question(7, "two"));
            say(&mut guest, 3, Transport::Datagram, &question(7, "three"));
            let mut asked = Vec::new();
            for _ in 0..2 {
                let mut message = [0; 512];
                let (length, from) = resolver.recv_from(&mut message).unwrap();
                asked.push((message[..length].to_vec(), from));
            }
            // In the other order, and an answer that nobody asked for.
            resolver.send_to(&question(0xbeef, "nobody"), asked[0].1).unwrap();
            for (message, from) in asked.iter().rev() {
                resolver.send_to(&[message, &b" yes"[..]].concat(), from).unwrap();
            }
            assert_eq!(hear(&mut guest), (3, Transport::Datagram, question(7, "three yes")));
            assert_eq!(hear(&mut guest), (2, Transport::Datagram, question(7, "two yes")));
            // On a connection. The first one is that of `is_there`.
            say(&mut guest, 4, Transport::Connection, &question(9, "four"));
            let _ = listener.accept().unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut message = vec![0; 2 + question(9, "four").len()];
            stream.read_exact(&mut message).unwrap();
            assert_eq!(first_on_connection(&message).unwrap().0, question(9, "four"));
            stream.write_all(&[0, 13]).unwrap();
            stream.write_all(&question(9, "!")).unwrap();
            assert_eq!(hear(&mut guest), (4, Transport::Connection, question(9, "!")));
        });
    }

    #[test]
    fn a_guest_that_asks_without_end_and_takes_nothing_costs_what_it_may_and_no_more() {
        alone(|| {
            let resolver = UdpSocket::bind(RESOLVER).unwrap();
            let answering = resolver.try_clone().unwrap();
            answering.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let answers = std::thread::spawn(move || {
                let mut message = [0; 4096];
                while let Ok((length, from)) = answering.recv_from(&mut message) {
                    let _ = answering.send_to(&message[..length], from);
                }
            });
            let (mut guest, ours) = UnixStream::pair().unwrap();
            begin_relay(ours, Walls::new(SystemCalls::Enforce)).unwrap();
            guest.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
            let long = "x".repeat(1000);
            for number in 0..20_000 {
                say(&mut guest, number, Transport::Datagram, &question(number as u16, &long));
            }
            answers.join().unwrap();
            // It is still there for who begins to listen.
            guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(hear(&mut guest).2.len(), 1012);
        });
    }
}
