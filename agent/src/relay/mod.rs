//! Stands in for sockets and FIFOs of the host in what is shared, and leads the host to sockets that processes inside make
//! there ([`husk_protocol::relay`]).
//!
//! ```text
//!   host's stream --ToGuest--> listen at an inode | accept | connect inside | FIFOs
//!   listener (bound to the shared inode) --client--> Arrived --Accept(port)--> Connection: client <-> vsock
//!   Connect(port) --connect(the inode)--> server inside                     --> Connection: server <-> vsock
//! ```
//! A process of its own, made when the host first has something to relay: the agent answers for no client. Everything
//! in it is bounded ([`MOST_CONNECTIONS`], [`MOST_SOCKETS`], a chunk for each direction), and it ends with the host's stream.

mod connection;
mod fifo;
mod poll;
pub mod port;
mod socket;
#[cfg(test)]
mod tests;

use crate::agent::Agent;
use crate::machine::{Machine, SHARES};
use crate::sys::clone::{Side, clone};
use crate::sys::{self, file, process as kernel};
use connection::Connection;
use fifo::Fifo;
use husk_protocol::frame;
use husk_protocol::relay::{
    FromGuest, LONGEST_DATAGRAM, LONGEST_FRAME, MOST_CONNECTIONS, MOST_DATAGRAMS, MOST_SOCKETS, Node, Peer,
    SocketKind, ToGuest, bind_name, node_name,
};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use poll::{End, Poll, Side as EndSide, Source};
use socket::{Inside, Listener};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Begins to relay, in a process of its own.
pub fn start(agent: &mut Agent, port: u32) -> sys::Result<()> {
    let host = agent.machine.connect(port)?;
    match clone(0, None)? {
        Side::Parent { .. } => Ok(()),
        Side::Child => {
            let _ = file::close_all_but(&[host.as_raw_fd()]);
            let _ = kernel::restore_signals();
            kernel::ignore_broken_pipes();
            if let Ok(mut relay) = Relay::open(&*agent.machine, host, SHARES) {
                while relay.turn().is_ok() {}
            }
            kernel::exit(0)
        }
    }
}

/// With this many bytes unsent to the host, nothing that can wait is added to them.
const CROWDED: usize = 256 << 10;
/// How often FIFOs are looked at, and servers inside that do not listen yet.
const TICK: Duration = Duration::from_millis(50);
/// How long a server inside that has bound its socket may take to listen, and a busy one to have room.
const PATIENCE: Duration = Duration::from_secs(2);

struct Relay<'m> {
    machine: &'m dyn Machine,
    /// Where what is shared is.
    shares: &'m str,
    poll: Poll,
    host: End,
    /// From the host, no whole frame yet.
    incoming: Vec<u8>,
    /// For the host.
    outgoing: Vec<u8>,
    listeners: BTreeMap<Node, Listener>,
    /// Clients for whom the host is connecting.
    arrived: BTreeMap<u32, OwnedFd>,
    connections: BTreeMap<u32, Connection>,
    /// Clients of the host whose servers inside are not ready.
    trying: Vec<Trying>,
    fifos: BTreeMap<String, Fifo>,
    next: u32,
    scratch: Vec<u8>,
    due: Option<Instant>,
}

struct Trying {
    node: Node,
    port: u32,
    until: Instant,
}

impl<'m> Relay<'m> {
    fn open(machine: &'m dyn Machine, host: OwnedFd, shares: &'m str) -> sys::Result<Self> {
        let poll = Poll::open()?;
        let mut host = End::new(host, Source::Host);
        host.wait(&poll, Some(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT));
        Ok(Self {
            machine,
            shares,
            poll,
            host,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            listeners: BTreeMap::new(),
            arrived: BTreeMap::new(),
            connections: BTreeMap::new(),
            trying: Vec::new(),
            fifos: BTreeMap::new(),
            next: 0,
            scratch: vec![0; crate::stream::CHUNK.max(LONGEST_DATAGRAM)],
            due: None,
        })
    }

