//! The stream of messages between this side and the agent's relay.

use husk_protocol::frame;
use husk_protocol::relay::{FromGuest, LONGEST_FRAME, ToGuest};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The stream. Never waits.
pub struct Guest {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Guest {
    /// Takes it.
    pub fn new(stream: UnixStream) -> Guest {
        Guest { stream, incoming: Vec::new(), outgoing: Vec::new() }
    }

    /// Queues a message.
    pub fn say(&mut self, message: &ToGuest) {
        match frame::encode(message) {
            Ok(bytes) => self.outgoing.extend(bytes),
            Err(error) => tracing::error!(%error, "cannot tell the guest's relay"),
        }
    }

    /// Whether something is still to be sent.
    pub fn owes(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the guest is slow to take what it was told: then nothing more is heard from it.
    pub fn is_crowded(&self) -> bool {
        self.outgoing.len() >= CROWDED
    }

    /// Takes what has come. An error: the guest is gone, or not worth listening to.
    pub fn hear(&mut self) -> io::Result<Vec<FromGuest>> {
        let mut bytes = [0; 64 << 10];
        match recv(self.stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.incoming.extend_from_slice(bytes.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut messages = Vec::new();
        // At most one frame and a read's worth, because all whole ones are taken.
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let length = frame::length(*prefix).ok().filter(|length| *length <= LONGEST_FRAME);
            let length = length.ok_or(io::ErrorKind::InvalidData)?;
            let Some((message, after)) = after.split_at_checked(length) else { break };
            rest = after;
            messages.push(frame::decode(message).map_err(|_| io::ErrorKind::InvalidData)?);
        }
        self.incoming = rest.to_vec();
        Ok(messages)
    }

    /// Sends what can be sent.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0_usize;
        while let Some(rest) = self.outgoing.get(sent..).filter(|rest| !rest.is_empty()) {
            match send(self.stream.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
                Ok(count) => sent = sent.saturating_add(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.drain(..sent.min(self.outgoing.len()));
        Ok(())
    }
}

impl AsFd for Guest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

const CROWDED: usize = 256 << 10;
