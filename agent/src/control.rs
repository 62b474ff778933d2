//! The control connection: frames in, frames out, never waiting.
//!
//! What the host has not taken yet is kept. While more than [`CROWDED`] bytes wait, the agent reads no further requests, so
//! what waits is bounded by the answers to what it has read.

use crate::sys;
use husk_protocol::frame::{self, FrameError};
use husk_protocol::{FromAgent, Request};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// With this many bytes unsent, nothing that can wait is added to them.
const CROWDED: usize = 256 << 10;

/// The connection.
pub struct Control {
    socket: OwnedFd,
    incoming: Incoming,
    outgoing: Vec<u8>,
}

/// The connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The host closed it.
    #[error("the control connection is closed")]
    Closed,
    /// The kernel refused.
    #[error("read from the control connection")]
    Read(#[source] sys::Error),
    /// What the host sends is no request.
    #[error("read a request")]
    Frame(#[from] FrameError),
}

impl Control {
    /// Takes the socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, incoming: Incoming::default(), outgoing: Vec::new() }
    }

    /// Queues a message and sends what can be sent.
    pub fn send(&mut self, message: &FromAgent) {
        match frame::encode(message) {
            Ok(bytes) => self.send_frame(&bytes),
            Err(error) => crate::log::error(&crate::words::chain(&error)),
        }
    }

    /// Queues a frame that was encoded elsewhere.
    pub fn send_frame(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends what can be sent. A broken connection shows at the next read.
    pub fn flush(&mut self) {
        let mut sent = 0usize;
        while let Some(rest) = self.outgoing.get(sent..).filter(|rest| !rest.is_empty()) {
            match nix::unistd::write(&self.socket, rest) {
                Ok(count) => sent = sent.saturating_add(count),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.outgoing.drain(..sent.min(self.outgoing.len()));
    }

    /// Whether the host is slow to take what it was told.
    pub fn is_crowded(&self) -> bool {
        self.outgoing.len() > CROWDED
    }

    /// What to wait for.
    pub fn interest(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !self.is_crowded());
        flags.set(EpollFlags::EPOLLOUT, !self.outgoing.is_empty());
        flags
    }

    /// Takes the requests that have come.
    pub fn receive(&mut self) -> Result<Vec<Request>, ControlError> {
        let mut bytes = [0u8; 16 << 10];
        match nix::unistd::read(&self.socket, &mut bytes) {
            Ok(0) => Err(ControlError::Closed),
            Ok(length) => Ok(self.incoming.take(bytes.get(..length).unwrap_or_default())?),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOTCONN) => Ok(Vec::new()),
            Err(errno) => Err(ControlError::Read(errno.into())),
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Requests out of a stream of bytes, however it was cut.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
}

impl Incoming {
    fn take(&mut self, more: &[u8]) -> Result<Vec<Request>, FrameError> {
        self.bytes.extend_from_slice(more);
        let mut requests = Vec::new();
        let mut used = 0usize;
        while let Some((prefix, rest)) = self.bytes.get(used..).and_then(<[u8]>::split_first_chunk::<4>) {
            let length = frame::length(*prefix)?;
            let Some(message) = rest.get(..length) else { break };
            requests.push(frame::decode(message)?);
            used = used.saturating_add(4).saturating_add(length);
        }
        self.bytes.drain(..used.min(self.bytes.len()));
        Ok(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_protocol::{Call, ContainerKey};

    #[test]
    fn requests_are_found_however_the_stream_is_cut() {
        let requests: Vec<Request> =
            (0..5).map(|id| Request { id, call: Call::Start { container: ContainerKey(id) } }).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(|request| frame::encode(request).unwrap()).collect();
        for size in 1..=bytes.len() {
            let mut incoming = Incoming::default();
            let found: Vec<Request> =
                bytes.chunks(size).flat_map(|chunk| incoming.take(chunk).unwrap()).collect();
            assert_eq!(found, requests, "cut every {size} bytes");
            assert!(incoming.bytes.is_empty());
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_at_its_first_bytes() {
        assert!(Incoming::default().take(&u32::MAX.to_le_bytes()).is_err());
    }
}
