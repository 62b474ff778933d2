//! The resolver's address inside: takes name look-ups at 127.0.0.11 and passes them to the host, which asks the resolver
//! that listens at that address on its side of the container's network (Docker's).
//!
//! It listens at a port that nobody would choose, and what is sent to port 53 of that address is led there
//! ([`crate::redirect`]), as Docker does it: so a server in the container may have port 53 of every address.
//!
//! A process of its own, made when the host says that there is such a resolver: the agent answers for no client. It
//! holds three sockets, reads no file, and remembers a bounded number of clients, the oldest of which is forgotten for
//! a new one.

use crate::agent::Agent;
use crate::redirect;
use crate::sys::clone::{Side, clone};
use crate::sys::{self, file, process as kernel};
use husk_protocol::names::{Frame, Transport, first_on_connection, put_on_connection};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, accept4, bind, getsockname, listen,
    recv, recvfrom, send, sendto, socket,
};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Where Docker's resolver is, for every container.
const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// Datagrams whose answers are awaited.
const MOST_ASKING: usize = 1024;
/// Connections at a time.
const MOST_CONNECTIONS: usize = 64;
/// Bytes that a client's connection may make us hold, each way.
const MOST_HELD: usize = 128 << 10;
/// Messages that one turn takes from a socket.
const BATCH: usize = 64;

/// Begins to serve: opens the sockets, and leaves them to a process of their own.
pub fn start(agent: &mut Agent, port: u32) -> sys::Result<()> {
    let (datagrams, listener, own_port) = open()?;
    redirect::lead(&datagrams, ADDRESS, own_port)?;
    listen(&listener, Backlog::new(MOST_CONNECTIONS as i32).unwrap_or(Backlog::MAXCONN))?;
    let host = agent.machine.connect(port)?;
    match clone(0, None)? {
        Side::Parent { .. } => Ok(()),
        Side::Child => {
            let _ = file::close_all_but(&[datagrams.as_raw_fd(), listener.as_raw_fd(), host.as_raw_fd()]);
            let _ = kernel::restore_signals();
            let mut relay = Relay {
                datagrams,
                listener,
                host,
                incoming: Vec::new(),
                outgoing: Vec::new(),
                asking: VecDeque::new(),
                connections: VecDeque::new(),
                next: 0,
            };
            while relay.turn().is_ok() {}
            kernel::exit(0)
        }
    }
}

/// Two sockets at one port of the address.
fn open() -> sys::Result<(OwnedFd, OwnedFd, u16)> {
    let at = |kind, port| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, kind, flags, None)?;
        let address = SockaddrIn::from(std::net::SocketAddrV4::new(ADDRESS.0, port));
        bind(socket.as_raw_fd(), &address).map(|()| socket)
    };
    let mut tries = 0_u32;
    loop {
        let datagrams = at(SockType::Datagram, 0)?;
        let port = getsockname::<SockaddrIn>(datagrams.as_raw_fd())?.port();
        match at(SockType::Stream, port) {
            // Somebody connects from it at this moment.
            Err(Errno::EADDRINUSE) if tries < 32 => tries = tries.saturating_add(1),
            listener => return Ok((datagrams, listener?, port)),
        }
    }
}

struct Relay {
    datagrams: OwnedFd,
    listener: OwnedFd,
    host: OwnedFd,
    /// From the host, no whole frame yet.
    incoming: Vec<u8>,
    /// For the host.
    outgoing: Vec<u8>,
    /// Who sent datagrams, the oldest first.
    asking: VecDeque<(u32, SockaddrIn)>,
    /// Who is connected, the oldest first.
    connections: VecDeque<Connection>,
    next: u32,
}

struct Connection {
    token: u32,
    socket: OwnedFd,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    over: bool,
}

