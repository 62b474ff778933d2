//! The thread: one loop over the guest's messages, what the file server tells, clients outside, and FIFOs.

use super::fifo::Fifo;
use super::message::Guest;
use super::server::{Attempt, Listener, Server};
use super::{News, Shared, Standing};
use crate::container::conductor::streams::{Stream, Streams};
use crate::container::conductor::{Conductor, deadline, wake};
use crate::device::fs::Made;
use crate::host::deadline::poll;
use crate::host::identity::Identity;
use crate::machine;
use husk_protocol::Call;
use husk_protocol::relay::{FromGuest, MOST_CONNECTIONS, MOST_DATAGRAMS, MOST_SOCKETS, Node, Peer, ToGuest};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::EventFd;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

/// Makes the thread, which sleeps until it is woken for the first time. To be called on the file server's, whose working
/// directory and rights it begins with. Gives what wakes it.
pub(super) fn begin(shared: Arc<Shared>) -> io::Result<EventFd> {
    let ours = wake()?;
    let watched = ours.as_fd().try_clone_to_owned()?;
    let body = move || {
        if let Err(error) = live(&shared, watched) {
            tracing::error!("cannot relay sockets: {error}");
        }
        shared.give_up();
    };
    std::thread::Builder::new().name("relay".to_owned()).spawn(body)?;
    Ok(ours)
}

