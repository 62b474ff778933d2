//! Sockets and FIFOs of the host in what is shared with the guest, and sockets of the guest there: what travels on the
//! stream that [`crate::Call::Relay`] names, framed as on the control connection.
//!
//! ```text
//!   process inside --connect--> agent's listener at the same inode --Arrived--> host --connect--> server outside
//!                                     ^                            <--Accept--       (a port for this connection's bytes)
//!                     Serve, when somebody inside first looks at the socket
//!   server inside <--connect-- agent <--Connect (port)-- host's listener at the same inode <--connect-- client outside
//! ```
//! To a kernel, a path that names a socket is an inode, and the socket is whatever is bound to that inode. The two kernels
//! share the inode (virtio-fs) and not the socket, so each side binds a socket of its own to it for those of the
//! other. How the agent binds to an inode that exists: [`bind_name`].
//!
//! Bytes of connections and FIFOs never travel here: each has a vsock connection of its own, so back-pressure and half-close
//! are the connection's.

use serde::{Deserialize, Serialize};

/// A socket's inode, as the shared file system numbers it for the guest.
pub type Node = u64;

/// Connections at a time, of all sockets of a machine, in both directions. One more waits until another has ended.
pub const MOST_CONNECTIONS: usize = 256;

/// Sockets at a time for which there is somebody on the other side. What is one too many is as if nobody listened.
pub const MOST_SOCKETS: usize = 128;

/// The longest datagram that is passed on. A longer one is lost.
pub const LONGEST_DATAGRAM: usize = 64 << 10;

/// Datagrams of one socket that may be on their way to the host: as many as the host has not taken yet.
pub const MOST_DATAGRAMS: u32 = 8;

/// The longest frame on this stream.
pub const LONGEST_FRAME: usize = LONGEST_DATAGRAM + (4 << 10);

/// Who asks: a process inside, as its kernel knows it. To the server outside the host appears as that user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// What kind of socket the host's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
}

/// Host to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Somebody listens at this socket outside: processes inside are to find us there. Answered by
    /// [`FromGuest::Serving`].
    Serve {
        /// Which.
        node: Node,
        /// What kind.
        kind: SocketKind,
    },
    /// Nobody listens there any more, and never will.
    Leave {
        /// Which.
        node: Node,
    },
    /// The host has connected for this [`FromGuest::Arrived`].
    Accept {
        /// Which.
        token: u32,
        /// Where its bytes go.
        port: u32,
    },
    /// The host could not connect for it.
    Refuse {
        /// Which.
        token: u32,
    },
    /// The host has taken a datagram.
    Taken {
        /// Of which socket.
        node: Node,
    },
    /// A client outside wants what a process inside listens to there. Answered by [`FromGuest::Unreachable`], or by a
    /// connection to the port.
    Connect {
        /// Which.
        node: Node,
        /// Where its bytes come from.
        port: u32,
    },
    /// There is a FIFO of the host's: tell when it has a reader inside.
    WatchFifo {
        /// The share's name.
        share: String,
    },
    /// A FIFO has a reader outside: what processes inside write to it goes to this port, until they have all let go of it or
    /// the port is closed. Answered by [`FromGuest::FifoOver`] then.
    DrainFifo {
        /// The share's name.
        share: String,
        /// Where to.
        port: u32,
    },
    /// A FIFO has a reader inside, and now a writer outside: what comes from this port goes into it, to its end. Answered by
    /// [`FromGuest::FifoOver`] then.
    FillFifo {
        /// The share's name.
        share: String,
        /// Where from.
        port: u32,
    },
}

/// Agent to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// Whether processes inside find us at the socket now.
    Serving {
        /// Which.
        node: Node,
        /// Whether they do.
        done: bool,
    },
    /// A process inside has connected. Answered by [`ToGuest::Accept`] or [`ToGuest::Refuse`].
    Arrived {
        /// To which.
        node: Node,
        /// The connection's number, chosen by the agent, not used by another at the time.
        token: u32,
        /// Who it is.
        peer: Peer,
    },
    /// A process inside has sent a datagram. Answered by [`ToGuest::Taken`].
    Datagram {
        /// To which.
        node: Node,
        /// Who it is.
        peer: Peer,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// For [`ToGuest::Connect`]: there is nobody inside to connect to.
    Unreachable {
        /// The port that was named.
        port: u32,
        /// The socket.
        node: Node,
        /// Whether there never will be: its server is gone, or has another kind of socket.
        gone: bool,
    },
    /// A FIFO has a reader inside.
    FifoRead {
        /// The share's name.
        share: String,
    },
    /// What was under way at a FIFO is over, or its reader inside has gone before it began.
    FifoOver {
        /// The share's name.
        share: String,
    },
}

/// The name to bind to, at the top of the shared file system, to be found at the socket `node`: it is never there, and what
/// is made under it is that inode.
pub fn bind_name(node: Node) -> String {
    format!("{BIND}{node}")
}

/// The name at the top of the shared file system under which the inode `node` is found, wherever it is.
pub fn node_name(node: Node) -> String {
    format!("{NODE}{node}")
}

/// The inode for which a [`bind_name`] stands.
pub fn bound_node(name: &[u8]) -> Option<Node> {
    number(name, BIND)
}

/// The inode for which a [`node_name`] stands.
pub fn named_node(name: &[u8]) -> Option<Node> {
    number(name, NODE)
}

fn number(name: &[u8], prefix: &str) -> Option<Node> {
    let digits = std::str::from_utf8(name.strip_prefix(prefix.as_bytes())?).ok()?;
    // As they are written, and not `+7` or `007`.
    digits.parse::<Node>().ok().filter(|number| number.to_string() == digits)
}

const BIND: &str = "bind-";
const NODE: &str = "node-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_their_numbers_and_nothing_else_does() {
        assert_eq!(bound_node(bind_name(17).as_bytes()), Some(17));
        assert_eq!(named_node(node_name(u64::MAX).as_bytes()), Some(u64::MAX));
        for name in ["bind-", "bind-+7", "bind-07", "bind-7x", "node-7", "0", "bind-18446744073709551616"] {
            assert_eq!(bound_node(name.as_bytes()), None, "{name}");
        }
    }
}
