//! Waiting for the relay's descriptors.

use crate::sys::Result;
use husk_protocol::relay::Node;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process inside.
    Inside,
    /// The host.
    Outside,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The host's stream.
    Host,
    /// Somebody has come to a socket of the host's. (Numbers of inodes count upwards from 1.)
    Listener(Node),
    /// A connection.
    Connection(u32, Side),
    /// One of the FIFOs, or its stream.
    Fifo,
}

impl Source {
    fn number(self) -> u64 {
        match self {
            Source::Host => 0,
            Source::Fifo => 1,
            Source::Connection(number, side) => {
                (2 << KIND) | u64::from(number) << 1 | u64::from(side == Side::Outside)
            }
            Source::Listener(node) => (3 << KIND) | node & !(3 << KIND),
        }
    }

    fn of(number: u64) -> Self {
        match (number >> KIND, number) {
            (0, 0) => Source::Host,
            (2, number) => {
                let side = if number & 1 == 1 { Side::Outside } else { Side::Inside };
                Source::Connection(u32::try_from(number >> 1 & 0xffff_ffff).unwrap_or(0), side)
            }
            (3, number) => Source::Listener(number & !(3 << KIND)),
            _ => Source::Fifo,
        }
    }
}

/// An epoll instance.
pub struct Poll(Epoll);

impl Poll {
    /// A new one.
    pub fn open() -> Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Waits until something happens, or `due`.
    pub fn wait(&self, due: Option<Instant>) -> Result<Vec<(Source, EpollFlags)>> {
        let mut events = [EpollEvent::empty(); BATCH];
        let timeout = match due.map(|due| due.saturating_duration_since(Instant::now())) {
            None => EpollTimeout::NONE,
            Some(left) => {
                EpollTimeout::from(u8::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u8::MAX))
            }
        };
        let count = match self.0.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        let events = events.iter().take(count);
        Ok(events.map(|event| (Source::of(event.data()), event.events())).collect())
    }
}

/// A descriptor that is waited for.
pub struct End {
    /// It.
    pub fd: OwnedFd,
    source: Source,
    waiting: Option<EpollFlags>,
}

impl End {
    /// Not waited for yet.
    pub fn new(fd: OwnedFd, source: Source) -> Self {
        Self { fd, source, waiting: None }
    }

    /// Waits for `flags` from now on (and for errors and hang-ups, which are told in any case), or for nothing.
    pub fn wait(&mut self, poll: &Poll, flags: Option<EpollFlags>) {
        if self.waiting == flags {
            return;
        }
        let event = |flags| EpollEvent::new(flags, self.source.number());
        let done = match (self.waiting, flags) {
            (None, Some(flags)) => poll.0.add(&self.fd, event(flags)),
            (Some(_), Some(flags)) => poll.0.modify(&self.fd, &mut event(flags)),
            (_, None) => poll.0.delete(&self.fd),
        };
        if let Err(errno) = done {
            crate::log::error(&format!("wait for a relayed stream: {}", crate::sys::Error(errno)));
        }
        self.waiting = flags;
    }
}

const KIND: u32 = 62;
/// Events taken at once.
const BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_its_number() {
        for source in [
            Source::Host,
            Source::Fifo,
            Source::Listener(1),
            Source::Listener(8 << 20),
            Source::Connection(0, Side::Inside),
            Source::Connection(u32::MAX, Side::Outside),
        ] {
            assert_eq!(Source::of(source.number()), source);
        }
    }
}