impl Relay {
    /// Waits, and does what can be done. An error: the host is gone.
    fn turn(&mut self) -> sys::Result<()> {
        let both = |outgoing: &[u8]| {
            if outgoing.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
        };
        let mut ready = vec![
            PollFd::new(self.host.as_fd(), both(&self.outgoing)),
            PollFd::new(self.datagrams.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        ready.extend(self.connections.iter().map(|one| PollFd::new(one.socket.as_fd(), both(&one.outgoing))));
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = ready.iter().map(|one| one.any().unwrap_or(true)).collect();
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        for (at, connection) in self.connections.iter_mut().enumerate() {
            if is_ready(at.saturating_add(3)) {
                connection.serve(&mut self.outgoing);
            }
        }
        if is_ready(1) {
            self.take_datagrams();
        }
        if is_ready(2) {
            self.take_connections();
        }
        self.take_answers()?;
        self.connections.retain(|connection| !connection.over);
        flush(&self.host, &mut self.outgoing)
    }

    fn token(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn take_datagrams(&mut self) {
        let mut message = [0; 4096];
        for _ in 0..BATCH {
            let Ok((length, Some(from))) = recvfrom::<SockaddrIn>(self.datagrams.as_raw_fd(), &mut message)
            else {
                return;
            };
            let token = self.token();
            let message = message.get(..length).unwrap_or_default();
            if (Frame { token, transport: Transport::Datagram, message }).put(&mut self.outgoing) {
                if self.asking.len() >= MOST_ASKING {
                    self.asking.pop_front();
                }
                self.asking.push_back((token, from));
            }
        }
    }

    fn take_connections(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(number) = accept4(self.listener.as_raw_fd(), flags) {
            #[allow(unsafe_code)] // nix gives a number
            // SAFETY: the descriptor was just made for us, and nobody else knows it.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            if self.connections.len() >= MOST_CONNECTIONS {
                self.connections.pop_front();
            }
            let token = self.token();
            let (incoming, outgoing) = (Vec::new(), Vec::new());
            self.connections.push_back(Connection { token, socket, incoming, outgoing, over: false });
        }
    }

    /// Takes what the host says, and gives it to whom it is for.
    fn take_answers(&mut self) -> sys::Result<()> {
        let mut bytes = [0; 16 << 10];
        match recv(self.host.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) => return Err(sys::Error(Errno::ECONNRESET)),
            Ok(length) => self.incoming.extend_from_slice(bytes.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOTCONN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut rest = self.incoming.as_slice();
        while let Some((frame, after)) = Frame::take(rest) {
            rest = after;
            match frame.transport {
                Transport::Datagram => {
                    let at = self.asking.iter().position(|(token, _)| *token == frame.token);
                    if let Some((_, to)) = at.and_then(|at| self.asking.remove(at)) {
                        // A client that is gone does not want it.
                        let _ = sendto(self.datagrams.as_raw_fd(), frame.message, &to, MsgFlags::empty());
                    }
                }
                Transport::Connection => {
                    let wanted = self.connections.iter_mut().find(|one| one.token == frame.token);
                    if let Some(connection) = wanted {
                        connection.answer(frame.message);
                    }
                }
            }
        }
        let taken = self.incoming.len().saturating_sub(rest.len());
        self.incoming.drain(..taken);
        Ok(())
    }
}

impl Connection {
    /// Takes questions, and sends what is left of answers.
    fn serve(&mut self, to_host: &mut Vec<u8>) {
        let mut bytes = [0; 4096];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length @ 1..) => self.incoming.extend_from_slice(bytes.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) | Err(_) => self.over = true,
        }
        let mut rest = self.incoming.as_slice();
        while let Some((message, after)) = first_on_connection(rest) {
            rest = after;
            let frame = Frame { token: self.token, transport: Transport::Connection, message };
            self.over |= !frame.put(to_host);
        }
        let taken = self.incoming.len().saturating_sub(rest.len());
        self.incoming.drain(..taken);
        self.over |= flush(&self.socket, &mut self.outgoing).is_err();
    }

    fn answer(&mut self, message: &[u8]) {
        put_on_connection(message, &mut self.outgoing);
        self.over |= flush(&self.socket, &mut self.outgoing).is_err() || self.outgoing.len() > MOST_HELD;
    }
}

/// Sends what can be sent without waiting.
fn flush(to: &OwnedFd, bytes: &mut Vec<u8>) -> sys::Result<()> {
    let mut sent = 0_usize;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match send(to.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => sent = sent.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOTCONN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    bytes.drain(..sent.min(bytes.len()));
    Ok(())
}
