//! Sockets that are looked at, sockets that are made, and FIFOs that are shared: passed on to the [`Neighbour`], if there is one.
//!
//! [`Neighbour`]: super::super::sockets::Neighbour

use super::super::Policy;
use super::super::inodes::NodeId;
use super::super::name::Name;
use super::super::sockets::{Alias, Made, Neighbour};
use super::super::wire::{EntryOut, InHeader, MknodIn, ROOT};
use super::reach::FdName;
use super::{Later, Outcome, Server};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use rustix::fs::{FileType, Mode, fchmod};
use rustix::io::Errno;
use rustix::process::umask;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

impl Server {
    /// The neighbour, where there are sockets to be told of.
    fn neighbour(&self) -> Option<Arc<dyn Neighbour>> {
        match self.policy {
            Policy::Shared => self.exports.neighbour(),
            Policy::Exclusive => None,
        }
    }

    /// What a name at the top stands for, beside exports.
    pub(super) fn alias(&mut self, name: Name<'_>) -> Result<EntryOut, Errno> {
        match self.neighbour().and_then(|neighbour| neighbour.alias(name.as_c_str().to_bytes())) {
            Some(Alias::Node(node)) => self.enter_again(node),
            _ => Err(Errno::NOENT),
        }
    }

    /// "Makes" a name at the top: binds to an inode that exists.
    pub(super) fn bind_alias(&mut self, how: &MknodIn, name: Name<'_>) -> Result<EntryOut, Errno> {
        if FileType::from_raw_mode(how.mode) != FileType::Socket {
            return Err(Errno::ROFS);
        }
        match self.neighbour().and_then(|neighbour| neighbour.alias(name.as_c_str().to_bytes())) {
            Some(Alias::Bind(node)) if self.inodes.get(node)?.identity.kind == FileType::Socket => {
                self.enter_again(node)
            }
            _ => Err(Errno::ROFS),
        }
    }

    /// Whether a name at the top is the neighbour's. Whoever removes it is told that it is not there, upon which Linux
    /// forgets the name and, with its last user, the inode.
    pub(super) fn is_alias(&self, name: Name<'_>) -> bool {
        self.neighbour().is_some_and(|neighbour| neighbour.alias(name.as_c_str().to_bytes()).is_some())
    }

    /// A known inode, once more.
    fn enter_again(&mut self, node: NodeId) -> Result<EntryOut, Errno> {
        let seen = self.look_at_node(node)?;
        self.inodes.count(node)?;
        self.entry_of(node, &seen)
    }

    /// An entry is about to be told. If it is a socket of others, those who connect to it are to find somebody.
    pub(super) fn meet(&mut self, parent: NodeId, name: Name<'_>, entry: &EntryOut) -> Outcome {
        match entry.attr.mode & libc::S_IFMT {
            libc::S_IFSOCK if !self.made.contains(&entry.nodeid) => {}
            // One that lies in a directory is what it is.
            libc::S_IFIFO if parent == ROOT => {
                if let (Some(neighbour), Ok(fifo)) = (self.neighbour(), self.path(entry.nodeid)) {
                    neighbour.fifo(name.as_c_str(), &fifo);
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        let Some(neighbour) = self.neighbour() else { return Ok(()) };
        let done = self.pass_on(&*neighbour, entry.nodeid);
        // The top is where the neighbour's end binds: nobody may hold on to it meanwhile.
        if !done && parent != ROOT {
            self.later = Later::Meet(entry.nodeid);
        }
        Ok(())
    }

    /// Asks again. `None`: not yet.
    pub(super) fn meet_again(&mut self, node: NodeId) -> Option<Outcome> {
        let neighbour = self.neighbour()?;
        self.pass_on(&*neighbour, node).then_some(Ok(()))
    }

    fn pass_on(&mut self, neighbour: &dyn Neighbour, node: NodeId) -> bool {
        match self.path(node) {
            Ok(socket) => {
                self.known_sockets.insert(node);
                neighbour.seen(node, &socket)
            }
            // It has gone meanwhile, and so has who was there.
            Err(_) => true,
        }
    }

    /// Makes a socket on the host where a process inside makes one, so that others can connect to it. Of others than
    /// streams, and where the name is too long for it, there is the inode alone.
    pub(super) fn make_socket(
        &mut self,
        header: &InHeader,
        how: &MknodIn,
        name: Name<'_>,
    ) -> Option<Result<EntryOut, Errno>> {
        let neighbour = self.neighbour()?;
        let directory = match self.writable_directory(header.nodeid) {
            Ok(directory) => directory,
            Err(error) => return Some(Err(error)),
        };
        let address = address(&directory, name.as_c_str())?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
        // The inode gets the mode that the socket has.
        fchmod(&socket, Mode::from_raw_mode(how.mode & 0o7777)).ok()?;
        umask(Mode::from_raw_mode(how.umask & 0o777));
        let bound = self.rights.owned_by(header.uid, header.gid, || {
            bind(socket.as_raw_fd(), &address).map_err(|error| match error {
                nix::errno::Errno::EADDRINUSE => Errno::EXIST,
                error => Errno::from_raw_os_error(error as i32),
            })
        });
        Some(bound.and_then(|()| self.enter(header.nodeid, name)).inspect(|entry| {
            self.known_sockets.insert(entry.nodeid);
            self.made.insert(entry.nodeid);
            neighbour.made(Made { node: entry.nodeid, socket, owner: (header.uid, header.gid) });
        }))
    }

    /// The guest has forgotten an inode.
    pub(super) fn socket_gone(&mut self, node: NodeId) {
        if self.known_sockets.remove(&node) {
            self.made.remove(&node);
            if let Some(neighbour) = self.neighbour() {
                neighbour.gone(node);
            }
        }
    }
}

/// A name in a directory, for a thread whose working directory is `/proc/self/fd`.
fn address(directory: &OwnedFd, name: &CStr) -> Option<UnixAddr> {
    let path = [FdName::of(directory).as_c_str().to_bytes(), b"/", name.to_bytes()].concat();
    UnixAddr::new(path.as_slice()).ok()
}
