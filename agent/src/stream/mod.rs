//! Streams: a process's stdin, stdout, stderr or terminal at one end, a connection to the host at the other.
//!
//! ```text
//!   stdin:     socket -> pipe       host's half-close closes the pipe; a closed pipe closes the socket
//!   stdout:    pipe -> socket       end of the pipe closes the socket; a closed socket closes the pipe (SIGPIPE)
//!   terminal:  both                 host's half-close hangs up; the last process's close ends it
//! ```
//!
//! The process has real pipes, or a real terminal: it may pass them on, and its stream lives as long as somebody holds
//! them. The agent's ends are non-blocking, and each is waited for only while something can come of it: an event that
//! nobody acts on would come again and again.

mod flow;

pub use flow::{CHUNK, Flow, Standing};

use crate::poll::{Poll, Source};
use crate::sys::{self, file, terminal};
use husk_protocol::TerminalSize;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, send, shutdown, sockopt};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A stream's number, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u32);

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Host to process.
    Input,
    /// Process to host.
    Output,
    /// Both.
    Terminal,
}

/// All streams.
pub struct Streams {
    all: BTreeMap<u32, Stream>,
    next: u32,
    scratch: Box<[u8]>,
}

struct Stream {
    kind: Kind,
    /// `None` when it is over.
    ends: Option<Ends>,
    inward: Flow,
    outward: Flow,
    /// Its process's exit was reported: when it is over, nobody asks for its count any more.
    released: bool,
}

struct Ends {
    socket: End,
    /// The agent's end of the pipe or terminal. A terminal's comes when the child has made it.
    process: Option<End>,
    connecting: bool,
    /// The host has closed its sending side of a stream on which it sends nothing: no event worth waiting for.
    half_closed: bool,
}

struct End {
    fd: OwnedFd,
    source: Source,
    waiting: Option<EpollFlags>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { all: BTreeMap::new(), next: 0, scratch: vec![0; CHUNK].into_boxed_slice() }
    }
}

impl Streams {
    /// A stream over `socket`, which may still be connecting. `process` is the agent's end of a pipe; a terminal's comes
    /// later ([`Streams::give_terminal`]).
    pub fn add(
        &mut self,
        poll: &Poll,
        kind: Kind,
        socket: OwnedFd,
        process: Option<OwnedFd>,
    ) -> sys::Result<StreamId> {
        let id = self.next;
        self.next = id.wrapping_add(1);
        if let Some(process) = &process {
            set_nonblocking(process)?;
        }
        let end = |fd, source| End { fd, source, waiting: None };
        let ends = Ends {
            socket: end(socket, Source::Socket(id)),
            process: process.map(|fd| end(fd, Source::Process(id))),
            connecting: true,
            half_closed: false,
        };
        let mut stream = Stream {
            kind,
            ends: Some(ends),
            inward: Flow::default(),
            outward: Flow::default(),
            released: false,
        };
        stream.wait(poll);
        self.all.insert(id, stream);
        Ok(StreamId(id))
    }

    /// Gives a terminal stream the master that the child made.
    pub fn give_terminal(&mut self, poll: &Poll, id: StreamId, master: OwnedFd) -> sys::Result<()> {
        set_nonblocking(&master)?;
        let Some(stream) = self.all.get_mut(&id.0) else { return Ok(()) };
        let Some(ends) = &mut stream.ends else { return Ok(()) };
        ends.process = Some(End { fd: master, source: Source::Process(id.0), waiting: None });
        stream.wait(poll);
        Ok(())
    }

    /// Acts on an event of one of a stream's ends.
    pub fn act(&mut self, poll: &Poll, source: Source, flags: EpollFlags) {
        let (Source::Socket(id) | Source::Process(id)) = source else { return };
        let Some(stream) = self.all.get_mut(&id) else { return };
        stream.act(source, flags, &mut self.scratch);
        stream.wait(poll);
        if stream.ends.is_none() && stream.released {
            self.all.remove(&id);
        }
    }

    /// Its process has ended: how many bytes it wrote, of which those that were not read yet will be. From now on the
    /// stream ends by itself.
    pub fn release(&mut self, poll: &Poll, id: StreamId) -> u64 {
        let Some(stream) = self.all.get_mut(&id.0) else { return 0 };
        stream.released = true;
        let mut count = stream.outward.moved;
        if let Some(end) = stream.ends.as_ref().and_then(|ends| ends.process.as_ref()) {
            match stream.kind {
                Kind::Input => {}
                Kind::Output => count = count.saturating_add(file::readable_bytes(&end.fd).unwrap_or(0)),
                Kind::Terminal => {
                    stream.outward.drain(&end.fd, &mut self.scratch);
                    count = stream.outward.moved;
                }
            }
        }
        if stream.ends.is_none() {
            self.all.remove(&id.0);
        } else {
            stream.wait(poll);
        }
        count
    }