    /// Waits, and does what can be done. An error: the host is gone.
    fn turn(&mut self) -> sys::Result<()> {
        for (source, flags) in self.poll.wait(self.due)? {
            match source {
                Source::Host => self.hear()?,
                Source::Listener(node) => self.welcome(node),
                Source::Connection(number, side) => self.carry(number, side, flags),
                Source::Fifo => {} // all are looked at below
            }
        }
        if !self.fifos.is_empty() {
            self.look_at_fifos();
        }
        self.try_again();
        self.flush()?;
        let crowded = self.outgoing.len() >= CROWDED;
        let full = self.live() >= MOST_CONNECTIONS;
        for listener in self.listeners.values_mut() {
            listener.wait(&self.poll, full || crowded);
        }
        let mut host = EpollFlags::empty();
        host.set(EpollFlags::EPOLLIN, !crowded);
        host.set(EpollFlags::EPOLLOUT, !self.outgoing.is_empty());
        self.host.wait(&self.poll, Some(host));
        let ticks = !self.fifos.is_empty() || !self.trying.is_empty();
        self.due = ticks.then(|| Instant::now().checked_add(TICK)).flatten();
        Ok(())
    }

    /// Connections, and those that are to be some.
    fn live(&self) -> usize {
        self.connections.len().saturating_add(self.arrived.len()).saturating_add(self.trying.len())
    }

