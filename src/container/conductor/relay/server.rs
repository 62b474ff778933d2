//! A server outside, behind an inode, and one inside, for which we listen outside.
//!
//! The calling thread's working directory is `/proc/self/fd`: the name of an inode is its descriptor's number.

use crate::host::identity::Identity;
use husk_protocol::relay::{Peer, SocketKind};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, connect, listen,
    sendmsg, socket,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// A server outside.
pub struct Server {
    inode: Arc<OwnedFd>,
    /// Connected to it, if it takes datagrams.
    datagrams: Option<OwnedFd>,
    /// Datagrams that it had no room for.
    pub waiting: Vec<(Peer, Vec<u8>)>,
}

/// What came of an attempt.
pub enum Attempt<T> {
    /// This.
    Done(T),
    /// The server is busy.
    Later,
    /// It will never be.
    Failed(Errno),
}

impl Server {
    /// Finds out who listens at an inode, if anybody does. The server notices nothing: what is tried is a socket for
    /// datagrams, and one of another kind refuses that before it looks at it.
    pub fn find(inode: Arc<OwnedFd>) -> Option<(Server, SocketKind)> {
        let probe = new(SockType::Datagram).ok()?;
        let (datagrams, kind) = match connect(probe.as_raw_fd(), &address(&inode)?) {
            Ok(()) => (Some(probe), SocketKind::Datagram),
            Err(Errno::EPROTOTYPE) => (None, SocketKind::Stream),
            Err(_) => return None,
        };
        Some((Server { inode, datagrams, waiting: Vec::new() }, kind))
    }

    /// Whether there is still anybody.
    pub fn is_there(&self) -> bool {
        Server::find(Arc::clone(&self.inode)).is_some()
    }

    /// Connects to it as `peer`.
    pub fn connect(&self, identity: &Identity, peer: &Peer) -> Attempt<OwnedFd> {
        let attempt = || {
            let socket = new(SockType::Stream)?;
            let address = address(&self.inode).ok_or(Errno::EINVAL)?;
            connect(socket.as_raw_fd(), &address)?;
            Ok(socket)
        };
        of(identity.act_as(peer.uid, peer.gid, attempt))
    }

    /// Sends it a datagram as `peer`.
    pub fn send(&self, peer: &Peer, bytes: &[u8]) -> Attempt<()> {
        let Some(socket) = &self.datagrams else { return Attempt::Failed(Errno::EPROTOTYPE) };
        // The process is us all the same; a server that looks for a user finds the one inside.
        let who = libc::ucred { pid: std::process::id().cast_signed(), uid: peer.uid, gid: peer.gid };
        let who = nix::sys::socket::UnixCredentials::from(who);
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let signed = [ControlMessage::ScmCredentials(&who)];
        let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &signed, flags, None);
        of(sent.map(drop).map_err(io::Error::from))
    }
}

/// A server inside.
pub struct Listener {
    socket: OwnedFd,
}

impl Listener {
    /// Listens for it, as the user that it is.
    pub fn open(socket: OwnedFd, identity: &Identity, (uid, gid): (u32, u32)) -> io::Result<Listener> {
        identity.act_as(uid, gid, || Ok(listen(&socket, Backlog::MAXCONN)?))?;
        Ok(Listener { socket })
    }

    /// The next client, if there is one.
    pub fn accept(&self) -> Option<OwnedFd> {
        let number =
            accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
        #[allow(unsafe_code)] // nix gives a number
        // SAFETY: the descriptor was just made for us, and nobody else knows it.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn of<T>(result: io::Result<T>) -> Attempt<T> {
    match result {
        Ok(done) => Attempt::Done(done),
        Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)) {
            Errno::EAGAIN | Errno::EINTR => Attempt::Later,
            error => Attempt::Failed(error),
        },
    }
}

fn new(kind: SockType) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn address(inode: &OwnedFd) -> Option<UnixAddr> {
    UnixAddr::new(inode.as_raw_fd().to_string().as_str()).ok()
}
