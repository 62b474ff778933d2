//! The machine's end of the control socket: who may speak, how many, and for how long.
//!
//! One thread accepts; each connection has a thread of its own while it lasts, so that one that is slow, silent or
//! hostile holds up nobody but itself. What a command does is decided by a [`Conduct`]; nothing here knows the guest.
//!
//! ```text
//!   accept -> uid checked -> room? -> first frame (in time?) -> Conduct::conduct -> Outcome -> closed
//!                 |            |                                       |
//!               closed     Failed("...")                     an exec's connection goes on
//! ```

use super::wire::{self, WireError};
use super::{Command, Outcome, Request};
use crate::error::ErrorKind;
use crate::machine::order::Failed;
use crate::machine::walls::{Thread, Walls, entered};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Uid, getuid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The most connections at a time. An exec holds one while it lasts.
pub const MOST_CONNECTIONS: usize = 64;

/// How long a peer may take to say what it wants.
const FIRST_COMMAND: Duration = Duration::from_secs(10);

/// Enough for a frame's decoding; the default of 8 MiB for each of 64 is address space for nothing.
const STACK: usize = 256 << 10;

/// What commands do. Called on a connection's own thread; may take as long as it needs.
pub trait Conduct: Send + Sync + 'static {
    /// Does what `request` says, and answers on `caller`. When it returns, the connection is closed.
    fn conduct(&self, request: Request, descriptors: Vec<OwnedFd>, caller: &Caller);
}

/// One connection, as a [`Conduct`] sees it.
pub struct Caller {
    socket: UnixStream,
}

impl Caller {
    /// Says what came of a command. A caller that is gone or does not listen is no error of ours.
    pub fn answer(&self, outcome: &Outcome) {
        if let Err(error) = wire::send_frame(&self.socket, outcome, &[]) {
            tracing::debug!(%error, "an answer was not taken");
        }
    }

    /// The next command on this connection, as soon as there is one.
    pub fn next(&self) -> Result<Command, WireError> {
        wire::receive_frame::<Request>(&self.socket, None).map(|(request, _)| request.command)
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Serves `listener` on a thread of its own, until the process ends.
pub fn serve(listener: UnixListener, conduct: Arc<dyn Conduct>, walls: Walls) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("control".into())
        .stack_size(STACK)
        .spawn(move || {
            let own = getuid();
            if entered(walls, Thread::Control, || Ok(())) {
                accept(&listener, &conduct, own);
            }
        })
        .map(drop)
}

fn accept(listener: &UnixListener, conduct: &Arc<dyn Conduct>, own: Uid) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors, most likely: others will be closed. Never a reason to stop listening.
                tracing::debug!(%error, "a control connection was not accepted");
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        if !permitted(&socket, own) {
            continue;
        }
        let caller = Caller { socket };
        let place = Place::take(&open);
        if place.is_none() {
            caller.answer(&refusal(format!(
                "more than {MOST_CONNECTIONS} commands are under way for this container"
            )));
            continue;
        }
        let conduct = Arc::clone(conduct);
        let spawned = std::thread::Builder::new().name("caller".into()).stack_size(STACK).spawn(move || {
            converse(&*conduct, &caller);
            drop(place);
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "no thread for a control connection");
        }
    }
}

/// Hears one command and has it done.
fn converse(conduct: &dyn Conduct, caller: &Caller) {
    match wire::receive_frame(&caller.socket, Some(FIRST_COMMAND)) {
        Ok((request, descriptors)) => conduct.conduct(request, descriptors, caller),
        Err(WireError::Closed) => {}
        Err(error) => caller
            .answer(&refusal(format!("the command cannot be understood: {}", crate::error::chain(&error)))),
    }
}

/// Whether the peer is root or us. The socket's mode and directory say so too; this does not depend on either.
fn permitted(socket: &UnixStream, own: Uid) -> bool {
    match getsockopt(socket, sockopt::PeerCredentials) {
        Ok(peer) => {
            let uid = Uid::from_raw(peer.uid());
            uid.is_root() || uid == own
        }
        Err(_) => false,
    }
}

fn refusal(message: String) -> Outcome {
    Outcome::Failed(Failed { kind: ErrorKind::InvalidArgument, message })
}

/// One of the [`MOST_CONNECTIONS`] places; given back on drop.
struct Place {
    open: Arc<AtomicUsize>,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Place> {
        let one_more = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= MOST_CONNECTIONS);
        open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Place { open: Arc::clone(open) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, Phase, client, listen_at};
    use super::*;
    use crate::machine::order::SystemCalls;
    use std::io::Write;
    use std::path::Path;

    /// Answers `Status`, and keeps the connection of an `Exec`-like command (here: `Watch`) until the caller leaves.
    struct Fake;

    impl Conduct for Fake {
        fn conduct(&self, request: Request, _: Vec<OwnedFd>, caller: &Caller) {
            match request.command {
                Command::Watch => while caller.next().is_ok() {},
                _ => caller.answer(&Outcome::Status(Phase::Running)),
            }
        }
    }

    fn served(directory: &Path) -> Address {
        let path = directory.join("control.sock");
        let walls = Walls::new(SystemCalls::Enforce);
        serve(listen_at(&path).unwrap(), Arc::new(Fake), walls).unwrap();
        Address::of_first(&path)
    }

    #[test]
    fn a_command_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = served(directory.path());
        assert_eq!(client::ask(&path, &Command::Status).unwrap(), Outcome::Status(Phase::Running));
    }

    #[test]
    fn a_silent_caller_and_one_that_talks_nonsense_hold_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = served(directory.path());
        let _silent = UnixStream::connect(&path.socket).unwrap();
        let mut nonsense = UnixStream::connect(&path.socket).unwrap();
        nonsense.write_all(b"\0\0\0\x04nope").unwrap();
        assert!(client::ask(&path, &Command::Status).is_ok());
        let (words, _) = wire::receive_frame::<Outcome>(&nonsense, Some(Duration::from_secs(5))).unwrap();
        assert!(matches!(words, Outcome::Failed(failed) if failed.message.contains("cannot be understood")));
    }

    #[test]
    fn connections_beyond_the_limit_are_refused_with_words_until_one_closes() {
        let directory = tempfile::tempdir().unwrap();
        let path = served(directory.path());
        let mut held: Vec<client::Connection> = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            let mut connection = client::Connection::open(&path).unwrap();
            connection.send(&Command::Watch, &[]).unwrap();
            held.push(connection);
        }
        let refused = client::ask(&path, &Command::Status).unwrap_err();
        assert!(refused.to_string().contains("more than 64"), "{refused}");
        held.pop();
        let again = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            client::ask(&path, &Command::Status).is_ok()
        });
        assert!(again);
    }

    #[test]
    fn nobody_behind_a_socket_is_told_as_a_container_that_does_not_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = Address::of_first(&directory.path().join("control.sock"));
        assert!(matches!(client::ask(&path, &Command::Status), Err(client::ClientError::Gone)));
        drop(listen_at(&path.socket).unwrap());
        assert!(matches!(client::ask(&path, &Command::Status), Err(client::ClientError::Gone)));
    }
}
