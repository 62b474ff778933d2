//! Sockets and FIFOs in what is shared with others.
//!
//! A path that names a socket leads a kernel to an inode, and the socket is whatever that kernel has bound to the inode. The
//! guest's kernel has the host's inodes and none of the host's sockets, so somebody has to stand in for them on both
//! sides. Who that is, is not known here: a [`Neighbour`] is told of sockets that are looked at and of sockets that
//! are made, and the guest's end of it can bind to an inode that exists, under a name that the neighbour knows. The same
//! goes for FIFOs: each kernel has its own pipe for an inode.

use super::inodes::NodeId;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Who stands in for sockets. Called on the file server's thread: nothing here may wait.
pub trait Neighbour: Send + Sync {
    /// The server's thread begins, with all that it may do: who needs a part of that takes it now.
    fn settle(&self) {}

    /// What a name at the top of the shared file system means to the neighbour's end inside.
    fn alias(&self, name: &[u8]) -> Option<Alias>;

    /// A process inside looks at a socket that it has not made. `socket` is an `O_PATH` descriptor of it. True when whatever
    /// can be done for those who then connect to it has been done; otherwise the process waits, and this is called again
    /// soon.
    fn seen(&self, node: NodeId, socket: &Arc<OwnedFd>) -> bool;

    /// A process inside binds to a name.
    fn made(&self, made: Made);

    /// The export `export`, a FIFO, is looked at. `fifo` is an `O_PATH` descriptor of it.
    fn fifo(&self, export: &CStr, fifo: &Arc<OwnedFd>);

    /// The guest does not know the inode any more.
    fn gone(&self, node: NodeId);
}

/// A name that stands for an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// It is the inode.
    Node(NodeId),
    /// It is not there, and what is made under it is the inode: so a socket can be bound to it.
    Bind(NodeId),
}

/// A socket that a process inside binds.
#[derive(Debug)]
pub struct Made {
    /// Its inode.
    pub node: NodeId,
    /// The host's stream socket that is bound there.
    pub socket: OwnedFd,
    /// The process's user and group.
    pub owner: (u32, u32),
}
