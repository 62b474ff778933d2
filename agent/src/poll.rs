//! Waiting for descriptors: epoll, with what each event is about packed into its number.

use crate::sys::Result;
use husk_protocol::{ContainerKey, ProcessKey};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsFd;

/// What an event is about. Numbers are never used twice, so an event of something that is gone finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The control connection.
    Control,
    /// SIGCHLD.
    Children,
    /// A child's notes.
    Channel(ProcessKey),
    /// A helper's answer.
    Job(u32),
    /// A stream's connection to the host.
    Socket(u32),
    /// A stream's pipe or terminal.
    Process(u32),
    /// A container's memory.events.
    Memory(ContainerKey),
    /// A container's cgroup.events.
    Cgroup(ContainerKey),
}

impl Source {
    fn number(self) -> u64 {
        let (kind, number) = match self {
            Source::Control => (0u64, 0),
            Source::Children => (1, 0),
            Source::Channel(key) => (2, key.0),
            Source::Job(number) => (3, number),
            Source::Socket(number) => (4, number),
            Source::Process(number) => (5, number),
            Source::Memory(key) => (6, key.0),
            Source::Cgroup(key) => (7, key.0),
        };
        (kind << 32) | u64::from(number)
    }

    fn of(packed: u64) -> Option<Self> {
        let number = u32::try_from(packed & 0xffff_ffff).ok()?;
        Some(match packed >> 32 {
            0 => Source::Control,
            1 => Source::Children,
            2 => Source::Channel(ProcessKey(number)),
            3 => Source::Job(number),
            4 => Source::Socket(number),
            5 => Source::Process(number),
            6 => Source::Memory(ContainerKey(number)),
            7 => Source::Cgroup(ContainerKey(number)),
            _ => return None,
        })
    }
}

/// An epoll instance.
pub struct Poll(Epoll);

/// Events taken at once.
const BATCH: usize = 64;

impl Poll {
    /// A new one.
    pub fn open() -> Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Begins to wait for a descriptor (level-triggered). Errors and hang-ups are always told.
    pub fn add(&self, fd: impl AsFd, source: Source, flags: EpollFlags) -> Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(flags, source.number()))?)
    }

    /// Waits for something else.
    pub fn change(&self, fd: impl AsFd, source: Source, flags: EpollFlags) -> Result<()> {
        Ok(self.0.modify(fd, &mut EpollEvent::new(flags, source.number()))?)
    }

    /// Stops waiting. (A descriptor that is closed everywhere is forgotten by itself.)
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits at most `milliseconds` (`None`: for ever) and says what happened.
    pub fn wait(&self, milliseconds: Option<u16>) -> Result<Vec<(Source, EpollFlags)>> {
        let mut events = [EpollEvent::empty(); BATCH];
        let timeout = milliseconds.map_or(EpollTimeout::NONE, EpollTimeout::from);
        let count = match self.0.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        let events = events.iter().take(count);
        Ok(events.filter_map(|event| Some((Source::of(event.data())?, event.events()))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_its_number() {
        for source in [
            Source::Control,
            Source::Children,
            Source::Channel(ProcessKey(u32::MAX)),
            Source::Job(7),
            Source::Socket(0),
            Source::Process(1),
            Source::Memory(ContainerKey(3)),
            Source::Cgroup(ContainerKey(u32::MAX)),
        ] {
            assert_eq!(Source::of(source.number()), Some(source));
        }
        assert_eq!(Source::of(u64::MAX), None);
    }
}
