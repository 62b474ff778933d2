//! Bytes one way: from one descriptor to another, neither of which may make the agent wait.
//!
//! Back-pressure is exact: while bytes that were read could not all be written, nothing more is read, and they lie here
//! (at most [`CHUNK`] of them; a terminal's last words may add some). A flow that keeps up holds no memory.

use crate::sys;
use nix::errno::Errno;
use std::os::fd::AsFd;

/// Bytes moved at once.
pub const CHUNK: usize = 64 << 10;
/// Chunks moved before others get their turn.
const ROUNDS: usize = 4;

/// One direction of a stream.
#[derive(Default)]
pub struct Flow {
    /// Read and not written yet.
    pending: Vec<u8>,
    /// How many of those are written.
    written: usize,
    /// The source has ended.
    ended: bool,
    /// Bytes read from the source so far.
    pub moved: u64,
}

/// Where a flow stands after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The source has nothing at the moment (or others are to have their turn).
    Waiting,
    /// The destination takes nothing at the moment.
    Blocked,
    /// The source has ended and everything is written.
    Ended,
    /// The destination takes nothing ever again.
    Broken,
}

impl Flow {
    /// Moves what can be moved. `scratch` is shared by all flows.
    pub fn turn(&mut self, from: impl AsFd, to: impl AsFd, scratch: &mut [u8]) -> Standing {
        for _ in 0..ROUNDS {
            match self.write_pending(&to) {
                Standing::Waiting => {}
                other => return other,
            }
            if self.ended {
                return Standing::Ended;
            }
            let length = match nix::unistd::read(&from, scratch) {
                Ok(0) => {
                    self.ended = true;
                    return Standing::Ended;
                }
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOTCONN) => return Standing::Waiting,
                // EIO: every process has let go of the terminal. Anything else: there will be no more either.
                Err(_) => {
                    self.ended = true;
                    return Standing::Ended;
                }
            };
            self.moved = self.moved.saturating_add(u64::try_from(length).unwrap_or(0));
            let bytes = scratch.get(..length).unwrap_or_default();
            match write_some(&to, bytes) {
                Ok(written) if written == length => {}
                Ok(written) => {
                    self.pending.extend_from_slice(bytes.get(written..).unwrap_or_default());
                    return Standing::Blocked;
                }
                Err(_) => return Standing::Broken,
            }
        }
        Standing::Waiting
    }

    /// Takes everything that the source has now, to be written later: for a terminal whose process has ended.
    pub fn drain(&mut self, from: impl AsFd, scratch: &mut [u8]) {
        for _ in 0..ROUNDS {
            match nix::unistd::read(&from, scratch) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.pending.extend_from_slice(scratch.get(..length).unwrap_or_default());
                    self.moved = self.moved.saturating_add(u64::try_from(length).unwrap_or(0));
                    continue;
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(_) => self.ended = true,
            }
            return;
        }
    }

    /// Whether bytes wait to be written.
    pub fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    fn write_pending(&mut self, to: impl AsFd) -> Standing {
        if self.pending.is_empty() {
            return Standing::Waiting;
        }
        match write_some(to, self.pending.get(self.written..).unwrap_or_default()) {
            Ok(count) => self.written = self.written.saturating_add(count),
            Err(_) => return Standing::Broken,
        }
        if self.written < self.pending.len() {
            return Standing::Blocked;
        }
        *self = Self { ended: self.ended, moved: self.moved, ..Self::default() };
        Standing::Waiting
    }
}

/// Writes until the destination takes no more.
fn write_some(to: impl AsFd, bytes: &[u8]) -> sys::Result<usize> {
    let mut written = 0usize;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match nix::unistd::write(&to, rest) {
            Ok(count) => written = written.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOTCONN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    #[test]
    fn nothing_is_lost_and_nothing_more_is_read_while_blocked() {
        let (from, feed) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let (result, to) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut scratch = vec![0u8; CHUNK];
        let mut flow = Flow::default();
        let mut feed = Some(feed);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for round in 0..200u32 {
            if let Some(end) = &feed {
                let bytes: Vec<u8> = (0..7000u32).map(|at| (at.wrapping_mul(round) % 251) as u8).collect();
                if let Ok(count) = nix::unistd::write(end, &bytes) {
                    sent.extend_from_slice(&bytes[..count]);
                }
            }
            if round == 150 {
                feed = None;
            }
            let standing = flow.turn(&from, &to, &mut scratch);
            assert!(flow.pending.len() <= CHUNK);
            if standing == Standing::Blocked {
                let before = flow.moved;
                assert_eq!(flow.turn(&from, &to, &mut scratch), Standing::Blocked);
                assert_eq!(flow.moved, before, "read although blocked");
            }
            let mut bytes = [0u8; 5000];
            while let Ok(count @ 1..) = nix::unistd::read(&result, &mut bytes) {
                got.extend_from_slice(&bytes[..count]);
                if round < 100 {
                    break; // a slow reader
                }
            }
        }
        assert_eq!(flow.turn(&from, &to, &mut scratch), Standing::Ended);
        assert_eq!(flow.moved, sent.len() as u64);
        assert!(got == sent, "{} bytes became {}", sent.len(), got.len());
    }

    #[test]
    fn a_reader_that_is_gone_breaks_the_flow() {
        let (from, feed) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let (result, to) = pipe2(OFlag::O_NONBLOCK).unwrap();
        nix::unistd::write(&feed, b"x").unwrap();
        drop(result);
        assert_eq!(Flow::default().turn(&from, &to, &mut [0; 16]), Standing::Broken);
    }
}