/// The thread: it takes what it needs, leaves the rest (its working directory is the file server's, so far shared), and serves
/// from the first call on.
fn live(shared: &Arc<Shared>, watched: OwnedFd) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let prepare = || {
        unshare(CloneFlags::CLONE_FS)?;
        Identity::current()
    };
    let identity = shared.walls.enter(machine::walls::Thread::Relay, prepare).map_err(told)?;
    // A signal is no call; they are blocked, at that.
    while let Err(Errno::EINTR) =
        poll(&mut [PollFd::new(watched.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
    {}
    // Nobody calls before there is a guest to tell.
    let Some(guest) = shared.guest.get().map(Arc::clone) else { return Ok(()) };
    let stream = converse(&guest)?;
    let mut worker = Worker::new(Arc::clone(shared), Arc::clone(&guest.streams), identity, stream, watched);
    while worker.turn().is_ok() {}
    Ok(())
}

/// Has the agent begin its part.
fn converse(guest: &Arc<Conductor>) -> Result<UnixStream, String> {
    let told = |error: io::Error| error.to_string();
    let (ours, theirs) = UnixStream::pair().map_err(told)?;
    let (port, _) = guest.streams.offer_connection(theirs.into()).map_err(told)?;
    if let Err(error) = guest.call(Call::Relay { port }, deadline::CALL) {
        guest.streams.withdraw(port);
        return Err(error.to_string());
    }
    Ok(ours)
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    streams: Arc<dyn Streams>,
    identity: Identity,
    guest: Guest,
    wake: OwnedFd,
    /// Outside.
    servers: HashMap<Node, Server>,
    /// For servers inside.
    listeners: BTreeMap<Node, Listener>,
    fifos: BTreeMap<String, Fifo>,
    /// By port: connections whose bytes the device carries.
    live: BTreeMap<u32, Arc<dyn Stream>>,
    /// Clients from inside whose server is busy.
    trying: Vec<(Node, u32, Peer)>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        streams: Arc<dyn Streams>,
        identity: Identity,
        guest: UnixStream,
        wake: OwnedFd,
    ) -> Worker {
        Worker {
            shared,
            streams,
            identity,
            guest: Guest::new(guest),
            wake,
            servers: HashMap::new(),
            listeners: BTreeMap::new(),
            fifos: BTreeMap::new(),
            live: BTreeMap::new(),
            trying: Vec::new(),
        }
    }

    /// Waits, and does what can be done. An error: the guest is gone, or not worth serving.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let came = self.wait()?;
        self.take_news();
        for message in if came.guest { self.guest.hear()? } else { Vec::new() } {
            self.act(message)?;
        }
        for node in came.clients {
            self.welcome(node);
        }
        self.try_again();
        for fifo in self.fifos.values_mut() {
            if let Some(message) = fifo.look(&self.streams) {
                self.guest.say(&message);
            }
        }
        self.guest.flush()
    }

    fn wait(&mut self) -> io::Result<Came> {
        let full = self.is_full();
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, !self.guest.is_crowded());
        wanted.set(PollFlags::POLLOUT, self.guest.owes());
        let mut ready =
            vec![PollFd::new(self.guest.as_fd(), wanted), PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let nodes: Vec<Node> = if full { Vec::new() } else { self.listeners.keys().copied().collect() };
        let listeners = nodes.iter().filter_map(|node| self.listeners.get(node));
        ready.extend(listeners.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        let fifos = self.fifos.values().filter_map(Fifo::waits_for);
        ready.extend(fifos.map(|fifo| PollFd::new(fifo, PollFlags::POLLIN)));
        let busy = !self.trying.is_empty() || self.servers.values().any(|server| !server.waiting.is_empty());
        // When there is room again for clients is not told.
        let looks = !self.fifos.is_empty() || (full && !self.listeners.is_empty());
        let timeout = match (busy, looks) {
            (true, _) => PollTimeout::from(SOON),
            (false, true) => PollTimeout::from(TICK),
            (false, false) => PollTimeout::NONE,
        };
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = ready.iter().map(|one| one.any().unwrap_or(true)).collect();
        if ready.get(1).copied().unwrap_or(false) {
            // It says nothing but that it was raised.
            let _ = nix::unistd::read(&self.wake, &mut [0; 8]);
        }
        let clients = nodes.into_iter().zip(ready.iter().skip(2)).filter(|(_, ready)| **ready);
        let clients = clients.map(|(node, _)| node).collect();
        Ok(Came { guest: ready.first().copied().unwrap_or(false), clients })
    }

    fn is_full(&mut self) -> bool {
        self.live.retain(|_, stream| !stream.is_over());
        self.live.len().saturating_add(self.trying.len()) >= MOST_CONNECTIONS
    }

    /// What the file server has told.
    fn take_news(&mut self) {
        let news = std::mem::take(&mut self.shared.lock().news);
        for one in news {
            match one {
                News::Seen { node, socket } => self.find(node, socket),
                News::Made(Made { node, socket, owner }) => self.listen(node, socket, owner),
                News::Gone(node) => {
                    self.listeners.remove(&node);
                    self.leave(node);
                }
                News::Fifo { share, fifo } => {
                    self.guest.say(&ToGuest::WatchFifo { share: share.clone() });
                    self.fifos.insert(share.clone(), Fifo::new(share, fifo));
                }
            }
        }
    }

    /// Somebody inside looks at a socket of the host's.
    fn find(&mut self, node: Node, inode: Arc<OwnedFd>) {
        match Server::find(inode) {
            Some((server, kind)) if self.has_room() => {
                self.servers.insert(node, server);
                self.guest.say(&ToGuest::Serve { node, kind });
            }
            _ => self.shared.settle(node, Standing::Nobody(Instant::now())),
        }
    }

    /// Whether there is room for one more socket: those whose servers are gone make some.
    fn has_room(&mut self) -> bool {
        let count = |worker: &Worker| worker.servers.len().saturating_add(worker.listeners.len());
        if count(self) >= MOST_SOCKETS {
            let gone: Vec<Node> =
                self.servers.iter().filter(|(_, server)| !server.is_there()).map(|(node, _)| *node).collect();
            gone.into_iter().for_each(|node| self.leave(node));
        }
        count(self) < MOST_SOCKETS
    }

    /// Nobody is there any more.
    fn leave(&mut self, node: Node) {
        if self.servers.remove(&node).is_some() {
            self.guest.say(&ToGuest::Leave { node });
            self.shared.settle(node, Standing::Nobody(Instant::now()));
        }
    }

    /// A process inside binds a socket. If we cannot listen for it, it is as if it did not.
    fn listen(&mut self, node: Node, socket: OwnedFd, owner: (u32, u32)) {
        if self.has_room()
            && let Ok(listener) = Listener::open(socket, &self.identity, owner)
        {
            self.listeners.insert(node, listener);
        }
    }

    fn act(&mut self, message: FromGuest) -> io::Result<()> {
        match message {
            FromGuest::Serving { node, done: true } => self.shared.settle(node, Standing::Served),
            FromGuest::Serving { node, done: false } => {
                self.servers.remove(&node);
                self.shared.settle(node, Standing::Nobody(Instant::now()));
            }
            FromGuest::Arrived { node, token, peer } => self.arrive(node, token, peer),
            FromGuest::Datagram { node, peer, bytes } => return self.deliver(node, peer, bytes),
            FromGuest::Unreachable { port, node, gone } => {
                if self.live.remove(&port).is_some() {
                    self.streams.withdraw(port);
                }
                if gone {
                    self.listeners.remove(&node);
                }
            }
            FromGuest::FifoRead { share } => {
                self.fifos.get_mut(&share).into_iter().for_each(Fifo::read_inside);
            }
            FromGuest::FifoOver { share } => {
                let streams = &self.streams;
                self.fifos.get_mut(&share).into_iter().for_each(|fifo| fifo.over(streams));
            }
        }
        Ok(())
    }

    /// A client from inside.
    fn arrive(&mut self, node: Node, token: u32, peer: Peer) {
        let full = self.is_full();
        let attempt = match self.servers.get(&node) {
            Some(server) if !full => server.connect(&self.identity, &peer),
            _ => return self.guest.say(&ToGuest::Refuse { token }),
        };
        match attempt {
            Attempt::Later => self.trying.push((node, token, peer)),
            Attempt::Done(socket) => match self.carry(socket) {
                Some(port) => self.guest.say(&ToGuest::Accept { token, port }),
                None => self.guest.say(&ToGuest::Refuse { token }),
            },
            Attempt::Failed(error) => {
                self.guest.say(&ToGuest::Refuse { token });
                let there = self.servers.get(&node).is_some_and(Server::is_there);
                // A stream is not what it takes.
                if !there || error == Errno::EPROTOTYPE {
                    self.leave(node);
                }
            }
        }
    }

    /// Hands a connection to the device; where the guest finds it.
    fn carry(&mut self, socket: OwnedFd) -> Option<u32> {
        let (port, stream) = self.streams.offer_connection(socket).ok()?;
        self.live.insert(port, stream);
        Some(port)
    }

    /// Clients outside, for a server inside.
    fn welcome(&mut self, node: Node) {
        while !self.is_full() {
            let Some(client) = self.listeners.get(&node).and_then(Listener::accept) else { return };
            if let Some(port) = self.carry(client) {
                self.guest.say(&ToGuest::Connect { node, port });
            }
        }
    }

    /// A datagram from inside. An error: there are more under way than the guest may send.
    fn deliver(&mut self, node: Node, peer: Peer, bytes: Vec<u8>) -> io::Result<()> {
        let Some(server) = self.servers.get_mut(&node) else { return Ok(()) };
        if server.waiting.is_empty() && !matches!(server.send(&peer, &bytes), Attempt::Later) {
            // If nobody is there any more it is lost, as it would be a moment later.
            self.guest.say(&ToGuest::Taken { node });
            return Ok(());
        }
        if server.waiting.len() >= usize::try_from(MOST_DATAGRAMS).unwrap_or(0) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        server.waiting.push((peer, bytes));
        Ok(())
    }

    /// What busy servers had no room for.
    fn try_again(&mut self) {
        for (node, token, peer) in std::mem::take(&mut self.trying) {
            self.arrive(node, token, peer);
        }
        for (node, server) in &mut self.servers {
            let waiting = std::mem::take(&mut server.waiting);
            let mut waiting = waiting.into_iter();
            for (peer, bytes) in waiting.by_ref() {
                if let Attempt::Later = server.send(&peer, &bytes) {
                    server.waiting.push((peer, bytes));
                    break;
                }
                self.guest.say(&ToGuest::Taken { node: *node });
            }
            server.waiting.extend(waiting);
        }
    }
}

/// What a wait ended with.
struct Came {
    guest: bool,
    clients: Vec<Node>,
}

/// How often busy servers are tried, and how often FIFOs are looked at (milliseconds).
const SOON: u8 = 5;
const TICK: u8 = 50;
