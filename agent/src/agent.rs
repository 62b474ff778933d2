//! The agent's loop: one thread that waits for the host, its children and its streams, and never for a container.
//!
//! ```text
//!   control connection -> call::*  -> clone a child / write a cgroup file / start a helper
//!   child's channel    -> settle::note     (prepared, failed, executed)
//!   SIGCHLD            -> reap::children -> settle::ended -> Exited
//!   pipes, sockets     -> stream
//! ```

use crate::clock::Clock;
use crate::container::Containers;
use crate::control::{Control, ControlError};
use crate::job::Jobs;
use crate::machine::{Machine, Shared};
use crate::poll::{Poll, Source};
use crate::process::Processes;
use crate::stream::Streams;
use crate::sys::{self, file};
use crate::{call, log, reap, settle};
use husk_protocol::{Answer, Failure, FromAgent};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::OwnedFd;

/// Everything that the agent knows.
pub struct Agent {
    /// What the machine gives.
    pub machine: Box<dyn Machine>,
    /// Which shared file systems are mounted.
    pub shared: Shared,
    /// What is waited for.
    pub poll: Poll,
    /// The host.
    pub control: Control,
    /// Children end.
    pub children: SignalFd,
    /// Not all ended children were reaped in the last turn.
    pub more_to_reap: bool,
    /// Containers.
    pub containers: Containers,
    /// Processes that the host asked for.
    pub processes: Processes,
    /// Helpers under way.
    pub jobs: Jobs,
    /// Streams.
    pub streams: Streams,
    /// The wall clock.
    pub clock: Clock,
    /// How much memory there was before any was plugged.
    pub memory_at_boot: Option<u64>,
    /// /dev/null, for processes without a stream.
    pub null: OwnedFd,
    /// The agent's own pid namespace, to come back to after a clone into another.
    pub own_pids: OwnedFd,
    control_interest: EpollFlags,
}

/// Why the agent cannot begin to serve.
#[derive(Debug, thiserror::Error)]
#[error("prepare to serve")]
pub struct OpenError(#[from] sys::Error);

impl Agent {
    /// Prepares to serve.
    pub fn open(machine: Box<dyn Machine>, control: Control) -> Result<Self, OpenError> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().map_err(sys::Error)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let children = SignalFd::with_flags(&mask, flags).map_err(sys::Error)?;
        let poll = Poll::open()?;
        let control_interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        poll.add(&control, Source::Control, control_interest)?;
        poll.add(&children, Source::Children, EpollFlags::EPOLLIN)?;
        let clock = Clock::open(machine.host_clock());
        Ok(Self {
            machine,
            shared: Shared::default(),
            poll,
            control,
            children,
            more_to_reap: false,
            containers: Containers::default(),
            processes: Processes::default(),
            jobs: Jobs::default(),
            streams: Streams::default(),
            clock,
            memory_at_boot: None,
            null: file::open_at(file::here(), c"/dev/null", libc::O_RDWR, 0, 0)?,
            own_pids: file::open_at(file::here(), c"/proc/self/ns/pid", libc::O_RDONLY, 0, 0)?,
            control_interest,
        })
    }

    /// Serves until the host closes the control connection.
    pub fn serve(&mut self) {
        loop {
            let patience = if self.more_to_reap { Some(0) } else { self.patience() };
            let events = match self.poll.wait(patience) {
                Ok(events) => events,
                Err(error) => {
                    log::error(&format!("wait for events: {error}"));
                    continue;
                }
            };
            for (source, flags) in events {
                if let Err(error) = self.act(source, flags) {
                    log::error(&crate::words::chain(&error));
                    return;
                }
            }
            if self.more_to_reap {
                reap::children(self);
            }
            call::freeze::expire(self);
            self.clock.keep();
            self.rewait_control();
        }
    }

    /// How long nothing need be done if nothing happens, in milliseconds.
    fn patience(&self) -> Option<u16> {
        [call::freeze::patience(self), self.clock.patience()].into_iter().flatten().min()
    }

    fn act(&mut self, source: Source, flags: EpollFlags) -> Result<(), ControlError> {
        match source {
            Source::Control => {
                if flags.contains(EpollFlags::EPOLLOUT) {
                    self.control.flush();
                }
                if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    for request in self.control.receive()? {
                        call::handle(self, request);
                    }
                }
            }
            Source::Children => {
                while matches!(self.children.read_signal(), Ok(Some(_))) {}
                reap::children(self);
            }
            Source::Channel(key) => settle::notes(self, key),
            Source::Job(number) => crate::job::act(self, number),
            Source::Socket(_) | Source::Process(_) => self.streams.act(&self.poll, source, flags),
            Source::Memory(key) => call::memory::act(self, key),
            Source::Cgroup(key) => call::freeze::act(self, key),
        }
        Ok(())
    }

    /// Answers a request.
    pub fn reply(&mut self, id: u32, outcome: Result<Answer, Failure>) {
        self.control.send(&FromAgent::Reply { id, outcome });
    }

    fn rewait_control(&mut self) {
        let wanted = self.control.interest();
        if wanted != self.control_interest {
            match self.poll.change(&self.control, Source::Control, wanted) {
                Ok(()) | Err(sys::Error(Errno::ENOENT)) => self.control_interest = wanted,
                Err(error) => log::error(&format!("wait for the host: {error}")),
            }
        }
    }
}
