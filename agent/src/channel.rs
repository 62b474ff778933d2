//! Between the agent and one child that it set up: the child tells how far it came, the agent tells it to go on.
//!
//! ```text
//!   child                               agent
//!     | -- Unshared -------------------> |  writes the user namespace's maps and the clock offsets
//!     | <- Proceed --------------------- |  (sent at once when nothing has to wait for Unshared)
//!     | -- Terminal(master) -----------> |
//!     | -- Prepared -------------------> |  answers Create
//!     | <- Start ----------------------- |  a container's first process only
//!     | -- Hooked ---------------------> |  if it has hooks to run first
//!     |    execve closes the child's end |  answers Start, or Exec
//! ```
//!
//! `Failed` may come instead of any of the child's notes. The child's end is close-on-exec, so the agent reads the end
//! of the conversation as "the program runs" if `Prepared` (and `Hooked`) came before, and as a death otherwise.

use crate::sys::{self, message};
use husk_protocol::{Failure, FailureKind};
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The longest failure text that is passed on.
const LONGEST_TEXT: usize = 4096;

/// What a child tells.
#[derive(Debug)]
pub enum Note {
    /// Its namespaces exist; it waits for [`Order::Proceed`].
    Unshared,
    /// The master of the terminal it made.
    Terminal(OwnedFd),
    /// Everything is done but the execve.
    Prepared,
    /// The hooks of the start have run.
    Hooked,
    /// Something went wrong: it ends.
    Failed(Failure),
}

/// What the agent tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The maps are written.
    Proceed,
    /// Execute the program.
    Start,
}

/// The child's end.
pub struct ChildEnd(OwnedFd);

/// The agent's end. Never blocks.
pub struct AgentEnd(OwnedFd);

/// Both ends of a new conversation.
pub fn open() -> sys::Result<(AgentEnd, ChildEnd)> {
    let (agent, child) = message::pair()?;
    Ok((AgentEnd(agent), ChildEnd(child)))
}

impl ChildEnd {
    /// Tells the agent. If nobody listens any more the child has no reason to go on: the caller ends.
    pub fn tell(&self, note: &Note) -> sys::Result<()> {
        let (bytes, descriptor) = encode(note);
        message::send(&self.0, &bytes, descriptor)
    }

    /// Waits for an order.
    pub fn wait(&self, order: Order) -> sys::Result<()> {
        let mut byte = [0u8; 1];
        let (length, _) = message::receive(&self.0, &mut byte, true)?;
        let wanted = [letter(order)];
        if byte.get(..length) == Some(wanted.as_slice()) { Ok(()) } else { Err(sys::Error(Errno::ECANCELED)) }
    }

    /// Its number, to keep it when others are closed.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AgentEnd {
    /// Gives an order.
    pub fn order(&self, order: Order) -> sys::Result<()> {
        message::send_now(&self.0, &[letter(order)])
    }

    /// Takes the next note: `Ok(None)` when the child's end is closed, EAGAIN when there is none yet.
    pub fn take(&self) -> sys::Result<Option<Note>> {
        let mut bytes = [0u8; LONGEST_TEXT + 2];
        let (length, descriptor) = message::receive(&self.0, &mut bytes, false)?;
        let message = bytes.get(..length).unwrap_or_default();
        if message.is_empty() { Ok(None) } else { Ok(Some(decode(message, descriptor))) }
    }
}

impl AsFd for AgentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn letter(order: Order) -> u8 {
    match order {
        Order::Proceed => b'p',
        Order::Start => b's',
    }
}

fn encode(note: &Note) -> (Vec<u8>, Option<RawFd>) {
    match note {
        Note::Unshared => (vec![b'u'], None),
        Note::Terminal(master) => (vec![b't'], Some(master.as_raw_fd())),
        Note::Prepared => (vec![b'p'], None),
        Note::Hooked => (vec![b'h'], None),
        Note::Failed(failure) => {
            let kind = match failure.kind {
                FailureKind::NotFound => b'n',
                FailureKind::InvalidState => b's',
                FailureKind::InvalidArgument => b'a',
                FailureKind::Unsupported => b'u',
                FailureKind::Guest => b'g',
            };
            let mut bytes = vec![b'f', kind];
            bytes.extend(failure.message.bytes().take(LONGEST_TEXT));
            (bytes, None)
        }
    }
}

/// A child runs our code, but beside a container's processes: what it says is read as if it could be anything.
fn decode(message: &[u8], descriptor: Option<OwnedFd>) -> Note {
    match (message, descriptor) {
        ([b'u'], None) => Note::Unshared,
        ([b't'], Some(master)) => Note::Terminal(master),
        ([b'p'], None) => Note::Prepared,
        ([b'h'], None) => Note::Hooked,
        ([b'f', kind, text @ ..], None) => Note::Failed(Failure {
            kind: match kind {
                b'n' => FailureKind::NotFound,
                b's' => FailureKind::InvalidState,
                b'a' => FailureKind::InvalidArgument,
                b'u' => FailureKind::Unsupported,
                _ => FailureKind::Guest,
            },
            message: String::from_utf8_lossy(text).into_owned(),
        }),
        _ => Note::Failed(Failure {
            kind: FailureKind::Guest,
            message: "the set-up process said something unknown".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_travels_word_by_word() {
        let (agent, child) = open().unwrap();
        let failure = Failure { kind: FailureKind::Unsupported, message: "exec: \"x\": é".to_owned() };
        child.tell(&Note::Failed(failure.clone())).unwrap();
        drop(child);
        assert!(matches!(agent.take(), Ok(Some(Note::Failed(came))) if came == failure));
        assert!(matches!(agent.take(), Ok(None)));
    }

    #[test]
    fn the_agent_does_not_wait_for_a_silent_child() {
        let (agent, _child) = open().unwrap();
        assert_eq!(agent.take().map(drop), Err(sys::Error(Errno::EAGAIN)));
    }

    #[test]
    fn a_text_without_end_is_cut() {
        let (agent, child) = open().unwrap();
        let failure = Failure { kind: FailureKind::Guest, message: "x".repeat(1 << 20) };
        child.tell(&Note::Failed(failure)).unwrap();
        let Ok(Some(Note::Failed(came))) = agent.take() else { panic!("no failure came") };
        assert_eq!(came.message.len(), LONGEST_TEXT);
    }

    #[test]
    fn a_wrong_order_is_not_obeyed() {
        let (agent, child) = open().unwrap();
        agent.order(Order::Proceed).unwrap();
        assert!(child.wait(Order::Start).is_err());
    }
}
