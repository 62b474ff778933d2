//! Sockets at shared inodes: those of the host that we stand in for, and those of processes inside that we lead to.

use super::poll::{End, Poll, Source};
use crate::sys::{self, message};
use husk_protocol::relay::{MOST_DATAGRAMS, Node, Peer, SocketKind};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket that stands in for one of the host's.
pub struct Listener {
    end: End,
    /// What it is.
    pub kind: SocketKind,
    /// Datagrams that the host has not taken yet.
    pub under_way: u32,
}

impl Listener {
    /// Binds to the inode that `path` makes.
    pub fn open(path: &str, node: Node, kind: SocketKind) -> sys::Result<Self> {
        let socket = new(match kind {
            SocketKind::Stream => SockType::Stream,
            SocketKind::Datagram => SockType::Datagram,
        })?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        // The kernel would remember the name, and the inode with it, for as long as there is memory: it finds that it is
        // not there.
        let _ = nix::sys::stat::stat(path);
        match kind {
            SocketKind::Stream => listen(&socket, Backlog::MAXCONN)?,
            SocketKind::Datagram => setsockopt(&socket, sockopt::PassCred, &true)?,
        }
        Ok(Self { end: End::new(socket, Source::Listener(node)), kind, under_way: 0 })
    }

    /// Waits for clients, unless there are too many already.
    pub fn wait(&mut self, poll: &Poll, full: bool) {
        let paused = full || self.under_way >= MOST_DATAGRAMS;
        self.end.wait(poll, (!paused).then_some(EpollFlags::EPOLLIN));
    }

    /// The next client, if there is one.
    pub fn accept(&self) -> Option<(OwnedFd, Peer)> {
        let number =
            accept4(self.end.fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
        #[allow(unsafe_code)] // nix gives a number
        // SAFETY: the descriptor was just made for us, and nobody else knows it.
        let client = unsafe { OwnedFd::from_raw_fd(number) };
        let peer = getsockopt(&client, sockopt::PeerCredentials).ok()?;
        Some((client, super::peer(peer.uid(), peer.gid())))
    }

    /// The next datagram, if there is one: its length, which is more than `bytes` hold if it was too long, and whose it is.
    pub fn receive(&self, bytes: &mut [u8]) -> Option<(usize, Peer)> {
        let (length, uid, gid) = message::receive_signed(&self.end.fd, bytes).ok()?;
        Some((length, super::peer(uid, gid)))
    }
}

/// What came of connecting to a server inside.
pub enum Inside {
    /// This is it.
    Connected(OwnedFd),
    /// It does not listen yet, or has no room.
    Later,
    /// There is none, and never will be at this inode; or it has another kind of socket.
    Gone,
}

/// Connects to the socket that a process inside has bound to an inode.
pub fn connect_inside(path: &str) -> Inside {
    let outcome = connect_to(path);
    // As above: the host says that there is nothing to remove.
    let _ = nix::unistd::unlink(path);
    outcome
}

fn connect_to(path: &str) -> Inside {
    match attempt(path, SockType::Stream) {
        Ok(server) => Inside::Connected(server),
        Err(sys::Error(Errno::EAGAIN | Errno::EINTR)) => Inside::Later,
        // Of another kind means: it is bound.
        Err(sys::Error(Errno::ECONNREFUSED))
            if matches!(attempt(path, SockType::Datagram), Err(sys::Error(Errno::EPROTOTYPE))) =>
        {
            Inside::Later
        }
        Err(_) => Inside::Gone,
    }
}

fn attempt(path: &str, kind: SockType) -> sys::Result<OwnedFd> {
    let socket = new(kind)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

fn new(kind: SockType) -> sys::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}
