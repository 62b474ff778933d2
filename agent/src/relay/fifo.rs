//! A FIFO of the host's that is shared.
//!
//! The guest's kernel has a pipe of its own for the shared inode. A reader decides which way bytes go: one inside takes
//! what is written outside, one outside what is written inside. Writers find out nothing: as long as nobody reads on the
//! other side, opening the FIFO to write waits here as there.
//!
//! ```text
//!   Idle --reader inside--> Promised (we hold the writing end) --FillFifo--> Filling --end--> Resting
//!     \----DrainFifo (reader outside)------------------------------------> Draining --end--> Resting --> Idle
//! ```
//! That a FIFO has a reader is found out by opening it to write without waiting. The reader then waits in read, not in
//! open, until the other side has a writer.

use super::poll::{End, Poll, Source};
use crate::child::text;
use crate::machine::Machine;
use crate::stream::{Flow, Standing};
use crate::sys::{self, file};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A FIFO.
pub struct Fifo {
    path: String,
    state: State,
}

/// What there is to tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// It has a reader inside.
    Read,
    /// What was under way is over.
    Over,
}

enum State {
    Idle,
    Promised(OwnedFd),
    Filling {
        socket: End,
        fifo: End,
        flow: Flow,
    },
    Draining {
        fifo: End,
        socket: End,
        flow: Flow,
        begun: bool,
    },
    /// The other side is still to be told.
    Ended,
    /// Until its reader has seen the end: a writer that came at once would hide it.
    Resting(Instant),
}

/// How long that may take.
const REST: Duration = Duration::from_millis(200);

impl Fifo {
    /// The one at `path`.
    pub fn new(path: String) -> Self {
        Self { path, state: State::Idle }
    }

    /// Passes what is written inside to this port of the host's.
    pub fn drain(&mut self, poll: &Poll, machine: &dyn Machine, port: u32) {
        self.state = match self.open(libc::O_RDONLY).and_then(|fifo| Ok((fifo, machine.connect(port)?))) {
            Ok((fifo, socket)) => {
                let (mut fifo, socket) = (End::new(fifo, Source::Fifo), End::new(socket, Source::Fifo));
                fifo.wait(poll, Some(EpollFlags::EPOLLIN));
                State::Draining { fifo, socket, flow: Flow::default(), begun: false }
            }
            Err(_) => State::Ended,
        };
    }

    /// Passes what comes from this port of the host's to the reader inside.
    pub fn fill(&mut self, poll: &Poll, machine: &dyn Machine, port: u32) {
        // If the reader has gone, the host has been told so.
        if let State::Promised(fifo) = std::mem::replace(&mut self.state, State::Ended)
            && let Ok(socket) = machine.connect(port)
        {
            let (mut socket, fifo) = (End::new(socket, Source::Fifo), End::new(fifo, Source::Fifo));
            socket.wait(poll, Some(EpollFlags::EPOLLIN));
            self.state = State::Filling { socket, fifo, flow: Flow::default() };
        }
    }

    /// Does what can be done, and looks whether anything has changed.
    pub fn look(&mut self, poll: &Poll, scratch: &mut [u8]) -> News {
        match &mut self.state {
            State::Idle => {
                let Ok(fifo) = self.open(libc::O_WRONLY) else { return News::None };
                self.state = State::Promised(fifo);
                return News::Read;
            }
            State::Promised(fifo) if !happened(&*fifo, PollFlags::POLLERR) => return News::None,
            State::Filling { socket, fifo, flow } => {
                let standing = flow.turn(&socket.fd, &fifo.fd, scratch);
                let readerless = happened(&fifo.fd, PollFlags::POLLERR);
                if matches!(standing, Standing::Waiting | Standing::Blocked) && !readerless {
                    let blocked = flow.is_blocked();
                    socket.wait(poll, (!blocked).then_some(EpollFlags::EPOLLIN));
                    fifo.wait(poll, blocked.then_some(EpollFlags::EPOLLOUT));
                    return News::None;
                }
            }
            State::Draining { fifo, socket, flow, begun } => {
                // Before the first writer has come, reading would say that the last has gone.
                *begun |= happened(&fifo.fd, PollFlags::POLLIN | PollFlags::POLLHUP);
                let standing = match *begun {
                    true => flow.turn(&fifo.fd, &socket.fd, scratch),
                    false => Standing::Waiting,
                };
                if standing == Standing::Ended {
                    let _ = shutdown(socket.fd.as_raw_fd(), Shutdown::Write);
                }
                if matches!(standing, Standing::Waiting | Standing::Blocked) && accepts(&socket.fd) {
                    let blocked = flow.is_blocked();
                    fifo.wait(poll, (!blocked).then_some(EpollFlags::EPOLLIN));
                    socket.wait(poll, blocked.then_some(EpollFlags::EPOLLOUT));
                    return News::None;
                }
            }
            State::Resting(since) => {
                if since.elapsed() >= REST {
                    self.state = State::Idle;
                }
                return News::None;
            }
            State::Promised(_) | State::Ended => {}
        }
        self.state = State::Resting(Instant::now());
        News::Over
    }

    fn open(&self, access: i32) -> sys::Result<OwnedFd> {
        file::open_at(file::here(), &text(&self.path)?, access | libc::O_NONBLOCK, 0, 0)
    }
}

fn happened(fd: impl AsFd, what: PollFlags) -> bool {
    let mut ready = [PollFd::new(fd.as_fd(), what)];
    let _ = poll(&mut ready, PollTimeout::ZERO);
    ready.iter().any(|one| one.revents().is_some_and(|seen| seen.intersects(what)))
}

/// Whether the host still takes bytes: sending none fails if it does not.
fn accepts(socket: &OwnedFd) -> bool {
    let sent = send(socket.as_raw_fd(), &[], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    !matches!(sent, Err(Errno::EPIPE | Errno::ECONNRESET))
}
