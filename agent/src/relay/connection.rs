//! One relayed connection: a process inside at one end, the host at the other.
//!
//! ```text
//!   inside --out--> outside     the end of what one side sends is shut down at the other; a side that takes no more
//!   inside <--in--- outside     makes the other's sending fail; when both ways are over, both ends are closed
//! ```
//! Each end is waited for only while something can come of it: an event that nobody acts on would come again and again.

use super::poll::{End, Poll, Side, Source};
use crate::stream::{Flow, Standing};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt};
use std::os::fd::{AsRawFd, OwnedFd};

/// A connection.
pub struct Connection {
    inside: End,
    outside: End,
    /// The host has not answered yet.
    connecting: bool,
    out: Way,
    back: Way,
}

#[derive(Default)]
struct Way {
    flow: Flow,
    over: bool,
}

impl Connection {
    /// Between two sockets that do not block; `outside` may still be connecting.
    pub fn new(number: u32, inside: OwnedFd, outside: OwnedFd) -> Self {
        Self {
            inside: End::new(inside, Source::Connection(number, Side::Inside)),
            outside: End::new(outside, Source::Connection(number, Side::Outside)),
            connecting: true,
            out: Way::default(),
            back: Way::default(),
        }
    }

    /// Acts on an event of one end. Whether the connection is over.
    pub fn act(&mut self, side: Side, flags: EpollFlags, scratch: &mut [u8]) -> bool {
        if self.connecting {
            if side == Side::Inside {
                // The client has gone. What it has sent before is not for nothing.
                return false;
            }
            match getsockopt(&self.outside.fd, sockopt::SocketError) {
                Ok(0) => self.connecting = false,
                _ => return true,
            }
        }
        self.out.turn(&self.inside.fd, &self.outside.fd, scratch);
        self.back.turn(&self.outside.fd, &self.inside.fd, scratch);
        // An end that hangs up takes nothing any more, whether or not somebody would send it something.
        let hung_up = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let sends_no_more = match side {
            Side::Inside => self.out.over,
            Side::Outside => self.back.over,
        };
        (self.out.over && self.back.over) || (hung_up && sends_no_more)
    }

    /// Waits for exactly what something can come of.
    pub fn wait(&mut self, poll: &Poll) {
        let (inside, outside) = match self.connecting {
            true => (None, Some(EpollFlags::EPOLLOUT)),
            false => (wanted(&self.out, &self.back), wanted(&self.back, &self.out)),
        };
        self.inside.wait(poll, inside);
        self.outside.wait(poll, outside);
    }
}

/// What is waited for at the end from which `from` comes and to which `to` goes. Of one that has sent its last, only the
/// hang-up is left to hear; of one whose bytes the other does not take, not even that.
fn wanted(from: &Way, to: &Way) -> Option<EpollFlags> {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, !from.over && !from.flow.is_blocked());
    flags.set(EpollFlags::EPOLLOUT, !to.over && to.flow.is_blocked());
    (from.over || !flags.is_empty()).then_some(flags)
}

impl Way {
    fn turn(&mut self, from: &OwnedFd, to: &OwnedFd, scratch: &mut [u8]) {
        if self.over {
            return;
        }
        // Either call fails for an end that is gone, which needs it no more.
        match self.flow.turn(from, to, scratch) {
            Standing::Waiting | Standing::Blocked => {}
            Standing::Ended => {
                self.over = true;
                let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
            }
            Standing::Broken => {
                self.over = true;
                let _ = shutdown(from.as_raw_fd(), Shutdown::Read);
            }
        }
    }
}
