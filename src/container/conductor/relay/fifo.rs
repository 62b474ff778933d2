//! A FIFO of the host's that is shared. A reader decides which way bytes go ([`husk_protocol::relay`]; the agent's side
//! looks for readers inside).
//!
//! ```text
//!   Idle --reader outside: DrainFifo--> Draining ----------------------+
//!    ^ \--FifoRead--> Awaiting --writer outside: FillFifo--> Filling --+--FifoOver--> Resting --> Idle
//! ```
//! That there is a reader is found out by opening the FIFO to write, without waiting; it then waits in read, not in open.
//! Who writes finds out nothing: nobody reads here unless somebody reads inside.

use crate::container::conductor::streams::{Stream, Streams};
use crate::device::vsock::Endpoint;
use crate::host::deadline::poll;
use husk_protocol::relay::ToGuest;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A FIFO.
pub struct Fifo {
    share: String,
    inode: Arc<OwnedFd>,
    state: State,
}

enum State {
    Idle,
    Awaiting(OwnedFd),
    /// Draining or filling: the device has the FIFO.
    Flowing {
        port: u32,
        stream: Arc<dyn Stream>,
    },
    Resting(Instant),
}

impl Fifo {
    /// The one that `inode` stands for.
    pub fn new(share: String, inode: Arc<OwnedFd>) -> Fifo {
        Fifo { share, inode, state: State::Idle }
    }

    /// What is to be waited for.
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Awaiting(fifo) => Some(fifo.as_fd()),
            _ => None,
        }
    }

    /// Looks whether anybody has come.
    pub fn look(&mut self, streams: &Arc<dyn Streams>) -> Option<ToGuest> {
        match &self.state {
            State::Idle => {
                let to = self.open(OFlags::WRONLY)?;
                let port = self.offer(Endpoint { from_guest: Some(to), to_guest: None }, streams)?;
                Some(ToGuest::DrainFifo { share: self.share.clone(), port })
            }
            // Before the first writer has come, reading would say that the last has gone.
            State::Awaiting(fifo) if happened(fifo) => {
                let State::Awaiting(fifo) = std::mem::replace(&mut self.state, State::Idle) else {
                    return None;
                };
                let port = self.offer(Endpoint { from_guest: None, to_guest: Some(fifo) }, streams)?;
                Some(ToGuest::FillFifo { share: self.share.clone(), port })
            }
            State::Resting(since) if since.elapsed() >= REST => {
                self.state = State::Idle;
                None
            }
            State::Awaiting(_) | State::Flowing { .. } | State::Resting(_) => None,
        }
    }

    /// It has a reader inside.
    pub fn read_inside(&mut self) {
        // One outside that was found meanwhile came first.
        if matches!(self.state, State::Idle | State::Resting(_))
            && let Some(fifo) = self.open(OFlags::RDONLY)
        {
            self.state = State::Awaiting(fifo);
        }
    }

    /// What was under way is over.
    pub fn over(&mut self, streams: &Arc<dyn Streams>) {
        if let State::Flowing { port, stream } = &self.state {
            streams.withdraw(*port);
            // What was sent is still delivered; only what is for the guest has nobody to take it, and it says so itself.
            drop(Arc::clone(stream));
        }
        self.state = State::Resting(Instant::now());
    }

    fn offer(&mut self, ends: Endpoint, streams: &Arc<dyn Streams>) -> Option<u32> {
        let (port, stream) = streams.offer(ends).ok()?;
        self.state = State::Flowing { port, stream };
        Some(port)
    }

    /// Only what the declared inode stands for is ever opened; it is a FIFO, and inodes never become something else.
    fn open(&self, access: OFlags) -> Option<OwnedFd> {
        let name = self.inode.as_raw_fd().to_string();
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        openat(CWD, name, flags, Mode::empty()).ok()
    }
}

fn happened(fifo: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut ready, PollTimeout::ZERO);
    ready.iter().any(|one| one.any().unwrap_or(false))
}

/// Until its reader has seen the end: a writer that came at once would hide it.
const REST: Duration = Duration::from_millis(200);