    /// Ends a stream whose process never came to be.
    pub fn drop_stream(&mut self, id: StreamId) {
        self.all.remove(&id.0);
    }

    /// Sets the size of a terminal.
    pub fn resize(&self, id: StreamId, size: TerminalSize) -> sys::Result<()> {
        let ends = self.all.get(&id.0).and_then(|stream| stream.ends.as_ref());
        let end = ends.and_then(|ends| ends.process.as_ref()).ok_or(sys::Error(Errno::ENOTTY))?;
        terminal::resize(&end.fd, size)
    }
}

impl Stream {
    fn act(&mut self, source: Source, flags: EpollFlags, scratch: &mut [u8]) {
        let Some(ends) = &mut self.ends else { return };
        if ends.connecting {
            match getsockopt(&ends.socket.fd, sockopt::SocketError) {
                Ok(0) => ends.connecting = false,
                _ => return self.end(),
            }
        }
        let Some(process) = &ends.process else {
            // A terminal whose child has not made it yet: only the host's going away matters.
            if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                self.end();
            }
            return;
        };
        let at_socket = matches!(source, Source::Socket(_));
        let failed = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let (socket, process) = (&ends.socket.fd, &process.fd);
        if at_socket && flags.contains(EpollFlags::EPOLLRDHUP) && self.kind == Kind::Output {
            ends.half_closed = true;
        }
        let over = match self.kind {
            // The reader of the pipe is gone.
            Kind::Input if !at_socket && flags.contains(EpollFlags::EPOLLERR) => true,
            Kind::Input => {
                matches!(self.inward.turn(socket, process, scratch), Standing::Ended | Standing::Broken)
            }
            Kind::Output if at_socket && !accepts(socket) => true,
            Kind::Output => over(self.outward.turn(process, socket, scratch), socket),
            Kind::Terminal => {
                let inward = if at_socket || flags.contains(EpollFlags::EPOLLOUT) {
                    self.inward.turn(socket, process, scratch)
                } else {
                    Standing::Waiting
                };
                let outward = over(self.outward.turn(process, socket, scratch), socket);
                outward || matches!(inward, Standing::Ended | Standing::Broken) || (at_socket && failed)
            }
        };
        if over {
            self.end();
        }
    }

    /// Closes both ends: the process sees a closed pipe or a hang-up, the host the end of the stream.
    fn end(&mut self) {
        self.ends = None;
    }

    /// Waits for exactly what something can come of.
    fn wait(&mut self, poll: &Poll) {
        let Some(ends) = &mut self.ends else { return };
        let blocked_in = self.inward.is_blocked();
        let blocked_out = self.outward.is_blocked();
        let ready = !ends.connecting && ends.process.is_some();
        let mut socket = EpollFlags::empty();
        socket.set(EpollFlags::EPOLLOUT, ends.connecting || blocked_out);
        if !ends.connecting {
            let takes = self.kind != Kind::Output && ready && !blocked_in;
            socket.set(EpollFlags::EPOLLIN, takes);
            socket.set(EpollFlags::EPOLLRDHUP, self.kind == Kind::Output && !ends.half_closed);
        }
        let mut process = EpollFlags::empty();
        process.set(EpollFlags::EPOLLOUT, ready && blocked_in);
        process.set(EpollFlags::EPOLLIN, ready && self.kind != Kind::Input && !blocked_out);
        // With no flags set an end still tells errors and hang-ups. That is wanted of a stdin pipe (its reader is gone)
        // and of a socket with a ready process; elsewhere it would come again and again with nothing to be done.
        let keep_socket = ends.connecting || ready;
        let keep_process = self.kind == Kind::Input || !process.is_empty();
        ends.socket.wait(poll, keep_socket.then_some(socket));
        if let Some(end) = &mut ends.process {
            end.wait(poll, keep_process.then_some(process));
        }
    }
}

impl End {
    fn wait(&mut self, poll: &Poll, flags: Option<EpollFlags>) {
        if self.waiting == flags {
            return;
        }
        let done = match (self.waiting, flags) {
            (None, Some(flags)) => poll.add(&self.fd, self.source, flags),
            (Some(_), Some(flags)) => poll.change(&self.fd, self.source, flags),
            (_, None) => poll.remove(&self.fd),
        };
        if let Err(error) = done {
            crate::log::error(&format!("wait for a stream: {error}"));
        }
        self.waiting = flags;
    }
}

/// Whether an outward flow is over; the host then learns that no more will come.
fn over(standing: Standing, socket: &OwnedFd) -> bool {
    match standing {
        Standing::Ended => {
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
            true
        }
        Standing::Broken => true,
        Standing::Waiting | Standing::Blocked => false,
    }
}

/// Whether the host still takes bytes: sending none fails if it does not.
fn accepts(socket: &OwnedFd) -> bool {
    !matches!(
        send(socket.as_raw_fd(), &[], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT),
        Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN)
    )
}

fn set_nonblocking(fd: impl AsFd) -> sys::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