    fn number(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            if !self.arrived.contains_key(&self.next) && !self.connections.contains_key(&self.next) {
                return self.next;
            }
        }
    }

    /// Takes what the host says.
    fn hear(&mut self) -> sys::Result<()> {
        let mut bytes = [0; 16 << 10];
        match recv(self.host.fd.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) => return Err(sys::Error(Errno::ECONNRESET)),
            Ok(length) => self.incoming.extend_from_slice(bytes.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOTCONN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let length = frame::length(*prefix).ok().filter(|length| *length <= LONGEST_FRAME);
            let length = length.ok_or(sys::Error(Errno::EPROTO))?;
            let Some((message, after)) = after.split_at_checked(length) else { break };
            rest = after;
            self.act(frame::decode(message).map_err(|_| sys::Error(Errno::EPROTO))?);
        }
        self.incoming = rest.to_vec();
        Ok(())
    }

    fn act(&mut self, message: ToGuest) {
        match message {
            ToGuest::Serve { node, kind } => self.serve(node, kind),
            ToGuest::Leave { node } => drop(self.listeners.remove(&node)),
            ToGuest::Accept { token, port } => {
                if let Some(client) = self.arrived.remove(&token) {
                    self.join(client, port);
                }
            }
            ToGuest::Refuse { token } => drop(self.arrived.remove(&token)),
            ToGuest::Taken { node } => {
                if let Some(listener) = self.listeners.get_mut(&node) {
                    listener.under_way = listener.under_way.saturating_sub(1);
                }
            }
            ToGuest::Connect { node, port } => {
                let until = Instant::now().checked_add(PATIENCE).unwrap_or_else(Instant::now);
                self.trying.push(Trying { node, port, until });
            }
            ToGuest::WatchFifo { share } => {
                let fifo = Fifo::new(format!("{}/{share}", self.shares));
                self.fifos.insert(share, fifo);
            }
            ToGuest::DrainFifo { share, port } => {
                if let Some(fifo) = self.fifos.get_mut(&share) {
                    fifo.drain(&self.poll, self.machine, port);
                }
            }
            ToGuest::FillFifo { share, port } => {
                if let Some(fifo) = self.fifos.get_mut(&share) {
                    fifo.fill(&self.poll, self.machine, port);
                }
            }
        }
    }

    fn serve(&mut self, node: Node, kind: SocketKind) {
        let made = if self.listeners.len() < MOST_SOCKETS {
            Listener::open(&format!("{}/{}", self.shares, bind_name(node)), node, kind)
        } else {
            Err(sys::Error(Errno::ENFILE))
        };
        let done = made.is_ok();
        match made {
            Ok(listener) => drop(self.listeners.insert(node, listener)),
            Err(error) => crate::log::error(&format!("stand in for a socket of the host's: {error}")),
        }
        self.say(&FromGuest::Serving { node, done });
    }

    /// Somebody inside has come to a socket of the host's.
    fn welcome(&mut self, node: Node) {
        let Some(listener) = self.listeners.get_mut(&node) else { return };
        if listener.kind == SocketKind::Datagram {
            return self.take_datagrams(node);
        }
        while self.live() < MOST_CONNECTIONS {
            let Some((client, peer)) = self.listeners.get(&node).and_then(Listener::accept) else { return };
            let token = self.number();
            self.arrived.insert(token, client);
            self.say(&FromGuest::Arrived { node, token, peer });
        }
    }

    fn take_datagrams(&mut self, node: Node) {
        loop {
            let Some(listener) = self.listeners.get_mut(&node) else { return };
            if listener.under_way >= MOST_DATAGRAMS {
                return;
            }
            let Some((length, peer)) = listener.receive(&mut self.scratch) else { return };
            let bytes = self.scratch.get(..length).filter(|bytes| bytes.len() <= LONGEST_DATAGRAM);
            if let Some(bytes) = bytes {
                listener.under_way = listener.under_way.saturating_add(1);
                let bytes = bytes.to_vec();
                self.say(&FromGuest::Datagram { node, peer, bytes });
            }
        }
    }

    /// Joins a socket of a process inside with a port of the host's.
    fn join(&mut self, inside: OwnedFd, port: u32) {
        // A host that has changed its mind sees that nobody comes.
        let Ok(outside) = self.machine.connect(port) else { return };
        let number = self.number();
        let mut connection = Connection::new(number, inside, outside);
        connection.wait(&self.poll);
        self.connections.insert(number, connection);
    }

    fn carry(&mut self, number: u32, side: EndSide, flags: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.act(side, flags, &mut self.scratch) {
            self.connections.remove(&number);
        } else {
            connection.wait(&self.poll);
        }
    }

    /// Clients of the host, for servers inside.
    fn try_again(&mut self) {
        for trying in std::mem::take(&mut self.trying) {
            let Trying { node, port, until } = trying;
            match socket::connect_inside(&format!("{}/{}", self.shares, node_name(node))) {
                Inside::Connected(server) => self.join(server, port),
                Inside::Later if Instant::now() < until => self.trying.push(trying),
                outcome => {
                    let gone = matches!(outcome, Inside::Gone);
                    self.say(&FromGuest::Unreachable { port, node, gone });
                }
            }
        }
    }

    fn look_at_fifos(&mut self) {
        let mut said = Vec::new();
        for (share, fifo) in &mut self.fifos {
            match fifo.look(&self.poll, &mut self.scratch) {
                fifo::News::None => {}
                fifo::News::Read => said.push(FromGuest::FifoRead { share: share.clone() }),
                fifo::News::Over => said.push(FromGuest::FifoOver { share: share.clone() }),
            }
        }
        said.iter().for_each(|message| self.say(message));
    }

    fn say(&mut self, message: &FromGuest) {
        match frame::encode(message) {
            Ok(bytes) => self.outgoing.extend(bytes),
            Err(error) => crate::log::error(&crate::words::chain(&error)),
        }
    }

    /// Sends what can be sent without waiting.
    fn flush(&mut self) -> sys::Result<()> {
        let mut sent = 0_usize;
        while let Some(rest) = self.outgoing.get(sent..).filter(|rest| !rest.is_empty()) {
            match send(self.host.fd.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => sent = sent.saturating_add(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOTCONN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.drain(..sent.min(self.outgoing.len()));
        Ok(())
    }
}

/// The process that a socket's kernel knows at its other end.
fn peer(uid: u32, gid: u32) -> Peer {
    Peer { uid, gid }
}
